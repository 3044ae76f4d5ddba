"""The features of a column of cells: from the store, from this process, from others."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs

from sklearn_difffeat.extraction._features import Features
from sklearn_difffeat.extraction._job import Job, Rows
from sklearn_difffeat.extraction._schedule import Extraction
from sklearn_difffeat.inputs._column import Cells
from sklearn_difffeat.store._chunk import Chunk
from sklearn_difffeat.store._store import FeatureStore

# Pieces of work handed to each joblib worker: more of them balance the load.
PIECES_PER_JOB = 4
SMALLEST_PIECE, LARGEST_PIECE = 32, 1024

Received = list[tuple[np.ndarray, int, Chunk]]


@dataclass
class Outcome:
    """What there is to say of the rows that were gathered.

    Attributes
    ----------
    n_truncated : int
        Whose input the reader warns of.
    n_overflowed : int
        Which had to be computed in float32.
    errors : dict of int to Exception
        Rows of X that could not be read, and why.
    """

    n_truncated: int
    n_overflowed: int
    errors: dict[int, Exception]


def gather(
    job: Job,
    cells: Cells,
    numbers: np.ndarray,
    store: FeatureStore | None,
    values: np.ndarray | None,
    *,
    n_jobs: int | None = None,
    on_done: Callable[[int], None] = lambda count: None,
) -> Outcome:
    """Have every pass that a plan asks for computed, unless it is known.

    Parameters
    ----------
    job : Job
    cells : sequence or ndarray
        The cells of X.
    numbers : ndarray of shape (n,), int
        Which of them are to be extracted.
    store : FeatureStore or None
    values : ndarray of shape (n_rows of X, n_features), float32, or None
        Filled in place, with NaN where a cell cannot be read; None leaves the features
        in the store.
    n_jobs : int, optional
        joblib jobs.
    on_done : callable
        Told how many more of the cells are done.

    Returns
    -------
    Outcome
    """
    needed = np.ones((len(numbers), len(job.plan.passes)), dtype=bool)
    rows = Rows(cells, numbers, numbers, needed)
    features = None if values is None else Features(values, numbers, job.plan)
    extraction = Extraction(job, rows, store, features, on_done=on_done)
    if effective_n_jobs(n_jobs) > 1:
        _in_parallel(extraction, n_jobs)
    extraction.run()
    for repeat, original in extraction.look_up.repeats.items():
        rows.truncated[repeat] = rows.truncated[original]
        rows.overflowed[repeat] = rows.overflowed[original]
        if original in rows.errors:
            rows.errors[repeat] = rows.errors[original]
        elif values is not None:
            values[numbers[repeat]] = values[numbers[original]]
    if values is not None:
        values[numbers[list(rows.errors)]] = np.nan
    return Outcome(
        int(rows.truncated.sum()),
        int(rows.overflowed.sum()),
        {int(numbers[row]): error for row, error in rows.errors.items()},
    )


def _in_parallel(extraction: Extraction, n_jobs: int | None) -> None:
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
                yield delayed(_work)(carried, _portable(job, rows, piece), path)

        for number, (received, done) in enumerate(_parallel(n_jobs)(tasks())):
            piece = sent[number]
            for chosen, column, chunk in received:
                mine = replace(chunk, one=extraction.passes[column])
                extraction.keep(piece[chosen], column, mine)
                rows.needed[piece[chosen], column] = False
            rows.truncated[piece] |= done.truncated
            rows.overflowed[piece] |= done.overflowed
            for row, error in done.errors.items():
                rows.give_up(int(piece[row]), error)
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
        n_rows = len(extraction.rows)
        target = math.ceil(n_rows / (n_workers * PIECES_PER_JOB))
        held = np.empty(0, dtype=np.intp)
        number = 0
        for fresh, _ in extraction.look_up.unknown(known):
            if extraction.job.reader.window is None:
                # Striped: texts of one length are shared out.
                n_pieces = math.ceil(len(fresh) / max(target, SMALLEST_PIECE))
                yield from (fresh[start::n_pieces] for start in range(n_pieces))
                continue
            held = np.concatenate([held, fresh])
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


def _portable(job: Job, rows: Rows, piece: np.ndarray) -> Rows:
    """Return some of the rows as a worker may read them, in whatever folder it is."""
    cells = [job.reader.portable(cell) for cell in rows.cells_of(piece)]
    return Rows(cells, np.arange(len(piece)), rows.numbers[piece], rows.needed[piece])


def _work(job: Job, rows: Rows, path: str | None) -> tuple[Received, Rows]:
    """Run a piece in a joblib worker; what no store on disk takes is handed back."""
    received: Received = []
    # Arrays that were sent may be read-only here, as Ray's are.
    rows = replace(rows, needed=rows.needed.copy())

    def hand_back(chosen: np.ndarray, column: int, chunk: Chunk) -> None:
        received.append((chosen, column, chunk))

    with job.reader.surroundings():
        if path is not None:
            extraction = Extraction(job, rows, FeatureStore(path))
        else:
            extraction = Extraction(job, rows, None, receive=hand_back)
        extraction.run()
    # What a worker was sent need not travel back.
    rows.cells = ()
    return received, rows
