"""What a worker has to know, and the rows it works on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from sklearn_difffeat._cells import Cells
from sklearn_difffeat.backbones import Backbone, load_backbone
from sklearn_difffeat.backbones._source import Source
from sklearn_difffeat.extraction._batches import BatchSizer
from sklearn_difffeat.extraction._chunk import Pass
from sklearn_difffeat.extraction._plan import Plan
from sklearn_difffeat.extraction._reader import Reader
from sklearn_difffeat.extraction._store import FeatureStore

# Raised when a change to decoding, encoding or noise changes the features.
PREPROCESSING = 1
LATENTS = -1

# For each loaded model, since what did not fit once is not tried again.
_sizers: WeakKeyDictionary[Backbone, BatchSizer] = WeakKeyDictionary()


@dataclass(frozen=True)
class Job:
    """Everything a worker has to know; cheap to pickle.

    Attributes
    ----------
    source : Source
    fingerprint : str
    device, dtype : str
    reader : Reader
    plan : Plan
    blocks : tuple of int
        The blocks to hand over of each pass.
    keep : bool
        Whether results are on their way to a store.
    batch_size : int or None
        None finds it.
    """

    source: Source
    fingerprint: str
    device: str
    dtype: str
    reader: Reader
    plan: Plan
    blocks: tuple[int, ...]
    keep: bool
    batch_size: int | None

    def backbone(self) -> Backbone:
        """Load the model, unless this process has it."""
        dtype = getattr(torch, self.dtype)
        return load_backbone(
            self.source, device=self.device, dtype=dtype, prompt=self.plan.prompt
        )

    def passes(self, store: FeatureStore | None) -> list[Pass]:
        """Return the passes that every row needs."""
        settings = {
            "kind": "features",
            "seed": self.plan.seed,
            "pooling": self.plan.pooling,
        }
        if self.plan.prompt:
            settings["prompt"] = self.plan.prompt
        space = -1 if store is None else store.space(self._key | settings)
        return [Pass(space, *one) for one in self.plan.passes]

    def latents(self, store: FeatureStore) -> Pass:
        """Return where the latents of pictures are kept."""
        return Pass(store.space(self._key | {"kind": "latents"}), LATENTS, 0)

    @property
    def _key(self) -> dict[str, Any]:
        return {
            "backbone": self.fingerprint,
            "dtype": self.dtype,
            "preprocessing": PREPROCESSING,
            **self.reader.settings,
        }

    def sizer(self, backbone: Backbone) -> BatchSizer:
        """Return what is known of the batches that a loaded model takes."""
        if self.batch_size is not None:
            return BatchSizer(backbone.device, self.batch_size)
        if backbone not in _sizers:
            _sizers[backbone] = BatchSizer(backbone.device)
        return _sizers[backbone]


@dataclass
class Rows:
    """Rows of distinct content on their way through a model.

    Attributes
    ----------
    cells : sequence or ndarray
    numbers : ndarray of shape (n,), int
        Where they stand in X, for messages.
    digests : list of bytes
    needed : ndarray of shape (n, n_passes), bool
        What is still to be had.
    truncated : ndarray of shape (n,), bool
        Whose input was cut.
    """

    cells: Cells
    numbers: np.ndarray
    digests: list[bytes]
    needed: np.ndarray
    truncated: np.ndarray

    @classmethod
    def new(
        cls, cells: Cells, numbers: np.ndarray, digests: list[bytes], n: int
    ) -> Rows:
        """Return rows that need all of ``n`` passes."""
        count = len(digests)
        needed, truncated = np.ones((count, n), dtype=bool), np.zeros(count, dtype=bool)
        return cls(cells, numbers, digests, needed, truncated)

    def take(self, chosen: np.ndarray) -> Rows:
        """Return some of the rows."""
        return Rows(
            [self.cells[i] for i in chosen],
            self.numbers[chosen],
            [self.digests[i] for i in chosen],
            self.needed[chosen],
            self.truncated[chosen],
        )
