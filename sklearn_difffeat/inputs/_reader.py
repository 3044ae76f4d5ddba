"""What turns cells into model inputs: the part that images and texts differ in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sklearn_difffeat.inputs._column import Cells

if TYPE_CHECKING:
    from sklearn_difffeat.backbones import Backbone


class Content(NamedTuple):
    """What one cell holds, read once.

    Attributes
    ----------
    digest : bytes
        Of all that acts on the model input; empty where the cell could not be read.
    value : object
        What the reader that made it prepares model inputs from.
    name : str
        What it is called in messages.
    error : Exception or None
        Why the cell could not be read.
    """

    digest: bytes
    value: Any
    name: str = ""
    error: Exception | None = None


@dataclass
class Prepared:
    """Model inputs of a batch.

    Attributes
    ----------
    inputs : ndarray, torch.Tensor or Tokens
        Pixels (n, size, size, 3), uint8, latents, or tokenized texts.
    truncated : ndarray of shape (n,), bool
        True where the reader warns of the input: a text was cut, a picture is black.
    unchanged : ndarray of shape (n,), bool
        False where a cell's content is no longer the one that was looked up.
    errors : dict of int to Exception
        Why rows of the batch, by their place in it, have no input after all.
    """

    inputs: Any
    truncated: np.ndarray
    unchanged: np.ndarray
    errors: dict[int, Exception] = field(default_factory=dict)

    def __getitem__(self, rows: slice | np.ndarray) -> Prepared:
        return Prepared(self.inputs[rows], self.truncated[rows], self.unchanged[rows])


class Reader(ABC):
    """Reads cells; cheap to pickle.

    Attributes
    ----------
    window : int or None
        How many cells are read before the store is asked for them; None asks for all
        at once, where reading costs nothing.
    """

    window: int | None = None

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What, beside its content, decides on a row's model input."""

    @abstractmethod
    def size(self, cell: Any) -> int:
        """Return a cell's side in pixels, or guess how many tokens it has."""

    @abstractmethod
    def read(self, cells: Sequence[Any], rows: Sequence[int]) -> list[Content]:
        """Read some cells, each once; ``rows`` are named in errors."""

    @abstractmethod
    def prepare(
        self, backbone: Backbone, contents: Sequence[Content], rows: Sequence[int]
    ) -> Prepared:
        """Make model inputs of what cells hold."""

    def order(self, cells: Cells) -> np.ndarray:
        """Return the order in which to process cells that are read all at once."""
        return np.arange(len(cells))

    def portable(self, cell: Any) -> Any:
        """Return a cell as another process, in another folder, may read it."""
        return cell

    def for_workers(self) -> Reader:
        """Return a reader that takes along what acts on reading in this process."""
        return self

    def surroundings(self) -> AbstractContextManager[None]:
        """Return what to hold in a worker while it reads as this process does."""
        return nullcontext()
