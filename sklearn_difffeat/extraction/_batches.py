"""How many rows go through the model at a time, and who prepares the next ones."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, TypeVar

import numpy as np
import torch

from sklearn_difffeat.inputs._reader import Contents

T = TypeVar("T")
# Larger batches than these were not faster.
CPU_BYTES = 512 * 2**20
SHARE_OF_FREE_MEMORY = 0.5
LARGEST = 128


@dataclass
class Batch:
    """Rows to go through the model together.

    Attributes
    ----------
    rows : ndarray of int
    contents : Contents, optional
        What their cells hold; None if the cells are still to be read, or latents
        loaded.
    places : ndarray of int, optional
        Places of the latents in the store, if it has them.
    """

    rows: np.ndarray
    contents: Contents | None = None
    places: np.ndarray | None = None

    def joined(self, other: Batch) -> Batch:
        """Return the rows of both batches."""
        contents = None
        if self.contents is not None and other.contents is not None:
            contents = self.contents + other.contents
        return Batch(np.concatenate([self.rows, other.rows]), contents)

    def cut(self, at: slice | np.ndarray) -> Batch:
        """Return some of the rows."""
        if self.contents is None:
            return Batch(self.rows[at])
        positions = np.arange(len(self.rows))[at].tolist()
        return Batch(self.rows[at], self.contents[positions])


class BatchSizer:
    """How many rows to run at a time: what fits on a device, or less after it did not.

    The same rows get the same batches in every run, so that results are the same to
    the last bit.

    Parameters
    ----------
    device : torch.device
    fixed : int, optional
        Rows of every batch, unless memory runs out.
    """

    def __init__(self, device: torch.device, fixed: int | None = None) -> None:
        self._fixed = fixed
        self._largest = LARGEST if fixed is None else fixed
        self._bytes = float(CPU_BYTES)
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            self._bytes = SHARE_OF_FREE_MEMORY * free

    def rows(self, row_bytes: int) -> int:
        """Return the size of a batch whose rows take this many bytes each."""
        if self._fixed is not None:
            return self._largest
        fitting = max(1, int(self._bytes / row_bytes))
        return min(self._largest, 1 << (fitting.bit_length() - 1))

    def ran_out_of_memory(self, n_rows: int) -> None:
        """Use half of the size that did not fit from now on."""
        self._largest = max(1, n_rows // 2)


def prefetched(
    batches: Iterable[T], prepare: Callable[[T], Any]
) -> Iterator[tuple[T, Any]]:
    """Prepare batches in threads, while earlier ones are computed.

    ``batches`` itself is drawn from in the caller's thread. A single one is prepared
    there, too: starting a thread takes longer than reading a text.
    """
    drawn = iter(batches)
    first_two = list(islice(drawn, 2))
    if len(first_two) < 2:
        for batch in first_two:
            yield batch, prepare(batch)
        return
    n_threads = min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(n_threads, "difffeat-prepare") as pool:
        waiting: deque[tuple[T, Any]] = deque()
        try:
            for batch in chain(first_two, drawn):
                waiting.append((batch, pool.submit(prepare, batch)))
                if len(waiting) > n_threads:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, CUDA or the CPU allocator (Windows, Linux) ran out of memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    words = ("not enough memory", "can't allocate memory", "out of memory")
    return any(text in str(error) for text in words)
