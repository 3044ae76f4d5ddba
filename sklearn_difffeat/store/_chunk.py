"""Results of a pass for the rows of a batch, and where such chunks are in a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import compress, repeat
from typing import NamedTuple

import numpy as np

DIGEST_BYTES = 16
POSITION_BITS = 20


class Pass(NamedTuple):
    """One run of the model over a row, and what its results are stored under.

    The space stands for the backbone and its settings; see ``StoredRows.space``.
    """

    space: str
    timestep: int
    draw: int


@dataclass
class Chunk:
    """Results of one pass for the rows of a batch.

    Attributes
    ----------
    one : Pass
    digests : list of bytes
        The rows' contents, ``DIGEST_BYTES`` each.
    truncated : ndarray of shape (n_rows,), bool
        True where the input was cut.
    values : dict of int to ndarray
        By block, (n_rows, n_pooled) of float16 or float32.
    """

    one: Pass
    digests: list[bytes]
    truncated: np.ndarray
    values: dict[int, np.ndarray]

    @property
    def deepest(self) -> int:
        """The deepest block that the pass went through."""
        return max(self.values)

    @property
    def n_bytes(self) -> int:
        """Bytes of the values."""
        return sum(array.nbytes for array in self.values.values())

    def compact(self, dtype: str) -> Chunk:
        """Convert blocks to half precision if the model's own precision is not better.

        Half precision rounds by at most 2**-11 of a value, eight times less than
        bfloat16; features of a float32 model are kept as they are.
        """
        if dtype == "float32":
            return self
        values = dict(self.values)
        for block, array in values.items():
            # Not if some values are too large for it, or all are too small.
            if 1e-2 < np.abs(array).max(initial=0) < 65504:
                values[block] = array.astype(np.float16)
        return replace(self, values=values)

    def take(self, rows: np.ndarray) -> Chunk:
        """Return some of the rows."""
        return Chunk(
            self.one,
            [self.digests[i] for i in rows.tolist()],
            self.truncated[rows],
            {block: array[rows] for block, array in self.values.items()},
        )


@dataclass
class Index:
    """Where the rows of a pass are: digest -> chunk and position in it."""

    removals: int | None
    last: int = 0
    places: dict[bytes, int] = field(default_factory=dict)
    deepest: dict[int, int] = field(default_factory=dict)
    truncated: set[bytes] = field(default_factory=set)

    def add(self, chunk: int, deepest: int, digests: bytes, truncated: bytes) -> None:
        """Add a chunk, whose digests and flags follow one another."""
        self.deepest[chunk] = deepest
        starts = range(0, len(digests), DIGEST_BYTES)
        keys = [digests[start : start + DIGEST_BYTES] for start in starts]
        for position, key in enumerate(keys):
            known = self.places.get(key)
            if known is None or self.deepest[known >> POSITION_BITS] < deepest:
                self.places[key] = chunk << POSITION_BITS | position
        self.truncated.update(compress(keys, truncated))
        self.last = chunk

    def find(
        self, digests: Sequence[bytes], deepest: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return places, -1 where no chunk reaches a block, and which rows were cut."""
        found = map(self.places.get, digests, repeat(-1))
        places = np.fromiter(found, np.int64, len(digests))
        shallow = [c for c, depth in self.deepest.items() if depth < deepest]
        if shallow:
            places[np.isin(places >> POSITION_BITS, shallow)] = -1
        return places, are_in(self.truncated, digests)


def are_in(some: set[bytes], digests: Sequence[bytes]) -> np.ndarray:
    """Return which of the digests are among some, (n,) bool."""
    if not some:
        return np.zeros(len(digests), dtype=bool)
    return np.fromiter(map(some.__contains__, digests), bool, len(digests))
