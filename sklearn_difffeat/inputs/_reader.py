"""What turns cells into model inputs: the part that images and texts differ in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from sklearn_difffeat.inputs._cells import Cells


@dataclass
class Contents:
    """What some cells hold, each read once.

    Attributes
    ----------
    digests : list of bytes
        Of all that affects a cell's model input; empty if it could not be read.
    values : sequence
        From these the same reader prepares model inputs.
    errors : dict of int to Exception
        Why cells could not be read, by their position.
    """

    digests: list[bytes]
    values: Sequence[Any]
    errors: dict[int, Exception] = field(default_factory=dict)

    def __getitem__(self, positions: Sequence[int]) -> Contents:
        """Return some of those that could be read."""
        digests = [self.digests[at] for at in positions]
        return Contents(digests, [self.values[at] for at in positions])

    def __add__(self, other: Contents) -> Contents:
        """Return those of both that could be read."""
        return Contents(self.digests + other.digests, [*self.values, *other.values])


@dataclass
class Prepared:
    """Model inputs of a batch.

    Attributes
    ----------
    inputs : ndarray, torch.Tensor or Tokens
        Pixels (n, size, size, 3), uint8, latents, or tokenized texts.
    truncated : ndarray of shape (n,), bool
        True if the reader warns of the input: a text was cut, a picture is black.
    errors : dict of int to Exception
        Why rows turned out to have no input, by their position in the batch.
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
        How many cells are read before they are looked up in the store; None looks up
        all at once, for cells that take no time to read.
    takes_arrays : bool
        Whether a numeric 4-D array is a column of cells.
    pads : bool
        Whether rows of a batch are padded to one length, which changes the rounding in
        any precision below float32.
    """

    window: int | None = None
    takes_arrays: ClassVar[bool] = False
    pads: ClassVar[bool] = False

    @staticmethod
    @abstractmethod
    def check_cell(cell: Any) -> None:
        """Check a cell without reading files.

        Raises
        ------
        TypeError
            When it is of a kind that cannot be read.
        ValueError
            When it is of a readable kind, but invalid.
        """

    @staticmethod
    def check_file(cell: Any) -> None:
        """Raise OSError when a cell names a file that is not there; reads no file."""
        return

    @staticmethod
    def are_plainly_good(cells: Cells) -> bool:
        """Whether one check of all cells can replace a check of each."""
        return False

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What determines a row's model input, apart from its content."""

    @abstractmethod
    def size(self, cell: Any) -> int:
        """Return a cell's side in pixels, or guess how many tokens it has."""

    @abstractmethod
    def read(self, cells: Sequence[Any]) -> Contents:
        """Read some cells, each once."""

    @abstractmethod
    def prepare(self, backbone: Any, contents: Contents) -> Prepared:
        """Make inputs for a backbone of the reader's modality."""

    def order(self, cells: Cells) -> np.ndarray:
        """Return the order in which to process cells that are read all at once."""
        return np.arange(len(cells))

    def portable(self, cell: Any) -> Any:
        """Return a cell so that another process, in another folder, can read it."""
        return cell

    def carried(self, cell: Any) -> Any:
        """Return a cell so that another machine, without these files, can read it."""
        return self.portable(cell)

    def load(self, cell: Any) -> int:
        """Return the number of bytes of the file that :meth:`carried` includes."""
        return 0

    def for_workers(self) -> Reader:
        """Return a reader that includes this process's settings for reading."""
        return self

    def surroundings(self) -> AbstractContextManager[None]:
        """Return a context in which a worker reads as this process does."""
        return nullcontext()
