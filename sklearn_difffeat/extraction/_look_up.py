"""Cells read window by window: which rows repeat, are unreadable, or known already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from sklearn_difffeat.extraction._batches import prefetched
from sklearn_difffeat.extraction._job import Job, Rows
from sklearn_difffeat.inputs._reader import Content
from sklearn_difffeat.store._chunk import Pass
from sklearn_difffeat.store._store import FeatureStore


class LookUp:
    """The way of a process's cells up to the question whether they have to be passed.

    Each cell is read once, a window ahead of the model, so that the first pass need
    not wait for the last cell.

    Parameters
    ----------
    job : Job
    rows : Rows
        Gets digests and errors as cells are read.
    store : FeatureStore or None
    passes : sequence of Pass
        What rows may need.
    collect : callable
        Fetches from the store what it has of some rows.
    on_done : callable
        Takes how many rows need nothing more.

    Attributes
    ----------
    repeats : dict of int to int
        Rows of the same content as an earlier one, by their place in ``rows``; nothing
        is computed for them.
    """

    def __init__(
        self,
        job: Job,
        rows: Rows,
        store: FeatureStore | None,
        passes: Sequence[Pass],
        collect: Callable[[np.ndarray], None],
        on_done: Callable[[int], None],
    ) -> None:
        self.job, self.rows, self.store = job, rows, store
        self.passes, self.collect, self.on_done = passes, collect, on_done
        self.repeats: dict[int, int] = {}
        self._first_with: dict[bytes, int] = {}

    def unknown(
        self, known: list[np.ndarray]
    ) -> Iterator[tuple[np.ndarray, list[Content]]]:
        """Yield the rows that have to be computed, with their contents, by windows.

        Rows that the store has are added to ``known``, to be collected together: a
        chunk of the store holds rows of many windows.
        """
        order = np.flatnonzero(self.rows.needed.any(axis=1))
        step = self.job.reader.window
        if step is None:
            order = order[self.job.reader.order(self.rows.cells_of(order))]
            step = max(1, len(order))
        elif self.job.batch_size is not None:
            step = min(step, self.job.batch_size)
        windows = (order[start : start + step] for start in range(0, len(order), step))
        for window, contents in prefetched(windows, self._read):
            fresh = self._first_of_each(window, contents)
            if self.store is not None and len(fresh):
                if self.job.reader.window is None:
                    self.collect(window[fresh])
                    found = ~self.rows.needed[window[fresh]].any(axis=1)
                else:
                    found = self._is_known(window[fresh])
                    known.append(window[fresh[found]])
                fresh = fresh[~found]
            if len(fresh):
                yield window[fresh], [contents[i] for i in fresh.tolist()]

    def _read(self, window: np.ndarray) -> list[Content]:
        numbers = self.rows.numbers[window].tolist()
        return self.job.reader.read(self.rows.cells_of(window), numbers)

    def _first_of_each(self, window: np.ndarray, contents: list[Content]) -> np.ndarray:
        """Note what was read; return which of the window's rows go on."""
        digests = [content.digest for content in contents]
        rows = window.tolist()
        distinct = set(digests)
        if len(distinct) == len(rows) and b"" not in distinct:
            if self._first_with.keys().isdisjoint(distinct):
                self._first_with.update(zip(digests, rows, strict=True))
                for row, digest in zip(rows, digests, strict=True):
                    self.rows.digests[row] = digest
                return np.arange(len(rows))
        fresh = []
        for place, (row, content) in enumerate(zip(rows, contents, strict=True)):
            if content.error is not None:
                self.rows.give_up(row, content.error)
                continue
            self.rows.digests[row] = content.digest
            original = self._first_with.setdefault(content.digest, row)
            if original == row:
                fresh.append(place)
            else:
                self.repeats[row] = original
                self.rows.needed[row] = False
        self.on_done(len(window) - len(fresh))
        return np.array(fresh, dtype=np.intp)

    def _is_known(self, chosen: np.ndarray) -> np.ndarray:
        """Tell which rows have all that they need in the store."""
        assert self.store is not None
        digests = self.rows.digests_of(chosen)
        known = np.ones(len(chosen), dtype=bool)
        for column, one in enumerate(self.passes):
            places, _ = self.store.find(one, digests, self.job.deepest)
            known &= (places >= 0) | ~self.rows.needed[chosen, column]
        return known
