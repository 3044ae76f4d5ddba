"""What SQLite's errors mean for the user of a store."""

from __future__ import annotations

import errno
import sqlite3

# How long SQLite waits for another process.
BUSY_SECONDS = 120


def deleted(path: str) -> FileNotFoundError:
    """Return the error of a store whose file went away in the middle of a call."""
    return FileNotFoundError(
        errno.ENOENT,
        f"cache={path!r} was deleted or replaced while it was in use; call again, and "
        "what is missing will be computed anew",
    )


def speaks_of_rights(error: sqlite3.Error) -> bool:
    """Whether the file or its folder cannot be read or written."""
    return "readonly" in str(error) or "unable to open" in str(error)


def explained(error: sqlite3.Error, name: str) -> OSError | ValueError | None:
    """Return an error that says what to do; None where none fits."""
    text = str(error)
    said = f"{name}: {text}"
    if "full" in text:
        return OSError(
            errno.ENOSPC,
            f"{said}; make room and call again: what was computed before is kept",
        )
    if speaks_of_rights(error):
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
            f"{said}; the file is no feature store or is damaged: move it away and its "
            "features will be computed anew."
        )
    return None
