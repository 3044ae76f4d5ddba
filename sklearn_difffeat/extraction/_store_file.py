"""The SQLite file under the feature store: opening, schema, errors."""

from __future__ import annotations

import atexit
import errno
import os
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

APPLICATION_ID = 0x44464654
VERSION = 1
PAGE_BYTES = 65536
LOG_PAGES = 256
BUSY_SECONDS = 120
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


class StoreFile:
    """One connection to a store, shared by the threads of a process."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = f"cache={path!r}" if path else "the store in memory"
        self.lock = threading.RLock()
        # What a store has read of the file so far, by pass.
        self.indexes: OrderedDict[Any, Any] = OrderedDict()
        # Chunk and block of what was found to be whole, once in a process.
        self.verified: set[tuple[int, int]] = set()
        with self.speaking():
            self.connection = sqlite3.connect(
                path or ":memory:",
                timeout=BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
            self._prepare()
        self.inode = _inode(path)

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

    def _check_version(self) -> None:
        def number(pragma: str) -> int:
            return int(self.connection.execute(f"PRAGMA {pragma}").fetchone()[0])

        kind, version = number("application_id"), number("user_version")
        if kind == APPLICATION_ID and version == VERSION:
            return
        tables = self.connection.execute("SELECT count(*) FROM sqlite_master")
        if kind == 0 and version == 0 and tables.fetchone()[0] == 0:
            return
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
        """Hold the store for writing; all of the block's changes count, or none."""
        with self.lock, self.speaking():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                # SQLite may have rolled back by itself, on a full disk for one.
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                self.indexes.clear()
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read, without holding up those who write."""
        with self.lock, self.speaking():
            yield self.connection

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Say what SQLite's errors mean for the user of a store.

        Raises
        ------
        OSError
            When the disk is full or the file cannot be written or read.
        TimeoutError
            When another process holds the store for too long.
        ValueError
            When the file is damaged or no store.
        """
        try:
            yield
        except sqlite3.DatabaseError as error:
            said = f"{self.name}: {error}"
            text = str(error)
            if "full" in text:
                raise OSError(
                    errno.ENOSPC,
                    f"{said}; make room and call again: what was computed before is "
                    "kept",
                ) from error
            if "readonly" in text or "unable to open" in text:
                raise PermissionError(
                    errno.EACCES,
                    f"{said}; a store needs a folder that exists and is writable",
                ) from error
            if "locked" in text:
                raise TimeoutError(
                    f"{said} for {BUSY_SECONDS} s; close the program that holds it."
                ) from error
            if "disk I/O" in text:
                raise OSError(errno.EIO, f"{said}; check the disk") from error
            if "not a database" in text or "malformed" in text:
                raise ValueError(
                    f"{said}; the file is no feature store or is damaged: move it away "
                    "and its features will be computed anew."
                ) from error
            raise

    def close(self) -> None:
        """Write the log into the file and let go of it."""
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


def _inode(path: str) -> tuple[int, int] | None:
    if not path:
        return None
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def open_file(path: str | None) -> StoreFile:
    """Return this process's connection to a store; None is the store in memory.

    Raises
    ------
    IsADirectoryError, PermissionError, ValueError
        When the path is a folder, cannot be written, or is no feature store.
    """
    text = "" if path is None else os.path.abspath(path)
    # A connection must not be carried through a fork.
    key = os.getpid(), text
    with _open_lock:
        file = _open.get(key)
        if file is not None and file.inode == _inode(text):
            return file
        if os.path.isdir(text):
            raise IsADirectoryError(
                errno.EISDIR,
                f"cache={path!r} is a folder; name a file in it, such as "
                f"{str(Path(text, 'features.db'))!r}",
            )
        if text and not os.path.isdir(os.path.dirname(text)):
            raise FileNotFoundError(
                errno.ENOENT, f"cache={path!r}: its folder does not exist; make it"
            )
        if file is not None:
            # The file was deleted or replaced under the connection.
            file.close()
        _open[key] = StoreFile(text)
        return _open[key]


@atexit.register
def _close_all() -> None:
    for (process, _), file in _open.items():
        if process == os.getpid():
            file.close()
