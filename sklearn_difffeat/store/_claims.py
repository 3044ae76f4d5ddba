"""Which worker computes which row: nothing is computed twice, nothing is left over."""

from __future__ import annotations

import os
import platform
import sqlite3
import time
import uuid
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np

from sklearn_difffeat.store._chunk import Pass
from sklearn_difffeat.store._store import FeatureStore

# After so long a silence a worker of another machine, or one whose process cannot be
# looked up, is taken for dead. A wrong guess costs a second pass, never a wrong value.
LEASE_SECONDS = 600


class Claims:
    """One worker's claims in a store; a context manager that gives them back.

    Parameters
    ----------
    store : FeatureStore
    passes : sequence of Pass
        What rows may need.
    latents : Pass or None
        What each of these passes starts from, where that is kept too.
    deepest : int
        The deepest block that a pass has to have kept.
    """

    def __init__(
        self,
        store: FeatureStore,
        passes: Sequence[Pass],
        latents: Pass | None,
        deepest: int,
    ) -> None:
        self.store = store
        self.passes = passes
        self.latents = latents
        self.deepest = deepest
        self.worker = uuid.uuid4().hex

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, *error: object) -> None:
        # Where the store itself has failed, its error is the one to be seen.
        quietly = suppress(OSError, ValueError) if error[0] else nullcontext()
        with quietly:
            file = self.store.file
            if file.writable:
                with file.transaction() as connection:
                    _dismiss(connection, self.worker)

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
        # Of what cannot be kept nobody else would have anything: no claims then.
        held = file.transaction() if file.writable else file.reading()
        with held as connection:
            if file.writable:
                self._sign_in(connection)
                _dismiss_the_dead(connection)
            found = np.column_stack(
                [self.store.find(p, digests, self.deepest)[0] >= 0 for p in self.passes]
            )
            wanted = needed & ~found
            places = np.full(len(digests), -1)
            passes = list(self.passes)
            if self.latents is not None:
                places, _ = self.store.find(self.latents, digests, 0)
                passes.append(self.latents)
                missing = wanted.any(axis=1) & (places < 0)
                wanted = np.column_stack([wanted, missing])
            blocked = np.zeros(len(digests), dtype=bool)
            for column, one in enumerate(passes):
                if not file.writable:
                    continue
                others = self._claimed_by_others(connection, one)
                if others:
                    blocked |= wanted[:, column] & [d in others for d in digests]
            granted = wanted.any(axis=1) & ~blocked
            claimed = np.argwhere(wanted & granted[:, None]).tolist()
            if file.writable:
                connection.executemany(
                    "INSERT OR REPLACE INTO claim VALUES (?, ?, ?, ?, ?)",
                    [
                        (*passes[column], digests[row], self.worker)
                        for row, column in claimed
                    ],
                )
        known = np.asarray((needed & found).any(axis=1))
        return granted, known, places

    def _claimed_by_others(
        self, connection: sqlite3.Connection, one: Pass
    ) -> set[bytes]:
        found = connection.execute(
            "SELECT digest FROM claim WHERE space = ? AND timestep = ? AND draw = ? "
            "AND worker != ?",
            (*one, self.worker),
        )
        return {digest for (digest,) in found}

    def _sign_in(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO worker VALUES (?, ?, ?, ?)",
            (self.worker, platform.node(), _process(os.getpid()), time.time()),
        )


def _dismiss_the_dead(connection: sqlite3.Connection) -> None:
    here = platform.node()
    now = time.time()
    for worker, host, process, seen in connection.execute(
        "SELECT id, host, process, seen FROM worker"
    ).fetchall():
        known_dead = host == here and not _is_running(process)
        if known_dead or not -LEASE_SECONDS < now - seen < LEASE_SECONDS:
            _dismiss(connection, worker)


def _dismiss(connection: sqlite3.Connection, worker: str) -> None:
    connection.execute("DELETE FROM claim WHERE worker = ?", (worker,))
    connection.execute("DELETE FROM worker WHERE id = ?", (worker,))


def _process(number: int) -> str:
    """Return a process's number and, where the system tells, when it started."""
    return f"{number} {_state_and_start(number)[1]}"


def _state_and_start(number: int) -> tuple[str, str]:
    try:
        status = Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return "", ""
    # proc(5): fields from the third on follow the name in brackets.
    fields = status.rpartition(")")[2].split()
    return fields[0], fields[19]


def _is_running(process: str) -> bool:
    text, _, started = process.partition(" ")
    number = int(text)
    if started:
        state, start = _state_and_start(number)
        return start == started and state not in ("Z", "X")
    if os.name != "posix":
        return True
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
