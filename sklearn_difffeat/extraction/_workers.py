"""Rows shared out to joblib's workers."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs

from sklearn_difffeat.extraction._extraction import Extraction
from sklearn_difffeat.extraction._job import Job, Rows
from sklearn_difffeat.store._chunk import Chunk
from sklearn_difffeat.store._rows import StoredRows

# Pieces of work handed to each joblib worker: more of them balance the load.
PIECES_PER_JOB = 4
SMALLEST_PIECE, LARGEST_PIECE = 32, 1024


def share_out(extraction: Extraction, n_jobs: int | None) -> None:
    """Have joblib's workers compute what the store does not know."""
    job, rows, store = extraction.job, extraction.rows, extraction.store
    # What a store that cannot be written does not take is handed back.
    path = store.path if store is not None and store.file.writable else None
    known: list[np.ndarray] = []
    pieces = _Pieces(extraction, effective_n_jobs(n_jobs), known)
    first = next(pieces, None)
    if first is not None:
        extraction.check_kept()
        carried = replace(job, reader=job.reader.for_workers())
        sent: list[np.ndarray] = []

        def tasks() -> Iterator[object]:
            for piece in chain([first], pieces):
                sent.append(piece)
                yield delayed(_work)(carried, _part(job, rows, piece), path)

        for number, (received, done) in enumerate(_parallel(n_jobs)(tasks())):
            piece = sent[number]
            for at, column, chunk in received:
                extraction.keep(piece[at], column, chunk)
                rows.needed[piece[at], column] = False
            rows.truncated[piece] |= done.truncated
            rows.overflowed[piece] |= done.overflowed
            for at, error in done.errors.items():
                rows.errors[int(piece[at])] = error
                rows.needed[piece[at]] = False
            if path is not None:
                extraction.collect(piece)
            else:
                extraction.on_done(len(piece))
        if pieces.error is not None:
            raise pieces.error
    if known:
        extraction.collect(np.concatenate(known))


class _Pieces:
    """Rows to compute, in pieces for workers, while further cells are still read.

    joblib draws tasks in threads of its own, where an error would leave it waiting for
    ever: an error ends the pieces instead, and is kept to be raised.
    """

    def __init__(
        self, extraction: Extraction, n_workers: int, known: list[np.ndarray]
    ) -> None:
        self.error: BaseException | None = None
        self._pieces = self._cut(extraction, n_workers, known)
        self._lock = threading.Lock()

    def __iter__(self) -> _Pieces:
        return self

    def __next__(self) -> np.ndarray:
        with self._lock:
            try:
                return next(self._pieces)
            except StopIteration:
                raise
            except BaseException as error:
                self.error = error
                raise StopIteration from error

    @staticmethod
    def _cut(
        extraction: Extraction, n_workers: int, known: list[np.ndarray]
    ) -> Iterator[np.ndarray]:
        n_rows = int(extraction.rows.needed.any(axis=1).sum())
        target = math.ceil(n_rows / (n_workers * PIECES_PER_JOB))
        held = np.empty(0, dtype=np.intp)
        number = 0
        for fresh in extraction.unknown(known):
            if extraction.job.reader.window is None:
                # Striped: texts of one length are shared out.
                n_pieces = math.ceil(len(fresh.rows) / max(target, SMALLEST_PIECE))
                yield from (fresh.rows[start::n_pieces] for start in range(n_pieces))
                continue
            held = np.concatenate([held, fresh.rows])
            # Small at first, so that every worker soon has something to do.
            growing = SMALLEST_PIECE << min(number // n_workers, 5)
            size = max(SMALLEST_PIECE, min(target, growing, LARGEST_PIECE))
            while len(held) >= size:
                yield held[:size]
                held = held[size:]
                number += 1
        if len(held):
            yield held


def _parallel(n_jobs: int | None) -> Parallel:
    try:
        # Results are taken in as they come.
        return Parallel(n_jobs=n_jobs, return_as="generator")
    except ValueError:
        # Not all of joblib's backends can do so.
        return Parallel(n_jobs=n_jobs)


def _part(job: Job, rows: Rows, piece: np.ndarray) -> Rows:
    """Return some of the rows as a worker may read them, in whatever folder it is."""
    cells = [job.reader.portable(cell) for cell in rows.cells_of(piece)]
    return Rows(cells, rows.numbers[piece], rows.needed[piece], rows.unreadable)


def _work(
    job: Job, rows: Rows, path: str | None
) -> tuple[list[tuple[np.ndarray, int, Chunk]], Rows]:
    """Run a piece in a joblib worker; what no store on disk takes is handed back."""
    received: list[tuple[np.ndarray, int, Chunk]] = []

    def receive(at: np.ndarray, column: int, chunk: Chunk) -> None:
        received.append((at, column, chunk))

    # Arrays that were sent may be read-only here, as Ray's are.
    rows = replace(rows, needed=rows.needed.copy())
    store = None if path is None else StoredRows(path)
    with job.reader.surroundings():
        Extraction(job, rows, store, receive=None if store else receive).run()
    # What a worker was sent need not travel back.
    rows.cells = ()
    return received, rows
