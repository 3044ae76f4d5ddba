"""Which worker computes which row: nothing is computed twice, nothing is left over."""

from __future__ import annotations

import platform
import uuid
from collections.abc import Sequence
from contextlib import nullcontext, suppress

import numpy as np
import psutil

from sklearn_difffeat.store._chunk import Pass, are_in
from sklearn_difffeat.store._rows import StoredRows

# The clock that gives the start of a process may be changed by up to this many seconds.
# A wrong guess costs a second pass, but never gives a wrong value.
CLOCK_SECONDS = 2.0


class Claims:
    """One worker's claims in a store; a context manager that gives them back.

    Parameters
    ----------
    store : StoredRows
    passes : sequence of Pass
        The passes that rows may need.
    latents : Pass or None
        The inputs of these passes, if they are kept, too.
    deepest : int
        The deepest block that a stored pass must have.
    """

    def __init__(
        self,
        store: StoredRows,
        passes: Sequence[Pass],
        latents: Pass | None,
        deepest: int,
    ) -> None:
        self.store, self.latents, self.deepest = store, latents, deepest
        self.passes = list(passes)
        self.worker = uuid.uuid4().hex

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, *error: object) -> None:
        # If the store itself has failed, its error is the one to raise.
        with suppress(OSError, ValueError) if error[0] else nullcontext():
            if self.store.file.writable:
                with self.store.file.transaction() as tables:
                    tables.dismiss(self.worker)

    def take(
        self, digests: Sequence[bytes], needed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Claim rows.

        Parameters
        ----------
        digests : sequence of bytes
        needed : ndarray of shape (n, n_passes), bool

        Returns
        -------
        granted : ndarray of shape (n,), bool
            Rows whose unknown passes are this worker's to compute.
        known : ndarray of shape (n,), bool
            Rows of which the store has, by now, something that is needed.
        places : ndarray of shape (n,), int64
            Of the rows' latents in the store; -1 where it has none.
        """
        file = self.store.file
        with file.transaction() if file.writable else file.reading() as tables:
            found = np.column_stack(
                [self.store.find(p, digests, self.deepest)[0] >= 0 for p in self.passes]
            )
            wanted = needed & ~found
            places = np.full(len(digests), -1)
            passes = self.passes
            if self.latents is not None:
                places, _ = self.store.find(self.latents, digests, 0)
                missing = wanted.any(axis=1) & (places < 0)
                wanted = np.column_stack([wanted, missing])
                passes = [*passes, self.latents]
            granted = np.asarray(wanted.any(axis=1))
            # If results cannot be stored, no other worker can use them: make no claims.
            if file.writable:
                tables.sign_in(self.worker, platform.node(), _this_process())
                for worker, process in tables.workers():
                    if not is_running(process):
                        tables.dismiss(worker)
                for column, one in enumerate(passes):
                    others = tables.claimed_by_others(self.worker, one)
                    granted &= ~(wanted[:, column] & are_in(others, digests))
                for column, one in enumerate(passes):
                    rows = np.flatnonzero(granted & wanted[:, column]).tolist()
                    tables.claim(self.worker, one, [digests[row] for row in rows])
        return granted, np.asarray((needed & found).any(axis=1)), places


def _this_process() -> str:
    process = psutil.Process()
    return f"{process.pid} {process.create_time()}"


def is_running(process: str) -> bool:
    """Whether a process is the one that signed in, not a later one with its number."""
    number, _, started = process.partition(" ")
    try:
        found = psutil.Process(int(number))
        late = found.create_time() - float(started or "nan")
        return found.status() != psutil.STATUS_ZOMBIE and abs(late) < CLOCK_SECONDS
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
