"""What turns cells into model inputs: the part that images and texts differ in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sklearn_difffeat._cells import Cells

if TYPE_CHECKING:
    from sklearn_difffeat.backbones import Backbone


@dataclass
class Prepared:
    """Model inputs of a batch.

    Attributes
    ----------
    inputs : ndarray, torch.Tensor or Tokens
        Pixels (n, size, size, 3), uint8, latents, or tokenized texts.
    truncated : ndarray of shape (n,), bool
        True where the input was cut.
    unchanged : ndarray of shape (n,), bool
        False where a cell's content is no longer the one that was looked up.
    """

    inputs: Any
    truncated: np.ndarray
    unchanged: np.ndarray

    def __getitem__(self, rows: slice | np.ndarray) -> Prepared:
        return Prepared(self.inputs[rows], self.truncated[rows], self.unchanged[rows])


class Reader(ABC):
    """Reads cells; cheap to pickle."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What, beside its content, decides on a row's model input."""

    @abstractmethod
    def size(self, cell: Any) -> int:
        """Return a cell's side in pixels, or guess how many tokens it has."""

    @abstractmethod
    def digest(self, cells: Cells, rows: Sequence[int]) -> list[bytes]:
        """Return a digest of each cell's content; ``rows`` are named in errors."""

    @abstractmethod
    def prepare(
        self,
        backbone: Backbone,
        cells: Cells,
        rows: Sequence[int],
        digests: Sequence[bytes],
    ) -> Prepared:
        """Make model inputs of cells whose contents had these digests."""

    def order(self, cells: Cells) -> np.ndarray:
        """Return the order in which to process cells."""
        return np.arange(len(cells))
