"""The features of a column of cells: from the store, from this process, from others."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs

from sklearn_difffeat._cells import Cells
from sklearn_difffeat.extraction._chunk import Chunk
from sklearn_difffeat.extraction._features import Features
from sklearn_difffeat.extraction._job import Job, Rows
from sklearn_difffeat.extraction._schedule import Extraction
from sklearn_difffeat.extraction._store import FeatureStore

# Pieces of work handed to each joblib worker: more of them balance the load.
PIECES_PER_JOB = 4
SMALLEST_PIECE = 32

Received = list[tuple[np.ndarray, int, Chunk]]


def gather(
    job: Job,
    cells: Cells,
    numbers: np.ndarray,
    store: FeatureStore | None,
    values: np.ndarray | None,
    *,
    n_jobs: int | None = None,
    on_done: Callable[[int], None] = lambda count: None,
) -> int:
    """Have every pass that a plan asks for computed, unless it is known.

    Parameters
    ----------
    job : Job
    cells : sequence or ndarray
        The cells of X that are to be extracted.
    numbers : ndarray of shape (n,), int
        Their rows in X.
    store : FeatureStore or None
    values : ndarray of shape (n_rows of X, n_features), float32, or None
        Filled in place; None leaves the features in the store.
    n_jobs : int, optional
        joblib jobs.
    on_done : callable
        Told how many more of the cells are done.

    Returns
    -------
    int
        How many inputs were cut.
    """
    digests = job.reader.digest(cells, numbers.tolist())
    original = _first_of_each(digests)
    is_first = original == np.arange(len(digests))
    distinct, repeats = np.flatnonzero(is_first), np.flatnonzero(~is_first)
    rows = Rows.new(cells, numbers, digests, len(job.plan.passes))
    if len(repeats):
        rows = rows.take(distinct)
    on_done(len(repeats))
    features = None if values is None else Features(values, rows.numbers, job.plan)
    extraction = Extraction(job, rows, store, features, on_done=on_done)
    everything = np.arange(len(distinct))
    if store is not None:
        extraction.collect(everything)
    missing = np.flatnonzero(rows.needed.any(axis=1))
    if len(missing) and effective_n_jobs(n_jobs) > 1:
        _in_parallel(extraction, missing, n_jobs)
    if rows.needed.any():
        extraction.run()
    truncated = np.zeros(len(digests), dtype=bool)
    truncated[distinct] = rows.truncated
    if len(repeats):
        truncated[repeats] = truncated[original[repeats]]
        if values is not None:
            values[numbers[repeats]] = values[numbers[original[repeats]]]
    return int(truncated.sum())


def _first_of_each(digests: list[bytes]) -> np.ndarray:
    """Return for each row the first row of the same content."""
    if len(set(digests)) == len(digests):
        return np.arange(len(digests))
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(digest, i) for i, digest in enumerate(digests)])


def _in_parallel(
    extraction: Extraction, missing: np.ndarray, n_jobs: int | None
) -> None:
    job, rows, store = extraction.job, extraction.rows, extraction.store
    path = None if store is None else store.path
    n_workers = effective_n_jobs(n_jobs)
    order = missing[job.reader.order([rows.cells[i] for i in missing.tolist()])]
    n_pieces = min(n_workers * PIECES_PER_JOB, math.ceil(len(order) / SMALLEST_PIECE))
    # Striped: rows of one length, or of one corner of the data, are shared out.
    pieces = [order[start::n_pieces] for start in range(n_pieces)]
    parallel = Parallel(n_jobs=n_jobs, return_as="generator")
    results = parallel(delayed(_work)(job, rows.take(piece), path) for piece in pieces)
    for piece, received in zip(pieces, results, strict=True):
        for chosen, column, chunk in received:
            mine = replace(chunk, one=extraction.passes[column])
            extraction.keep(piece[chosen], column, mine)
            rows.needed[piece[chosen], column] = False
        if path is not None:
            extraction.collect(piece)
        else:
            extraction.on_done(len(piece))


def _work(job: Job, rows: Rows, path: str | None) -> Received:
    """Run a piece in a joblib worker; what no store on disk takes is handed back."""
    received: Received = []
    if path is not None:
        Extraction(job, rows, FeatureStore(path)).run()
        return received

    def hand_back(chosen: np.ndarray, column: int, chunk: Chunk) -> None:
        received.append((chosen, column, chunk))

    Extraction(job, rows, None, receive=hand_back).run()
    return received
