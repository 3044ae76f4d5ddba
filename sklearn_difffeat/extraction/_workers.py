"""Rows distributed among joblib's workers."""

from __future__ import annotations

import math
import pkgutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from joblib.parallel import get_active_backend

from sklearn_difffeat._process import machine
from sklearn_difffeat.extraction._extraction import Extraction
from sklearn_difffeat.extraction._job import Job, Rows
from sklearn_difffeat.store._chunk import Chunk
from sklearn_difffeat.store._place import Identity, identity
from sklearn_difffeat.store._rows import StoredRows

# Pieces of work for each joblib worker: more of them balance the load.
PIECES_PER_JOB = 4
SMALLEST_PIECE, LARGEST_PIECE = 32, 1024
# Bytes of files that are sent to workers on other machines with one piece.
LARGEST_LOAD = 32 * 2**20
VERSION = "sklearn_difffeat:__version__"


def share_out(extraction: Extraction, n_jobs: int | None) -> None:
    """Have joblib's workers compute what the store lacks."""
    job, rows = extraction.job, extraction.rows
    store = _SharedStore.of(extraction.store)
    may_be_far = _may_be_far()
    known: list[np.ndarray] = []
    pieces = _Pieces(extraction, effective_n_jobs(n_jobs), known, store is None)
    first = next(pieces, None)
    if first is not None:
        extraction.check_kept()
        if may_be_far:
            _check_package(n_jobs)
        carried = replace(job, reader=job.reader.for_workers())
        sent: list[np.ndarray] = []

        def tasks() -> Iterator[object]:
            for piece in chain([first], pieces):
                for some in _loads(job, rows, piece) if may_be_far else [piece]:
                    sent.append(some)
                    part = _part(job, rows, some, may_be_far)
                    yield delayed(_work)(carried, part, store)

        results = enumerate(_parallel(n_jobs)(tasks()))
        for number, (received, done, is_stored) in results:
            piece = sent[number]
            for at, column, chunk in received:
                extraction.keep(piece[at], column, chunk)
                rows.needed[piece[at], column] = False
            rows.truncated[piece] |= done.truncated
            rows.overflowed[piece] |= done.overflowed
            for at, error in done.errors.items():
                rows.errors[int(piece[at])] = error
                rows.needed[piece[at]] = False
            if is_stored:
                extraction.collect(piece)
            else:
                extraction.on_done(len(piece))
        if pieces.error is not None:
            raise pieces.error
    if known:
        extraction.collect(np.concatenate(known))


class _Pieces:
    """Rows to compute, in pieces for workers, while further cells are still read.

    joblib takes tasks in its own threads. An error there would make it wait without
    end, so an error ends the pieces instead, and is kept to be raised later.
    """

    def __init__(
        self,
        extraction: Extraction,
        n_workers: int,
        known: list[np.ndarray],
        hands_back: bool,
    ) -> None:
        self.error: BaseException | None = None
        self._hands_back = hands_back
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

    def _cut(
        self, extraction: Extraction, n_workers: int, known: list[np.ndarray]
    ) -> Iterator[np.ndarray]:
        n_rows = int(extraction.rows.needed.any(axis=1).sum())
        target = math.ceil(n_rows / (n_workers * PIECES_PER_JOB))
        held = np.empty(0, dtype=np.intp)
        number = 0
        for fresh in extraction.unknown(known):
            if self._hands_back and extraction.store is not None:
                # A worker cannot see which of a row's passes are stored.
                extraction.collect(fresh.rows)
            if extraction.job.reader.window is None:
                # Every k-th row, so that each worker gets texts of all lengths.
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
        # Results are entered as they arrive.
        return Parallel(n_jobs=n_jobs, return_as="generator")
    except ValueError:
        # Not all of joblib's backends can do this.
        return Parallel(n_jobs=n_jobs)


class _SharedStore(NamedTuple):
    """A store that workers fill themselves, where it is the same file for them."""

    path: str
    identity: Identity | None
    machine: str

    @classmethod
    def of(cls, store: StoredRows | None) -> _SharedStore | None:
        """Return the workers' store; None makes them return what they compute."""
        if store is None or store.path is None or not store.file.writable:
            return None
        return cls(store.path, identity(store.path), machine())

    def opened(self) -> StoredRows | None:
        """Return the store in a worker; None on another machine, which has its own."""
        if self.machine != machine() or self.identity != identity(self.path):
            return None
        return StoredRows(self.path)


def _may_be_far() -> bool:
    """Whether joblib's workers may be on other machines, which have other files."""
    backend, _ = get_active_backend()
    return type(backend).__module__ != "joblib._parallel_backends"


def _check_package(n_jobs: int | None) -> None:
    """Ask workers for their version first: without the package, Dask's never answer.

    Raises
    ------
    ModuleNotFoundError
        When a worker cannot import the package.
    ImportError
        When a worker has another version of it.
    """
    backend, _ = get_active_backend()
    here = pkgutil.resolve_name(VERSION)
    way_out = f"install sklearn_difffeat {here} on each worker."
    where = f"A worker of joblib's {type(backend).__name__}"
    question = delayed(pkgutil.resolve_name)(VERSION)
    try:
        versions = set(Parallel(n_jobs)([question] * effective_n_jobs(n_jobs)))
    except ImportError as error:
        message = f"{where} cannot import sklearn_difffeat ({error}); {way_out}"
        raise ModuleNotFoundError(message, name="sklearn_difffeat") from error
    if others := versions - {here}:
        raise ImportError(f"{where} has sklearn_difffeat {others.pop()}; {way_out}")


def _loads(job: Job, rows: Rows, piece: np.ndarray) -> list[np.ndarray]:
    """Split a piece so that not too many bytes of files are sent at a time."""
    sizes = np.cumsum([job.reader.load(cell) for cell in rows.cells_of(piece)])
    return np.split(piece, np.flatnonzero(np.diff(sizes // LARGEST_LOAD)) + 1)


def _part(job: Job, rows: Rows, piece: np.ndarray, may_be_far: bool) -> Rows:
    """Return some of the rows so that a worker can read them from any folder."""
    carry = job.reader.carried if may_be_far else job.reader.portable
    cells = [carry(cell) for cell in rows.cells_of(piece)]
    return Rows(cells, rows.numbers[piece], rows.needed[piece], rows.unreadable)


def _work(
    job: Job, rows: Rows, shared: _SharedStore | None
) -> tuple[list[tuple[np.ndarray, int, Chunk]], Rows, bool]:
    """Run a piece in a joblib worker; results without a store on disk are returned."""
    received: list[tuple[np.ndarray, int, Chunk]] = []

    def receive(at: np.ndarray, column: int, chunk: Chunk) -> None:
        received.append((at, column, chunk))

    # Arrays that were sent may be read-only here, as Ray's are.
    rows = replace(rows, needed=rows.needed.copy())
    store = None if shared is None else shared.opened()
    with job.reader.surroundings():
        Extraction(job, rows, store, receive=None if store else receive).run()
    # What was sent to a worker need not be sent back.
    rows.cells = ()
    return received, rows, store is not None
