"""What turns cells into model inputs: the part that images and texts differ in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from sklearn_difffeat.inputs._cells import Cells


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
    errors : dict of int to Exception
        Why rows have no input after all, by their position in the batch.
    encoded : bool
        Whether the inputs are latents already.
    """

    inputs: Any
    truncated: np.ndarray
    errors: dict[int, Exception] = field(default_factory=dict)
    encoded: bool = False

    def __getitem__(self, at: slice | np.ndarray) -> Prepared:
        return Prepared(self.inputs[at], self.truncated[at], encoded=self.encoded)


class Reader(ABC):
    """Reads cells; cheap to pickle. Its errors say what is wrong, not in which row.

    Attributes
    ----------
    window : int or None
        How many cells are read before the store is asked for them; None asks for all
        at once, where reading costs nothing.
    takes_arrays : bool
        Whether a numeric 4-D array is a column of cells.
    pads : bool
        Whether rows of a batch are padded to one length, which shows in the rounding
        of anything less precise than float32.
    """

    window: int | None = None
    takes_arrays: ClassVar[bool] = False
    pads: ClassVar[bool] = False

    @staticmethod
    @abstractmethod
    def check_cell(cell: Any) -> None:
        """Look at a cell without reading files.

        Raises
        ------
        TypeError
            When it is of a kind that cannot be read.
        ValueError
            When it is of such a kind, and broken.
        """

    @staticmethod
    def check_file(cell: Any) -> None:
        """Raise OSError when a cell names a file that is not there; reads no file."""
        return

    @staticmethod
    def are_plainly_good(cells: Cells) -> bool:
        """Whether a look at all cells at once saves a look at each."""
        return False

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What, beside its content, decides on a row's model input."""

    @abstractmethod
    def size(self, cell: Any) -> int:
        """Return a cell's side in pixels, or guess how many tokens it has."""

    @abstractmethod
    def read(self, cells: Sequence[Any]) -> list[Content]:
        """Read some cells, each once."""

    @abstractmethod
    def prepare(self, backbone: Any, contents: Sequence[Content]) -> Prepared:
        """Make inputs for a backbone of the reader's modality."""

    def order(self, cells: Cells) -> np.ndarray:
        """Return the order in which to process cells that are read all at once."""
        return np.arange(len(cells))

    def portable(self, cell: Any) -> Any:
        """Return a cell as another process, in another folder, may read it."""
        return cell

    def carried(self, cell: Any) -> Any:
        """Return a cell as another machine, without these files, may read it."""
        return self.portable(cell)

    def load(self, cell: Any) -> int:
        """Return the bytes of the file that :meth:`carried` takes along."""
        return 0

    def for_workers(self) -> Reader:
        """Return a reader that takes along what acts on reading in this process."""
        return self

    def surroundings(self) -> AbstractContextManager[None]:
        """Return what to hold in a worker while it reads as this process does."""
        return nullcontext()
