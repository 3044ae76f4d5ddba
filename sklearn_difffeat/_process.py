"""Forked processes and workers: what they may compute, and in which folder."""

from __future__ import annotations

import multiprocessing
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import psutil

# Seconds that a fork waits for other threads to finish a pass or to leave a store.
WAIT_SECONDS = 10.0


# Whether this process used torch, and was forked from one that had it.
_used_torch = _inherited_torch = False


def uses_torch() -> None:
    """Prepare for torch to compute in this process; called before every use.

    A forked process does not have torch's pool of threads, and torch would wait for it
    without end. Such a process therefore computes in one thread, like the workers of
    torch's own DataLoader.
    """
    global _used_torch
    if _inherited_torch and not _used_torch:
        _compute_in_one_thread()
    _used_torch = True


def refuse_inherited_gpu(device: str) -> None:
    """Raise an error if a forked process is about to use its parent's GPU.

    Raises
    ------
    RuntimeError
        When the process that this one was forked from has used CUDA.
    """
    import torch

    if device.partition(":")[0] == "cuda" and torch.cuda._is_in_bad_fork():
        raise RuntimeError(
            f"device={device!r} cannot be used in this process, which was forked after "
            "its parent had used the GPU; start processes by the method 'spawn' or "
            "'forkserver', fork before the first transform, or set device='cpu'."
        )


def hold_during_fork(
    locks: Callable[[], Iterable[Any]], in_child: Callable[[set[int]], None]
) -> None:
    """Make sure that no other thread holds some locks at the moment of a fork.

    Parameters
    ----------
    locks : callable
        Returns the locks, in the order in which to take them.
    in_child : callable
        Called in the forked process, where every lock is free again, with the ``id`` of
        those that another thread did not release within ``WAIT_SECONDS``: what these
        locks guard may be half done.
    """
    taken = threading.local()

    def before() -> None:
        taken.locks = []
        end = time.monotonic() + WAIT_SECONDS
        for lock in locks():
            if lock.acquire(timeout=max(0.0, end - time.monotonic())):
                taken.locks.append(lock)

    def release() -> None:
        for lock in reversed(getattr(taken, "locks", [])):
            lock.release()
        taken.locks = []

    def after() -> None:
        release()
        lost = set()
        for lock in locks():
            if lock.acquire(blocking=False):
                lock.release()
            else:
                lost.add(id(lock))
                lock._at_fork_reinit()
        in_child(lost)

    _register(before=before, after_in_parent=release, after_in_child=after)


def _compute_in_one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _register(**hooks: Callable[[], None]) -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(**hooks)


def _after_in_child() -> None:
    global _inherited_torch
    _inherited_torch = "torch" in sys.modules
    if _used_torch:
        # Now, while the thread that forked is the only one; others will come later.
        _compute_in_one_thread()


_register(after_in_child=_after_in_child)


def machine() -> str:
    """Name the machine, so that processes on it can be recognised."""
    return f"{platform.node()} {uuid.getnode()}"


def _here() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


_STARTED_IN = _here()


def absolute(path: str) -> str:
    """Make a path absolute, from the folder of the caller.

    joblib's loky workers stay in the folder in which they were started, even if the
    process that sends them work has changed its folder since. In them, paths start from
    the folder of that process. If a worker has changed its own folder, paths start from
    there.
    """
    is_worker = multiprocessing.current_process().name.startswith("LokyProcess")
    if is_worker and not os.path.isabs(path) and _here() == _STARTED_IN:
        try:
            path = os.path.join(psutil.Process(os.getppid()).cwd(), path)
        except (psutil.Error, OSError):
            # The caller's folder is not known: the path starts from this process's
            # folder.
            pass
    return os.path.abspath(path)
