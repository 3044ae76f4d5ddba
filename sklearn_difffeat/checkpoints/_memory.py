"""How much memory there is, and whether a model fits into it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from sklearn_difffeat.checkpoints._weights import loaded_bytes

if TYPE_CHECKING:
    import torch

    from sklearn_difffeat.checkpoints._source import Source


def free_memory() -> int:
    """Return the bytes of main memory that are available."""
    limit = _cgroup_memory(Path("/sys/fs/cgroup"))
    available = psutil.virtual_memory().available
    return available if limit is None else min(available, limit)


def _cgroup_memory(root: Path) -> int | None:
    """What a container's limit leaves free; cached files do not count as used."""
    old = "memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"
    for limit, used, stat in (
        ("memory.max", "memory.current", "memory.stat"),
        (*old, "memory/memory.stat"),
    ):
        try:
            left = int((root / limit).read_text()) - int((root / used).read_text())
            counts = dict(map(str.split, (root / stat).read_text().splitlines()))
            return left + int(counts.get("inactive_file", 0))
        except (OSError, ValueError):
            continue
    return None


def free_device_memory(device: str) -> int | None:
    """Return the free bytes of a GPU; None for the CPU or where it is unknown."""
    import torch

    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if kind == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return None


def check_memory(source: Source, device: str, dtype: torch.dtype) -> None:
    """Refuse weights that do not fit, before any is downloaded or loaded.

    Raises
    ------
    MemoryError
        With the size of the weights and the free memory.
    """
    needed = loaded_bytes(source, dtype.itemsize)
    if needed is None:
        return
    precision = str(dtype).removeprefix("torch.")
    for place, free in (
        ("main memory", free_memory()),
        (f"the memory of {device!r}", free_device_memory(device)),
    ):
        if free is not None and needed > free:
            smaller = "" if dtype.itemsize < 4 else "dtype='bfloat16', "
            raise MemoryError(
                f"backbone={source.name!r} takes {needed / 1e9:.3g} GB in {precision} "
                f"but only {free / 1e9:.3g} GB of {place} are free; choose {smaller}"
                "a smaller backbone, or call release_backbones() before."
            )


def release_device_memory() -> None:
    """Return the memory that torch keeps for later to the devices."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
