"""The SQLite file under the feature store: opening, sharing, errors."""

from __future__ import annotations

import atexit
import ctypes
import errno
import itertools
import os
import sqlite3
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sklearn_difffeat._process import hold_during_fork
from sklearn_difffeat.store import _place as place
from sklearn_difffeat.store._chunk import POSITION_BITS, Index, Pass
from sklearn_difffeat.store._sql import BUSY_SECONDS, Tables

# Indexes kept in memory, one for each pass; about 200 bytes a row.
MAX_INDEXES = 16
# A place consists, from the last bit on, of a position, a chunk and the connection.
TAG_SHIFT = POSITION_BITS + 31

# Connections of this process by path ("" is the store in memory).
_open: dict[str, StoreFile] = {}
_open_lock = threading.Lock()
# Stores for which this process has warned that it cannot write them.
_told: set[str] = set()
_numbers = itertools.count()


class StoreFile:
    """One connection to a store, shared by the threads of a process.

    Attributes
    ----------
    tag : int
        The part of a row's place that names the connection which found it.
    identity : tuple or None
        Of the file; None in memory.
    state : tuple or None
        State of a file that cannot be written, at the time of opening.
    writable : bool
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = f"cache={path!r}" if path else "the store in memory"
        self.tag = next(_numbers) % (1 << 63 - TAG_SHIFT) << TAG_SHIFT
        self.lock = threading.RLock()
        # What was read from the file so far.
        self.indexes: OrderedDict[Pass, Index] = OrderedDict()
        # Chunk and block of content whose checksum was right; checked once per process.
        self.verified: set[tuple[int, int]] = set()
        self.identity: place.Identity | None = None
        self.state: place.Identity | None = None
        self.writable = self._is_locked = True
        # The log is beside the file itself, also if the path is a link.
        self._real = os.path.realpath(path) if path else ""
        with self.speaking():
            if path:
                place.make_file(path)
                self._open_file()
            else:
                self._connect(":memory:")
                self.connection.prepare(self.name)

    def _connect(self, where: str) -> None:
        self.connection = sqlite3.connect(
            where,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            factory=Tables,
            uri=True,
        )

    def _open_file(self) -> None:
        self.identity = place.identity(self._real)
        self.writable = place.is_writable(self._real)
        if self.writable:
            # SQLite would create the file again that another process has just deleted.
            self._connect(f"{Path(self._real).as_uri()}?mode=rw")
            try:
                self.connection.prepare(self.name)
                return
            except sqlite3.Error as error:
                # Whether it can be written, only SQLite's own attempt shows.
                if not _speaks_of_rights(error):
                    raise
                self.connection.close()
                self.writable = False
        # Before opening, so that later changes are noticed.
        self.state = place.state(self._real)
        address, self._is_locked = place.address_to_read(self._real)
        self._connect(address)
        if not self.connection.is_store(self.name):
            raise PermissionError(
                errno.EACCES, f"{self.name} is empty and cannot be written"
            )

    @contextmanager
    def transaction(self) -> Iterator[Tables]:
        """Lock the store for writing; all of the block's changes are made, or none."""
        if not self.writable:
            raise PermissionError(
                errno.EACCES,
                f"{self.name} cannot be written, its features are only read; give "
                "yourself the rights to its file and folder, or copy it elsewhere",
            )
        with self.lock, self.speaking():
            try:
                with self.connection:
                    self.connection.begin()
                    yield self.connection
            except BaseException:
                self.indexes.clear()
                raise

    @contextmanager
    def reading(self) -> Iterator[Tables]:
        """Read, without blocking processes that write."""
        with self.lock, self.speaking():
            yield self.connection
        if not self._is_locked and self.has_changed():
            raise OSError(
                errno.EAGAIN,
                f"{self.name} was written by another process while it was read; call "
                "again",
            )

    def index(self, one: Pass) -> Index:
        """Return where the rows of a pass are, including those added by others."""
        removals = self.connection.setting("removals")
        index = self.indexes.get(one)
        if index is None or index.removals != removals:
            index = self.indexes[one] = Index(removals)
        self.indexes.move_to_end(one)
        if len(self.indexes) > MAX_INDEXES:
            self.indexes.popitem(last=False)
        for chunk in self.connection.chunks(one, index.last):
            index.add(*chunk)
        return index

    def has_changed(self) -> bool:
        """Whether to open it again: its permissions or unlocked bytes changed."""
        if self.state is None:
            return False
        now = place.state(self._real)
        # A reader with locks sees complete writes only; permissions come first.
        return now[0] != self.state[0] if self._is_locked else now != self.state

    def is_gone(self) -> bool:
        """Whether the file was deleted, or another one is in its place."""
        return self.identity is not None and self.identity != place.identity(self.path)

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Turn SQLite's errors into errors that say what to do."""
        try:
            yield
        except sqlite3.Error as error:
            if self.is_gone():
                raise deleted(self.path) from error
            if (said := _explained(error, self.name)) is None:
                raise
            raise said from error

    def close(self) -> None:
        """Write the log into the file and close it."""
        with self.lock:
            if _open.get(self.path) is self:
                del _open[self.path]
            self.connection.close()


