"""Relative paths, as the process means them that handed over the work."""

from __future__ import annotations

import multiprocessing
import os

import psutil


def _here() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


_STARTED_IN = _here()


def absolute(path: str) -> str:
    """Make a path whole, from the folder of the caller.

    joblib's loky workers stay in the folder in which they were started, wherever the
    process that sends them work has gone since: in them, paths start from the folder
    of that process. A worker that has changed its own folder keeps to it.
    """
    is_worker = multiprocessing.current_process().name.startswith("LokyProcess")
    if is_worker and not os.path.isabs(path) and _here() == _STARTED_IN:
        try:
            path = os.path.join(psutil.Process(os.getppid()).cwd(), path)
        except (psutil.Error, OSError):
            # Nobody can tell where the caller is: the path is taken from here.
            pass
    return os.path.abspath(path)
