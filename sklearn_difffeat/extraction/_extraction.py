"""One worker's work on some rows: every pass that is needed, and none twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from itertools import chain

import numpy as np
from sklearn.utils import gen_batches

from sklearn_difffeat.extraction._batches import Batch, prefetched
from sklearn_difffeat.extraction._features import Features
from sklearn_difffeat.extraction._job import Job, Rows
from sklearn_difffeat.extraction._model import Model, Receive
from sklearn_difffeat.inputs._reader import Contents, Prepared
from sklearn_difffeat.store._chunk import Chunk
from sklearn_difffeat.store._claims import Claims
from sklearn_difffeat.store._rows import StoredRows

# Seconds between two checks of what another worker is computing.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 1.0


class Extraction:
    """One worker's work on some rows, in one process.

    Rows that the store lacks are claimed, turned into model inputs and run, batch by
    batch. Rows that it has are collected at the end, all together.

    Parameters
    ----------
    job : Job
    rows : Rows
        Updated as cells are read and passes are computed.
    store : StoredRows or None
    features : Features or None
        Filled with what is computed or found; None leaves the features in the store.
    receive : callable, default=None
        Called with what was computed, instead of filling store and features.
    on_done : callable
        Called with the number of rows that have just been completed.

    Attributes
    ----------
    repeats : dict of int to int
        Rows with the same content as an earlier row; nothing is computed for them.
    """

    def __init__(
        self,
        job: Job,
        rows: Rows,
        store: StoredRows | None,
        features: Features | None = None,
        receive: Receive | None = None,
        on_done: Callable[[int], object] = lambda count: None,
    ) -> None:
        self.job, self.rows, self.store = job, rows, store
        self.features, self.on_done = features, on_done
        self.passes = job.passes
        self.keeps = receive is None
        self.model = Model(job, rows, self.passes, store, receive or self.keep)
        self.repeats: dict[int, int] = {}
        self._first_with: dict[bytes, int] = {}

    def run(self) -> None:
        """Compute what is needed and not known; wait for what others are computing."""
        while self.rows.needed.any():
            known: list[np.ndarray] = []
            unknown = self.unknown(known)
            first = next(unknown, None)
            if first is not None:
                self.check_kept()
                with self._claims() as claims:
                    for batch, prepared in self._ready(chain([first], unknown), claims):
                        self.model.compute(batch, prepared)
                        self.on_done(len(batch.rows))
            if known:
                # Some may have been removed from a store of limited size: try once
                # more.
                self.collect(np.concatenate(known))

    def keep(self, rows: np.ndarray, column: int, chunk: Chunk) -> None:
        """Keep the results of a pass, in the store and in the features."""
        if self.store is not None:
            chunk = chunk.compact(self.job.dtype)
            self.store.put([chunk])
        if self.features is not None:
            self.features.write(rows, self.passes[column], chunk.values)
        self.rows.truncated[rows] |= chunk.truncated

    def check_kept(self) -> None:
        """Refuse to compute only for the store, if the store cannot be written.

        Raises
        ------
        PermissionError
            When the store cannot be written.
        """
        for_store = self.features is None and self.keeps
        if for_store and self.store is not None and not self.store.file.writable:
            with self.store.file.transaction():
                pass

    def collect(self, rows: np.ndarray) -> None:
        """Read from the store what it has by now for some rows."""
        assert self.store is not None
        before = self.rows.needed[rows].any(axis=1)
        for column, one in enumerate(self.passes):
            wanted = rows[self.rows.needed[rows, column]]
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
        after = self.rows.needed[rows].any(axis=1)
        self.on_done(int((before & ~after).sum()))

    def unknown(self, known: list[np.ndarray]) -> Iterator[Batch]:
        """Yield the rows that have to be computed, with their contents, by windows.

        Each cell is read once, a window ahead of the model, so that the first pass need
        not wait for the last cell. Rows that the store has are added to ``known``, to
        be collected together: a chunk of the store holds rows of many windows.
        """
        reader = self.job.reader
        order = np.flatnonzero(self.rows.needed.any(axis=1))
        step = reader.window
        if step is None:
            order = order[reader.order(self.rows.cells_of(order))]
            step = max(1, len(order))
        elif self.job.batch_size is not None:
            step = min(step, self.job.batch_size)
        windows = (order[part] for part in gen_batches(len(order), step))
        for window, contents in prefetched(windows, self._read):
            fresh = self._first_of_each(window, contents)
            if self.store is not None and len(fresh):
                if reader.window is None:
                    self.collect(window[fresh])
                    found = ~self.rows.needed[window[fresh]].any(axis=1)
                else:
                    found = self._is_known(window[fresh])
                    known.append(window[fresh[found]])
                fresh = fresh[~found]
            if len(fresh):
                yield Batch(window[fresh], contents[fresh.tolist()])

    def _read(self, window: np.ndarray) -> Contents:
        return self.job.reader.read(self.rows.cells_of(window))

    def _first_of_each(self, window: np.ndarray, contents: Contents) -> np.ndarray:
        """Record what was read; return which of the window's rows are still needed."""
        digests = contents.digests
        rows = window.tolist()
        distinct = set(digests)
        if len(distinct) == len(rows) and not contents.errors:
            if self._first_with.keys().isdisjoint(distinct):
                self._first_with.update(zip(digests, rows, strict=True))
                self.rows.digests[window] = digests
                return np.arange(len(rows))
        fresh = []
        for at, (row, digest) in enumerate(zip(rows, digests, strict=True)):
            if at in contents.errors:
                self.rows.give_up(row, contents.errors[at])
                continue
            self.rows.digests[row] = digest
            original = self._first_with.setdefault(digest, row)
            if original == row:
                fresh.append(at)
            else:
                self.repeats[row] = original
                self.rows.needed[row] = False
        self.on_done(len(window) - len(fresh))
        return np.array(fresh, dtype=np.intp)

    def _is_known(self, rows: np.ndarray) -> np.ndarray:
        """Return which rows have all that they need in the store."""
        assert self.store is not None
        digests = self.rows.digests_of(rows)
        known = np.ones(len(rows), dtype=bool)
        for column, one in enumerate(self.passes):
            places, _ = self.store.find(one, digests, self.job.deepest)
            known &= (places >= 0) | ~self.rows.needed[rows, column]
        return known

    def _claims(self) -> Claims | nullcontext[None]:
        if self.store is None:
            return nullcontext()
        return Claims(self.store, self.passes, self.model.latents, self.job.deepest)

    def _ready(
        self, windows: Iterable[Batch], claims: Claims | None
    ) -> Iterator[tuple[Batch, Prepared]]:
        """Yield batches with their inputs, and last those that others give back."""
        waiting: list[np.ndarray] = []
        yield from self._granted(windows, claims, waiting)
        pause = SHORTEST_PAUSE
        while sum(map(len, waiting)):
            # Another worker is computing these rows, unless it gives them back.
            rows, waiting = np.concatenate(waiting), []
            yield from self._granted([Batch(rows)], claims, waiting)
            if sum(map(len, waiting)) < len(rows):
                pause = SHORTEST_PAUSE
                continue
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            self.collect(rows)
            waiting = [rows[self.rows.needed[rows].any(axis=1)]]

    def _granted(
        self,
        parts: Iterable[Batch],
        claims: Claims | None,
        waiting: list[np.ndarray],
    ) -> Iterator[tuple[Batch, Prepared]]:
        """Yield the rows to compute; add to ``waiting`` those that others compute."""
        batches = self._claimed(self._sized(parts), claims, waiting)
        yield from prefetched(batches, self.model.prepare)

    def _sized(self, parts: Iterable[Batch]) -> Iterator[Batch]:
        """Join and split parts so that each has as many rows as the model takes."""
        held: Batch | None = None
        for part in parts:
            held = part if held is None else held.joined(part)
            while held and len(held.rows) >= (count := self.model.batch_size(held)):
                rest = held.cut(slice(count, None))
                yield held.cut(slice(0, count))
                held = rest if len(rest.rows) else None
        if held:
            yield held

    def _claimed(
        self, batches: Iterable[Batch], claims: Claims | None, waiting: list[np.ndarray]
    ) -> Iterator[Batch]:
        for batch in batches:
            if claims is None:
                yield batch
                continue
            rows = batch.rows
            digests = self.rows.digests_of(rows)
            granted, known, places = claims.take(digests, self.rows.needed[rows])
            if known.any():
                self.collect(rows[known])
            waiting.append(rows[self.rows.needed[rows].any(axis=1) & ~granted])
            encoded = granted & (places >= 0)
            if encoded.any():
                yield Batch(rows[encoded], places=places[encoded])
            if (granted & ~encoded).any():
                yield batch.cut(np.flatnonzero(granted & ~encoded))
