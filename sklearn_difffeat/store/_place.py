"""A store's file: whether it exists, can be written, was changed."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from sklearn_difffeat._process import absolute

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be deleted.
    fcntl = None  # type: ignore[assignment]

# SQLite's log of changes that are not yet in the file, and the log's shared index.
LOG, LOG_INDEX = "-wal", "-shm"

Identity = tuple[int, ...]


def whole(path: str | os.PathLike[str] | None) -> str | None:
    """Return a path of the user as an absolute path."""
    if path is None:
        return None
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"cache={path!r} is not a path; give a str or Path.")
    if not text:
        raise ValueError("cache='' is empty; name a file, such as 'features.db'.")
    return absolute(text)


def identity(path: str) -> Identity | None:
    """Return the identity of a file; None if there is none."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def state(path: str) -> Identity:
    """Return what changes when a process writes to a store, or becomes able to."""
    found: list[int] = [is_writable(path)]
    for end in ("", LOG):
        with suppress(OSError):
            status = os.stat(path + end)
            found += [status.st_size, status.st_mtime_ns]
    return tuple(found)


def is_writable(path: str) -> bool:
    """Whether this process may write to a store that exists."""
    beside = [path + end for end in (LOG, LOG_INDEX)]
    there = [name for name in beside if os.path.exists(name)]
    if len(there) < len(beside):
        there.append(os.path.dirname(path))
    return all(os.access(name, os.W_OK) for name in [path, *there])


def make_file(path: str) -> None:
    """Create an empty file, unless there is one, and remove an older one's log."""
    if os.path.isdir(path):
        raise IsADirectoryError(
            errno.EISDIR,
            f"cache={path!r} is a folder; name a file in it, such as "
            f"{str(Path(path, 'features.db'))!r}",
        )
    real = os.path.realpath(path)
    if not os.path.isdir(os.path.dirname(real)):
        raise FileNotFoundError(
            errno.ENOENT, f"cache={path!r}: its folder does not exist; make it"
        )
    if os.path.exists(real):
        return
    folder = None
    try:
        if fcntl is not None:
            # No other process may create the file between the check and the removal.
            folder = os.open(os.path.dirname(real), os.O_RDONLY)
            fcntl.flock(folder, fcntl.LOCK_EX)
        if not os.path.exists(real):
            for end in (LOG, LOG_INDEX):
                Path(real + end).unlink(missing_ok=True)
            os.close(os.open(real, os.O_RDWR | os.O_CREAT, 0o644))
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise PermissionError(
            errno.EACCES,
            f"cache={path!r} does not exist and its folder cannot be written; a store "
            "needs a folder that exists and is writable",
        ) from error
    finally:
        if folder is not None:
            fcntl.flock(folder, fcntl.LOCK_UN)
            os.close(folder)


def address_to_read(path: str) -> tuple[str, bool]:
    """Return how to open a store that cannot be written, and whether it is locked."""
    log, index = Path(path + LOG), Path(path + LOG_INDEX)
    uri = Path(path).as_uri()
    if log.exists() and index.exists():
        # In use by other processes, or left by one that was killed.
        return f"{uri}?mode=ro", True
    if log.exists() and log.stat().st_size:
        raise PermissionError(
            errno.EACCES,
            f"cache={path!r} cannot be written, and {log.name} beside it holds what is "
            "not yet part of it; open the store once where it can be written",
        )
    # Everything is in the file, and no process has it open. SQLite would need to write
    # beside it, unless it is told that the file does not change; ``state`` shows
    # whether it did.
    return f"{uri}?immutable=1", False
