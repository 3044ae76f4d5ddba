"""The identity of a model in a folder: every byte that loading may read."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from pathlib import Path
from typing import Any

WEIGHT_SUFFIXES = {".safetensors", ".bin"}
# Configurations, vocabularies, templates, and code that a user may trust.
SMALL_SUFFIXES = {
    ".json", ".txt", ".model", ".jinja", ".py", ".spm", ".bpe", ".vocab", ".tiktoken",
}  # fmt: skip
# Not part of the model: hidden folders, and what a training run leaves there.
OTHER_FOLDERS = re.compile(r"\..*|__pycache__|checkpoint-\d+")
# Time stamps change in steps of up to 10 ms: a file that was written within the last
# step may change again without another stamp.
TICK_NS = 20_000_000
N_ATTEMPTS, N_THREADS = 3, 4


# The parts of a file's state that change with its content. A program can reset the time
# of the content's last change (mtime), but not that of the file's entry (ctime).
_stamp = attrgetter("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino", "st_dev")
# For this process only: on several machines that share a home folder, one path may mean
# a different file on each.
_digests: dict[str, tuple[Any, str]] = {}


def folder_fingerprint(folder: str) -> str:
    """Return a digest of configurations, vocabularies, code and weights.

    Every byte is read once; a file whose stamp stays is not read again.

    Raises
    ------
    OSError
        When a file cannot be read, or is being written to.
    """
    stamps = dict(_stamps(folder))
    changed = [
        path
        for path, stamp in stamps.items()
        if path not in _digests or _digests[path][0] != stamp
    ]
    with ThreadPoolExecutor(N_THREADS) as pool:
        found = dict(zip(changed, pool.map(_digest, changed), strict=True))
    digest = hashlib.sha256()
    for path in sorted(stamps):
        name = Path(path).relative_to(folder).as_posix()
        content = found.get(path) or _digests[path][1]
        digest.update(f"{name}:{content}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _stamps(
    folder: str, above: tuple[tuple[int, int], ...] = ()
) -> Iterator[tuple[str, Any]]:
    """Yield the files that count, including those behind links, with their stamps."""
    state = os.stat(folder)
    here = state.st_dev, state.st_ino
    if here in above:
        # A link to a folder that contains this one.
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                if not OTHER_FOLDERS.fullmatch(entry.name):
                    yield from _stamps(entry.path, (*above, here))
                continue
            suffix = os.path.splitext(entry.name)[1].lower()
            if suffix in WEIGHT_SUFFIXES or suffix in SMALL_SUFFIXES:
                try:
                    state = entry.stat()
                except FileNotFoundError:
                    # A broken link: missing files are reported elsewhere.
                    continue
                if stat.S_ISREG(state.st_mode):
                    yield entry.path, _stamp(state)


def _digest(path: str) -> str:
    """Read a file, and remember its digest until its stamp changes."""
    for _ in range(N_ATTEMPTS):
        state = os.stat(path)
        age = time.time_ns() - max(state.st_mtime_ns, state.st_ctime_ns)
        if 0 <= age < TICK_NS:
            time.sleep((TICK_NS - age) / 1e9)
            state = os.stat(path)
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if _stamp(os.stat(path)) == _stamp(state):
            _digests[path] = _stamp(state), digest
            return digest
    raise OSError(None, "it is being written to; wait until it is complete", path)
