"""What tells two models in folders apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

CONFIG_SUFFIXES = {".json", ".txt", ".model", ".py"}
N_SAMPLES, SAMPLE_BYTES = 64, 4096


def folder_fingerprint(folder: str, weights: Iterable[Path]) -> str:
    """Return a digest of configurations, vocabularies, code and weights."""
    root = Path(folder)
    files = sorted(p for p in root.rglob("*") if p.suffix in CONFIG_SUFFIXES)
    stamps = tuple(
        (p.relative_to(root).as_posix(), p.stat().st_size, p.stat().st_mtime_ns)
        for p in [*files, *weights]
    )
    return _digest_folder(folder, stamps)


@lru_cache(maxsize=32)
def _digest_folder(folder: str, stamps: tuple[tuple[str, int, int], ...]) -> str:
    """Digest names, sizes and evenly spread samples of the files' bytes.

    Training changes every tensor, so samples tell two sets of weights apart without
    reading gigabytes; time stamps only tell when to look again.
    """
    digest = hashlib.sha256()
    for name, size, _ in stamps:
        digest.update(f"{name}:{size}\n".encode())
        with open(Path(folder, name), "rb") as file:
            if size <= N_SAMPLES * SAMPLE_BYTES:
                digest.update(file.read())
                continue
            for i in range(N_SAMPLES):
                file.seek(i * (size - SAMPLE_BYTES) // (N_SAMPLES - 1))
                digest.update(file.read(SAMPLE_BYTES))
    return f"sha256:{digest.hexdigest()}"
