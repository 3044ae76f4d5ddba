"""One worker's way through some rows: every pass that is needed, and none twice."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from itertools import chain
from typing import Any

import numpy as np
import torch

from sklearn_difffeat.backbones import Backbone
from sklearn_difffeat.backbones._base import ImageBackbone, Tokens
from sklearn_difffeat.extraction._batches import (
    Batch,
    BatchSizer,
    prefetched,
    split_on_out_of_memory,
)
from sklearn_difffeat.extraction._engine import encode_pixels, run_pass
from sklearn_difffeat.extraction._features import Features
from sklearn_difffeat.extraction._job import Job, Rows
from sklearn_difffeat.extraction._look_up import LookUp
from sklearn_difffeat.inputs._reader import Content, Prepared
from sklearn_difffeat.store._chunk import Chunk, Pass
from sklearn_difffeat.store._claims import Claims
from sklearn_difffeat.store._store import FeatureStore

# Seconds between two looks at what another worker is computing.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 1.0


# Takes what was computed: the rows' places in ``Rows``, the column of the pass.
Receive = Callable[[np.ndarray, int, Chunk], None]


class Extraction:
    """One worker's way through some rows, in one process.

    What is unknown after a look-up is claimed, made model inputs and passed, batch by
    batch; what the store has is collected at the end, in one sweep.

    Parameters
    ----------
    job : Job
    rows : Rows
        Brought up to date as cells are read and passes come in.
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
        self._backbone: Backbone | None = None
        self._sizer: BatchSizer | None = None
        self.look_up = LookUp(job, rows, store, self.passes, self.collect, on_done)

    @property
    def backbone(self) -> Backbone:
        """The model; a call that finds everything in the store loads none."""
        # No cached_property: until Python 3.12 its lock is all instances', and one
        # that another thread holds at a fork is never free again.
        if self._backbone is None:
            self._backbone = self.job.backbone()
        return self._backbone

    @property
    def sizer(self) -> BatchSizer:
        """How many rows the model takes at a time."""
        if self._sizer is None:
            self._sizer = self.job.sizer(self.backbone)
        return self._sizer

    @property
    def latents(self) -> Pass | None:
        """Where the latents of pictures are kept, if they are worth it."""
        encodes = isinstance(self.backbone, ImageBackbone) and self.backbone.has_encoder
        if self.store is None or not encodes:
            return None
        return self.job.latents(self.store)

    def keep(self, chosen: np.ndarray, column: int, chunk: Chunk) -> None:
        """Keep what a pass gave, in the store and in the features."""
        if self.store is not None:
            self.store.put([chunk])
        if self.features is not None:
            self.features.write(chosen, self.passes[column], chunk.values)
        self.rows.truncated[chosen] |= chunk.truncated

    def check_kept(self) -> None:
        """Refuse to compute what is only to be kept, in a store that keeps nothing.

        Raises
        ------
        PermissionError
            When the store cannot be written.
        """
        for_store = self.features is None and self.receive == self.keep
        if for_store and self.store is not None and not self.store.file.writable:
            with self.store.file.transaction():
                pass

    def collect(self, chosen: np.ndarray) -> None:
        """Fetch from the store what it holds by now of what some rows need."""
        assert self.store is not None
        before = self.rows.needed[chosen].any(axis=1)
        for column, one in enumerate(self.passes):
            wanted = chosen[self.rows.needed[chosen, column]]
            if not len(wanted):
                continue
            digests = self.rows.digests_of(wanted)
            places, truncated = self.store.find(one, digests, self.job.deepest)
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
        """Compute what is needed and not known; wait for what others are computing."""
        while self.rows.needed.any():
            known: list[np.ndarray] = []
            self._compute_unknown(self.look_up.unknown(known))
            if known:
                # Some may be gone from a store of bounded size: once more, then.
                self.collect(np.concatenate(known))

    def _compute_unknown(
        self, unknown: Iterator[tuple[np.ndarray, list[Content]]]
    ) -> None:
        first = next(unknown, None)
        if first is None:
            return
        self.check_kept()
        windows = (Batch(*window) for window in chain([first], unknown))
        claims = (
            nullcontext()
            if self.store is None
            else Claims(self.store, self.passes, self.latents, self.job.deepest)
        )
        with claims as held:
            waiting = self._compute_all(windows, held)
            pause = SHORTEST_PAUSE
            while len(waiting):
                # Another worker is computing these rows, unless it gives them back.
                n_before = len(waiting)
                waiting = self._compute_all([Batch(waiting)], held)
                if len(waiting) < n_before:
                    pause = SHORTEST_PAUSE
                    continue
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                self.collect(waiting)
                waiting = waiting[self.rows.needed[waiting].any(axis=1)]

    def _compute_all(self, parts: Iterable[Batch], claims: Claims | None) -> np.ndarray:
        """Compute the rows that are granted; return those that others have claimed."""
        later = [np.empty(0, np.intp)]
        batches = self._claimed(self._sized(parts), claims, later)
        for batch, prepared in prefetched(batches, self._prepare):
            self._compute(batch, prepared)
        return np.concatenate(later)

    def _sized(self, parts: Iterable[Batch]) -> Iterator[Batch]:
        """Join and cut parts to as many rows as the model takes."""
        held: Batch | None = None
        for part in parts:
            held = part if held is None else held.joined(part)
            while held and len(held.chosen) >= (count := self._batch_size(held)):
                rest = held.cut(slice(count, None))
                yield held.cut(slice(0, count))
                held = rest if len(rest.chosen) else None
        if held:
            yield held

    def _batch_size(self, batch: Batch) -> int:
        (cell,) = self.rows.cells_of(batch.chosen[:1])
        size = self.job.reader.size(cell)
        return self.sizer.rows(self.backbone.activation_bytes(size))

    def _claimed(
        self, batches: Iterable[Batch], claims: Claims | None, later: list[np.ndarray]
    ) -> Iterator[Batch]:
        for batch in batches:
            if claims is None:
                yield batch
                continue
            chosen = batch.chosen
            digests = self.rows.digests_of(chosen)
            granted, known, places = claims.take(digests, self.rows.needed[chosen])
            if known.any():
                self.collect(chosen[known])
            later.append(chosen[self.rows.needed[chosen].any(axis=1) & ~granted])
            encoded = granted & (places >= 0)
            if encoded.any():
                yield Batch(chosen[encoded], places=places[encoded])
            if (granted & ~encoded).any():
                yield batch.cut(np.flatnonzero(granted & ~encoded))

    def _prepare(self, batch: Batch) -> Prepared:
        stored = None if batch.places is None else self._stored_latents(batch)
        if stored is not None:
            return stored
        numbers = self.rows.numbers[batch.chosen].tolist()
        if batch.contents is not None:
            return self.job.reader.prepare(self.backbone, batch.contents, numbers)
        contents = self.job.reader.read(self.rows.cells_of(batch.chosen), numbers)
        prepared = self.job.reader.prepare(self.backbone, contents, numbers)
        # Read for the second time: a file may have changed since it was looked up.
        digests = self.rows.digests_of(batch.chosen)
        for place, (content, digest) in enumerate(zip(contents, digests, strict=True)):
            prepared.unchanged[place] = content.digest == digest
        return prepared

    def _stored_latents(self, batch: Batch) -> Prepared | None:
        assert self.store is not None and batch.places is not None
        assert self.latents is not None
        places = batch.places
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
        digests = self.rows.digests_of(batch.chosen)
        _, truncated = self.store.find(self.latents, digests, 0)
        unchanged = np.ones(len(places), dtype=bool)
        return Prepared(latents.to(self.backbone.device), truncated, unchanged)

    def _compute(self, batch: Batch, prepared: Prepared) -> None:
        chosen = batch.chosen
        if prepared.errors:
            for place, error in prepared.errors.items():
                self.rows.give_up(int(chosen[place]), error)
            readable = np.setdiff1d(np.arange(len(chosen)), list(prepared.errors))
            self.on_done(len(prepared.errors))
            chosen, prepared = chosen[readable], prepared[readable]
            if not len(chosen):
                return
        count = len(chosen)
        try:
            split_on_out_of_memory(
                lambda part: self._compute_part(chosen[part], prepared[part]),
                slice(0, count),
                self.sizer,
            )
        except MemoryError as error:
            rows = self.rows.numbers[chosen]
            raise MemoryError(
                f"one row of X does not fit in memory by itself (of rows {rows.min()} "
                f"to {rows.max()}); choose a smaller backbone or input size, or "
                "another device."
            ) from error
        self.on_done(count)

    def _compute_part(self, chosen: np.ndarray, prepared: Prepared) -> None:
        inputs = prepared.inputs
        if isinstance(inputs, np.ndarray):
            inputs = self._encode(chosen, prepared)
        for column, one in enumerate(self.passes):
            at = np.flatnonzero(self.rows.needed[chosen, column])
            if not len(at):
                continue
            some = inputs if len(at) == len(chosen) else inputs[at]
            values = self._pass(chosen[at], one, some)
            chunk = self._chunk(one, chosen[at], prepared[at], values)
            if self.job.keep:
                chunk = chunk.compact(self.job.dtype)
            self.receive(chosen[at], column, chunk)
            self.rows.needed[chosen[at], column] = False

    def _encode(self, chosen: np.ndarray, prepared: Prepared) -> torch.Tensor:
        """Turn pixels into latents, and keep these where that saves work later."""
        assert isinstance(self.backbone, ImageBackbone)
        latents = encode_pixels(self.backbone, prepared.inputs)
        if not self.backbone.has_encoder:
            return latents
        flat = {0: latents.flatten(1).cpu().numpy()}
        wrong = np.flatnonzero(~finite_rows(flat))
        if len(wrong):
            precise = self._precise(chosen[wrong])
            assert isinstance(precise, ImageBackbone)
            again = encode_pixels(precise, prepared.inputs[wrong])
            self._replace(flat, wrong, {0: again.flatten(1).cpu().numpy()}, chosen)
            latents = torch.from_numpy(flat[0]).view(latents.shape).to(latents.device)
        if self.latents is not None and self.store is not None:
            self.store.put([self._chunk(self.latents, chosen, prepared, flat)])
        return latents

    def _pass(
        self, chosen: np.ndarray, one: Pass, inputs: torch.Tensor | Tokens
    ) -> dict[int, np.ndarray]:
        """Run one pass, again in float32 for rows that overflow the model's dtype."""

        def run(backbone: Backbone, some: torch.Tensor | Tokens) -> Any:
            plan, blocks = self.job.plan, self.job.blocks
            return run_pass(backbone, some, plan, one.timestep, one.draw, blocks)

        values = run(self.backbone, inputs)
        wrong = np.flatnonzero(~finite_rows(values))
        if len(wrong):
            precise = self._precise(chosen[wrong])
            self._replace(values, wrong, run(precise, inputs[wrong]), chosen)
        return values

    def _precise(self, chosen: np.ndarray) -> Backbone:
        """Return the model in float32, for rows that overflowed in less."""
        if self.job.dtype == "float32":
            raise self._not_finite(chosen)
        self.rows.overflowed[chosen] = True
        return self.job.backbone("float32")

    def _replace(
        self,
        values: dict[int, np.ndarray],
        wrong: np.ndarray,
        again: dict[int, np.ndarray],
        chosen: np.ndarray,
    ) -> None:
        finite = finite_rows(again)
        if not finite.all():
            raise self._not_finite(chosen[wrong[~finite]])
        for block, precise in again.items():
            values[block] = values[block].copy()
            values[block][wrong] = precise

    def _not_finite(self, chosen: np.ndarray) -> ValueError:
        numbers = self.rows.numbers[chosen]
        return ValueError(
            f"row {numbers.min()} of X: backbone {self.job.source.name!r} gives values "
            f"that are not finite, even in float32 (as in {len(numbers)} rows of its "
            "batch); choose another block or timestep, or check the weights."
        )

    def _chunk(
        self,
        one: Pass,
        chosen: np.ndarray,
        prepared: Prepared,
        values: dict[int, np.ndarray],
    ) -> Chunk:
        digests = self.rows.digests_of(chosen)
        return Chunk(one, digests, prepared.truncated, prepared.unchanged, values)


def finite_rows(values: Mapping[int, np.ndarray]) -> np.ndarray:
    """Return which rows (n,) are finite in all blocks."""
    return np.all([np.isfinite(v).all(axis=1) for v in values.values()], axis=0)