def deleted(path: str) -> FileNotFoundError:
    """Return the error of a store whose file went away in the middle of a call."""
    return FileNotFoundError(
        errno.ENOENT,
        f"cache={path!r} was deleted or replaced while it was in use; call again, and "
        "what is missing will be computed again",
    )


def _speaks_of_rights(error: sqlite3.Error) -> bool:
    """Whether the file or its folder cannot be read or written."""
    return "readonly" in str(error) or "unable to open" in str(error)


def _explained(error: sqlite3.Error, name: str) -> OSError | ValueError | None:
    """Return an error that says what to do; None where none fits."""
    text = str(error)
    said = f"{name}: {text}"
    if "full" in text:
        return OSError(
            errno.ENOSPC,
            f"{said}; make room and call again: what was computed before is kept",
        )
    if _speaks_of_rights(error):
        return PermissionError(
            errno.EACCES, f"{said}; a store needs a folder that exists and is writable"
        )
    if "locked" in text:
        return TimeoutError(
            f"{said} for {BUSY_SECONDS} s; close the program that holds it."
        )
    if "disk I/O" in text:
        return OSError(errno.EIO, f"{said}; check the disk")
    if any(words in text for words in ("not a database", "malformed", "no such")):
        return ValueError(
            f"{said}; the file is not a feature store or is damaged: move it away and "
            "its features will be computed again."
        )
    return None


def open_file(path: str | None) -> StoreFile:
    """Return this process's connection to a store; None is the store in memory.

    A store that cannot be written is opened for reading, with a warning.
    """
    path = path or ""
    with _open_lock:
        file = _open.get(path)
        if file is None or file.is_gone() or file.has_changed():
            # Other threads may still use the old one: it closes after the last.
            file = _open[path] = StoreFile(path)
    if not file.writable and path not in _told:
        _told.add(path)
        warnings.warn(
            f"{file.name} cannot be written: features in it are used, others are "
            "computed but not kept.",
            UserWarning,
            stacklevel=2,
        )
    return file


def close_file(path: str | None) -> None:
    """Close a store, if this process has it open."""
    if file := _open.get(path or ""):
        file.close()


def is_open(path: str | None) -> bool:
    """Whether this process has a connection to a store."""
    return (path or "") in _open


def _locks() -> list[Any]:
    return [_open_lock, *(file.lock for file in list(_open.values()))]


def _leave_to_the_parent(lost: set[int]) -> None:
    """In a forked process: neither use the parent's connections nor close them.

    Closing would write the log and delete it, although the parent goes on using it.
    """
    for file in _open.values():
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(file.connection))
    _open.clear()


hold_during_fork(_locks, _leave_to_the_parent)


@atexit.register
def _close_all() -> None:
    for file in list(_open.values()):
        file.close()
