"""What a worker needs, and the rows it works on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from sklearn_difffeat.backbones import load_backbone
from sklearn_difffeat.backbones._base import Backbone
from sklearn_difffeat.checkpoints._source import Source
from sklearn_difffeat.extraction._batches import BatchSizer
from sklearn_difffeat.extraction._plan import Plan
from sklearn_difffeat.inputs._cells import Cells, in_row
from sklearn_difffeat.inputs._reader import Reader
from sklearn_difffeat.store._chunk import Pass
from sklearn_difffeat.store._rows import StoredRows

# Raised when a change to decoding, encoding or noise changes the features.
PREPROCESSING = 2
LATENTS = -1

# For each loaded model, because a batch size that did not fit is not tried again.
_sizers: WeakKeyDictionary[Backbone, BatchSizer] = WeakKeyDictionary()


@dataclass(frozen=True)
class Job:
    """Everything a worker needs; cheap to pickle.

    Attributes
    ----------
    source : Source
    fingerprint : str
    device, dtype : str
    reader : Reader
    plan : Plan
    blocks : tuple of int
        The blocks of each pass to return.
    widths : tuple of int
        Channels of the plan's blocks.
    batch_size : int or None
        None chooses it.
    unreadable : {"error", "nan"}
        Whether a cell that cannot be read ends the call.
    """

    source: Source
    fingerprint: str
    device: str
    dtype: str
    reader: Reader
    plan: Plan
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    batch_size: int | None
    unreadable: str

    def backbone(self, dtype: str | None = None) -> Backbone:
        """Load the model, unless this process has it, in a precision of its own."""
        return load_backbone(
            self.source,
            device=self.device,
            dtype=getattr(torch, dtype or self.dtype),
            prompt=self.plan.prompt,
        )

    @property
    def passes(self) -> list[Pass]:
        """The passes that every row needs."""
        poolings = self.plan.poolings
        settings = {
            "kind": "features",
            "seed": self.plan.seed,
            "pooling": poolings[0] if len(poolings) == 1 else poolings,
        }
        if self.plan.prompt:
            settings["prompt"] = self.plan.prompt
        space = StoredRows.space(self._key | settings)
        return [Pass(space, *one) for one in self.plan.passes]

    @property
    def latents(self) -> Pass:
        """Where the latents of pictures are kept."""
        return Pass(StoredRows.space(self._key | {"kind": "latents"}), LATENTS, 0)

    @property
    def _key(self) -> dict[str, Any]:
        return {
            "backbone": self.fingerprint,
            "dtype": self.dtype,
            "preprocessing": PREPROCESSING,
            **self.reader.settings,
        }

    @property
    def deepest(self) -> int:
        """The deepest block requested; deeper ones may be computed for the store."""
        return max(self.plan.blocks)

    def sizer(self, backbone: Backbone) -> BatchSizer:
        """Return what is known about the batch sizes that a loaded model takes."""
        if self.batch_size is not None:
            return BatchSizer(backbone.device, self.batch_size)
        if backbone not in _sizers:
            _sizers[backbone] = BatchSizer(backbone.device)
        return _sizers[backbone]


@dataclass
class Rows:
    """The rows of X that go through a model, and what is known about each so far.

    Attributes
    ----------
    cells : sequence or ndarray
    numbers : ndarray of shape (n,), int
        The numbers of the rows in messages: their positions in the user's X.
    needed : ndarray of shape (n, n_passes), bool
        The passes that are still missing.
    unreadable : {"error", "nan"}
        Whether a cell that cannot be read ends the call.
    digests : ndarray of shape (n,), object
        Digests of the rows' contents, bytes, after they were read.
    truncated : ndarray of shape (n,), bool
        Whether the reader warns of a row's input.
    overflowed : ndarray of shape (n,), bool
        Which rows exceeded the range of the model's precision, and needed float32.
    errors : dict of int to Exception
        Why rows could not be read.
    """

    cells: Cells
    numbers: np.ndarray
    needed: np.ndarray
    unreadable: str
    digests: np.ndarray = field(init=False)
    truncated: np.ndarray = field(init=False)
    overflowed: np.ndarray = field(init=False)
    errors: dict[int, Exception] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.numbers)
        self.digests = np.full(count, b"", dtype=object)
        self.truncated = np.zeros(count, dtype=bool)
        self.overflowed = np.zeros(count, dtype=bool)

    def cells_of(self, rows: np.ndarray) -> list[Any]:
        """Return the cells of some of the rows."""
        return list(map(self.cells.__getitem__, rows.tolist()))

    def digests_of(self, rows: np.ndarray) -> list[bytes]:
        """Return the digests of rows that were read."""
        return self.digests[rows].tolist()

    def give_up(self, row: int, error: Exception) -> None:
        """Raise the error of a row that cannot be read, or stop asking for that row."""
        named = in_row(error, int(self.numbers[row]))
        if self.unreadable == "error" or isinstance(error, TypeError):
            raise named from error
        self.errors[row] = named
        self.needed[row] = False
