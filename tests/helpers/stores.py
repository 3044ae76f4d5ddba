"""Chunks of known values in a store, and what is read of them."""

import numpy as np

from sklearn_difffeat.store._chunk import Chunk, Pass

WIDTH = 6


def digests(*numbers):
    return [number.to_bytes(16, "big") for number in numbers]


def some_chunk(store, numbers, *, deepest=2, truncated=(), timestep=0, width=WIDTH):
    space = store.space({"kind": "features", "backbone": "b", "dtype": "float32"})
    values = {
        block: np.add.outer(100 * np.array(numbers), np.arange(width) + block)
        for block in range(deepest + 1)
    }
    return Chunk(
        Pass(space, timestep, 0),
        digests(*numbers),
        np.isin(numbers, truncated),
        {block: array.astype(np.float32) for block, array in values.items()},
    )


def read_back(store, chunk, numbers, block, deepest=None):
    places, _ = store.find(
        chunk.one, digests(*numbers), block if deepest is None else deepest
    )
    found = np.full((len(numbers), WIDTH), np.nan)
    for rows, positions, values in store.read(places, [block]):
        found[rows] = values[block][positions]
    return found


def needing(count):
    return np.ones((count, 1), dtype=bool)
