"""The SQLite file under the feature store: opening, schema, errors."""

from __future__ import annotations

import atexit
import ctypes
import errno
import itertools
import os
import sqlite3
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sklearn_difffeat._process import hold_during_fork
from sklearn_difffeat.store import _place as place
from sklearn_difffeat.store._errors import (
    BUSY_SECONDS,
    deleted,
    explained,
    speaks_of_rights,
)

APPLICATION_ID = 0x44464654
VERSION = 1
PAGE_BYTES = 65536
LOG_PAGES = 256
SCHEMA = """
CREATE TABLE setting (name TEXT PRIMARY KEY, value INTEGER);
INSERT INTO setting VALUES ('max_size', NULL), ('removals', 0);
CREATE TABLE space (id INTEGER PRIMARY KEY, description TEXT NOT NULL UNIQUE);
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    space INTEGER NOT NULL, timestep INTEGER NOT NULL, draw INTEGER NOT NULL,
    deepest INTEGER NOT NULL, digests BLOB NOT NULL, truncated BLOB NOT NULL);
CREATE INDEX chunks_of_pass ON chunk (space, timestep, draw, id);
CREATE TABLE pooled (
    chunk INTEGER NOT NULL, block INTEGER NOT NULL, dtype TEXT NOT NULL,
    width INTEGER NOT NULL, checksum INTEGER NOT NULL, content BLOB NOT NULL);
CREATE UNIQUE INDEX blocks_of_chunk ON pooled (chunk, block);
CREATE TABLE worker (
    id TEXT PRIMARY KEY, host TEXT NOT NULL, process TEXT NOT NULL, seen REAL NOT NULL);
CREATE TABLE claim (
    space INTEGER, timestep INTEGER, draw INTEGER, digest BLOB, worker TEXT NOT NULL,
    PRIMARY KEY (space, timestep, draw, digest)) WITHOUT ROWID;
"""

# Connections of this process by path ("" is the store in memory).
_open: dict[tuple[int, str], StoreFile] = {}
_open_lock = threading.Lock()
# Stores that this process has said it cannot write.
_told: set[str] = set()
_numbers = itertools.count()


