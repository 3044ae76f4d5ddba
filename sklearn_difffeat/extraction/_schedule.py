"""One worker's way through some rows: every pass that is needed, and none twice."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from sklearn_difffeat.backbones._base import ImageBackbone
from sklearn_difffeat.extraction._batches import prefetched, split_on_out_of_memory
from sklearn_difffeat.extraction._chunk import Chunk, Pass
from sklearn_difffeat.extraction._claims import Claims
from sklearn_difffeat.extraction._engine import encode_pixels, run_pass
from sklearn_difffeat.extraction._features import Features
from sklearn_difffeat.extraction._job import Job, Rows
from sklearn_difffeat.extraction._reader import Prepared
from sklearn_difffeat.extraction._store import FeatureStore

# Seconds between two looks at what another worker is computing.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 1.0


@dataclass
class _Batch:
    chosen: np.ndarray
    # Of the latents, where the store has them; None where the cells are to be read.
    places: np.ndarray | None = None


# Takes what was computed: the rows' places in ``Rows``, the column of the pass.
Receive = Callable[[np.ndarray, int, Chunk], None]


class Extraction:
    """One worker's way through some rows, in one process.

    Parameters
    ----------
    job : Job
    rows : Rows
        ``needed`` and ``truncated`` are brought up to date as passes come in.
    store : FeatureStore or None
    features : Features or None
        Filled with what is computed or found; None leaves it in the store.
    receive : callable, default=None
        Takes what was computed, instead of store and features.
    on_done : callable
        Takes how many rows have just got the last of what they need.
    """

    def __init__(
        self,
        job: Job,
        rows: Rows,
        store: FeatureStore | None,
        features: Features | None = None,
        receive: Receive | None = None,
        on_done: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.job, self.rows, self.store = job, rows, store
        self.features, self.on_done = features, on_done
        self.receive = receive or self.keep
        self.passes = job.passes(store)
        # Enough for what is asked; what is computed may go deeper, to be kept.
        self.deepest = max(job.plan.blocks)

    def keep(self, chosen: np.ndarray, column: int, chunk: Chunk) -> None:
        """Keep what a pass gave, in the store and in the features."""
        if self.store is not None:
            self.store.put([chunk])
        if self.features is not None:
            self.features.write(chosen, self.passes[column], chunk.values)
        self.rows.truncated[chosen] |= chunk.truncated

    def collect(self, chosen: np.ndarray) -> None:
        """Fetch from the store what it holds by now of what some rows need."""
        assert self.store is not None
        before = self.rows.needed[chosen].any(axis=1)
        for column, one in enumerate(self.passes):
            wanted = chosen[self.rows.needed[chosen, column]]
            if not len(wanted):
                continue
            digests = self.rows.digests
            if len(wanted) < len(digests):
                digests = [digests[i] for i in wanted.tolist()]
            places, truncated = self.store.find(one, digests, self.deepest)
            self.rows.truncated[wanted] |= truncated
            found = places >= 0
            if self.features is not None:
                found[:] = False
                blocks = self.job.plan.blocks
                for at, positions, values in self.store.read(places, blocks):
                    self.features.write(wanted[at], one, values, positions)
                    found[at] = True
            self.rows.needed[wanted[found], column] = False
        after = self.rows.needed[chosen].any(axis=1)
        self.on_done(int((before & ~after).sum()))

    def run(self) -> None:
        """Compute what is needed; wait for what others are computing."""
        self.backbone = self.job.backbone()
        self.sizer = self.job.sizer(self.backbone)
        self.latents = (
            self.job.latents(self.store)
            if self.store is not None
            and isinstance(self.backbone, ImageBackbone)
            and self.backbone.has_encoder
            else None
        )
        waiting = np.flatnonzero(self.rows.needed.any(axis=1))
        cells = [self.rows.cells[i] for i in waiting.tolist()]
        waiting = waiting[self.job.reader.order(cells)]
        claims = (
            nullcontext()
            if self.store is None
            else Claims(self.store, self.passes, self.latents, self.deepest)
        )
        pause = SHORTEST_PAUSE
        with claims as held:
            while len(waiting):
                later: list[np.ndarray] = []
                batches = self._batches(waiting, held, later)
                for batch, prepared in prefetched(batches, self._prepare):
                    self._compute(batch, prepared)
                # Rows that another worker is computing, unless it gives them back.
                n_before, waiting = len(waiting), np.concatenate([waiting[:0], *later])
                if len(waiting) < n_before:
                    pause = SHORTEST_PAUSE
                else:
                    time.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                    self.collect(waiting)
                    waiting = waiting[self.rows.needed[waiting].any(axis=1)]

    def _batches(
        self, order: np.ndarray, claims: Claims | None, later: list[np.ndarray]
    ) -> Iterator[_Batch]:
        start = 0
        while start < len(order):
            size = self.job.reader.size(self.rows.cells[int(order[start])])
            row_bytes = self.backbone.activation_bytes(size)
            chosen = order[start : start + self.sizer.rows(row_bytes)]
            start += len(chosen)
            if claims is None:
                yield _Batch(chosen)
                continue
            digests = [self.rows.digests[i] for i in chosen.tolist()]
            granted, known, places = claims.take(digests, self.rows.needed[chosen])
            if known.any():
                self.collect(chosen[known])
            later.append(chosen[self.rows.needed[chosen].any(axis=1) & ~granted])
            encoded = granted & (places >= 0)
            if encoded.any():
                yield _Batch(chosen[encoded], places[encoded])
            if (granted & ~encoded).any():
                yield _Batch(chosen[granted & ~encoded])

    def _prepare(self, batch: _Batch) -> Prepared:
        stored = None if batch.places is None else self._stored_latents(batch.places)
        if stored is not None:
            count = len(stored)
            return Prepared(stored, np.zeros(count, bool), np.ones(count, bool))
        rows = self.rows.take(batch.chosen)
        return self.job.reader.prepare(
            self.backbone, rows.cells, rows.numbers.tolist(), rows.digests
        )

    def _stored_latents(self, places: np.ndarray) -> torch.Tensor | None:
        assert self.store is not None
        found = None
        missing = len(places)
        for at, positions, values in self.store.read(places, [0]):
            if found is None:
                found = np.empty((len(places), values[0].shape[1]), np.float32)
            found[at] = values[0][positions]
            missing -= len(at)
        if found is None or missing:
            # Removed from a store of bounded size since they were found.
            return None
        assert isinstance(self.backbone, ImageBackbone)
        channels = self.backbone.latent_channels
        side = math.isqrt(found.shape[1] // channels)
        latents = torch.from_numpy(found).view(-1, channels, side, side)
        return latents.to(self.backbone.device)

    def _compute(self, batch: _Batch, prepared: Prepared) -> None:
        count = len(batch.chosen)
        try:
            split_on_out_of_memory(
                lambda part: self._compute_part(batch.chosen[part], prepared[part]),
                slice(0, count),
                self.sizer,
            )
        except MemoryError as error:
            rows = self.rows.numbers[batch.chosen]
            raise MemoryError(
                f"one row of X does not fit in memory by itself (of rows {rows.min()} "
                f"to {rows.max()}); choose a smaller backbone or input size, or "
                "another device."
            ) from error
        self.on_done(count)

    def _compute_part(self, chosen: np.ndarray, prepared: Prepared) -> None:
        inputs = prepared.inputs
        if isinstance(inputs, np.ndarray):
            assert isinstance(self.backbone, ImageBackbone)
            inputs = encode_pixels(self.backbone, inputs)
            if self.latents is not None and self.store is not None:
                flat = inputs.flatten(1).cpu().numpy()
                latents = self._chunk(self.latents, chosen, prepared, {0: flat})
                self.store.put([latents])
        for column, one in enumerate(self.passes):
            at = np.flatnonzero(self.rows.needed[chosen, column])
            if not len(at):
                continue
            some = inputs if len(at) == len(chosen) else inputs[at]
            _, timestep, draw = one
            values = run_pass(
                self.backbone, some, self.job.plan, timestep, draw, self.job.blocks
            )
            chunk = self._chunk(one, chosen[at], prepared[at], values)
            if self.job.keep:
                chunk = chunk.compact(self.job.dtype)
            self.receive(chosen[at], column, chunk)
            self.rows.needed[chosen[at], column] = False

    def _chunk(
        self,
        one: Pass,
        chosen: np.ndarray,
        prepared: Prepared,
        values: dict[int, np.ndarray],
    ) -> Chunk:
        digests = [self.rows.digests[i] for i in chosen.tolist()]
        return Chunk(one, digests, prepared.truncated, prepared.unchanged, values)