class StoreFile:
    """One connection to a store, shared by the threads of a process.

    Attributes
    ----------
    number : int
        Tells it from the other connections of this process.
    identity : tuple or None
        Of the file; None in memory.
    state : tuple or None
        Of a file that cannot be written, when it was opened.
    writable : bool
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = f"cache={path!r}" if path else "the store in memory"
        self.number = next(_numbers)
        self.lock = threading.RLock()
        # What a store has read of the file so far, by pass.
        self.indexes: OrderedDict[Any, Any] = OrderedDict()
        # Chunk and block of what was found to be whole, once in a process.
        self.verified: set[tuple[int, int]] = set()
        self.identity: place.Identity | None = None
        self.state: place.Identity | None = None
        self.writable = self._is_locked = True
        # The log lies beside the file itself, wherever links to it are.
        self._real = os.path.realpath(path) if path else ""
        with self.speaking():
            if self._real:
                self._open_file()
            else:
                self.connection = self._connect(":memory:")
                self._prepare()

    def _connect(self, where: str) -> sqlite3.Connection:
        return sqlite3.connect(
            where,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            uri=where.startswith("file:"),
        )

    def _open_file(self) -> None:
        place.make_file(self._real)
        self.identity = place.identity(self._real)
        self.writable = place.is_writable(self._real)
        if self.writable:
            self.connection = self._connect(place.address(self._real))
            try:
                self._prepare()
                return
            except (sqlite3.Error, PermissionError) as error:
                # Rights that only SQLite's own attempt can tell.
                if isinstance(error, sqlite3.Error) and not speaks_of_rights(error):
                    raise
                self.connection.close()
                self.writable = False
        # Before the opening: what changes from here on is noticed.
        self.state = place.state(self._real)
        address, self._is_locked = place.address_to_read(self._real)
        self.connection = self._connect(address)
        if not self._check_version():
            raise PermissionError(
                errno.EACCES, f"{self.name} is empty and cannot be written"
            )

    def _prepare(self) -> None:
        execute = self.connection.execute
        execute(f"PRAGMA page_size = {PAGE_BYTES}")
        self._check_version()
        if self.path:
            _retry_while_locked(lambda: execute("PRAGMA journal_mode = WAL"))
        # A power cut may lose the last seconds, a killed process nothing.
        execute("PRAGMA synchronous = NORMAL")
        execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        with self.transaction():
            if not execute("PRAGMA application_id").fetchone()[0]:
                for statement in SCHEMA.split(";"):
                    execute(statement)
                execute(f"PRAGMA application_id = {APPLICATION_ID}")
                execute(f"PRAGMA user_version = {VERSION}")

    def _check_version(self) -> bool:
        """Return whether the file is a store; False where it is still empty."""

        def number(pragma: str) -> int:
            return int(self.connection.execute(f"PRAGMA {pragma}").fetchone()[0])

        kind, version = number("application_id"), number("user_version")
        if kind == APPLICATION_ID and version == VERSION:
            return True
        tables = self.connection.execute("SELECT count(*) FROM sqlite_master")
        if kind == 0 and version == 0 and tables.fetchone()[0] == 0:
            return False
        self.connection.close()
        if kind != APPLICATION_ID:
            raise ValueError(
                f"{self.name} is a database of another program; choose another path."
            )
        raise ValueError(
            f"{self.name} was written in version {version} of the store, this package "
            f"reads version {VERSION}; use the package that wrote it, or another path."
        )

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the store for writing; all of the block's changes count, or none.

        Raises
        ------
        PermissionError
            When the store cannot be written.
        """
        if not self.writable:
            raise PermissionError(
                errno.EACCES,
                f"{self.name} cannot be written, its features are only read; give "
                "yourself the rights to its file and folder, or copy it elsewhere",
            )
        with self.lock, self.speaking():
            if self.connection.in_transaction:
                # Ctrl-C may have come between a transaction and its end.
                self.connection.execute("ROLLBACK")
            try:
                self.connection.execute("BEGIN IMMEDIATE")
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                self.indexes.clear()
                # SQLite may have rolled back by itself, on a full disk for one.
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read, without holding up those who write.

        Raises
        ------
        OSError
            When a store that is read without a lock was written meanwhile.
        """
        with self.lock, self.speaking():
            yield self.connection
        if not self._is_locked and self.has_changed():
            raise OSError(
                errno.EAGAIN,
                f"{self.name} was written by another process while it was read; call "
                "again",
            )

    def has_changed(self) -> bool:
        """Whether it is to be opened anew, as its rights or unlocked bytes changed."""
        if self.state is None:
            return False
        now = place.state(self._real)
        # A reader that locks sees the writes of others whole; rights come first.
        return now[0] != self.state[0] if self._is_locked else now != self.state

    def is_gone(self) -> bool:
        """Whether the file was deleted, or another one is in its place."""
        return self.identity is not None and self.identity != place.identity(self.path)

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Say what SQLite's errors mean for the user of a store.

        Raises
        ------
        OSError
            When the disk is full or the file cannot be written or read.
        FileNotFoundError
            When the file was deleted.
        TimeoutError
            When another process holds the store for too long.
        ValueError
            When the file is damaged or no store.
        """
        try:
            yield
        except sqlite3.Error as error:
            if self.is_gone():
                raise deleted(self.path) from error
            said = explained(error, self.name)
            if said is None:
                raise
            raise said from error

    def close(self) -> None:
        """Write the log into the file and let go of it."""
        if _open.get((os.getpid(), self.path)) is self:
            del _open[os.getpid(), self.path]
        self.connection.close()


def _retry_while_locked(execute: Any) -> None:
    # Changing the journal does not wait for other processes as transactions do.
    for _ in range(BUSY_SECONDS * 20):
        try:
            execute()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
        time.sleep(0.05)
    execute()


def open_file(path: str | None) -> StoreFile:
    """Return this process's connection to a store; None is the store in memory.

    A store that cannot be written is opened for reading, with a warning.

    Raises
    ------
    IsADirectoryError, PermissionError, ValueError
        When the path is a folder, cannot be made or read, or is no feature store.
    """
    text = "" if path is None else os.path.abspath(path)
    # A connection must not be carried through a fork.
    key = os.getpid(), text
    with _open_lock:
        file = _open.get(key)
        if file is None or file.is_gone() or file.has_changed():
            if text:
                place.check_place(text)
            # Other threads may still use the old one: it closes after the last.
            file = _open[key] = StoreFile(text)
    if not file.writable and text not in _told:
        _told.add(text)
        warnings.warn(
            f"{file.name} cannot be written: features in it are used, others are "
            "computed but not kept.",
            UserWarning,
            stacklevel=2,
        )
    return file


def _locks() -> list[Any]:
    return [_open_lock, *(file.lock for file in list(_open.values()))]


def _leave_to_the_parent(lost: set[int]) -> None:
    """In a forked process: never use the parent's connections, nor close them.

    Closing would write the log and delete it, although the parent goes on using it.
    """
    for file in _open.values():
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(file.connection))
    _open.clear()


hold_during_fork(_locks, _leave_to_the_parent)


@atexit.register
def _close_all() -> None:
    for (process, _), file in list(_open.items()):
        if process == os.getpid():
            file.close()
