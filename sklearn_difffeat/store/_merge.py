"""Copying the content of one store into another."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
from tqdm.auto import tqdm

from sklearn_difffeat.store._chunk import Chunk, Pass
from sklearn_difffeat.store._claims import is_running
from sklearn_difffeat.store._database import StoreFile, is_open, open_file
from sklearn_difffeat.store._rows import StoredRows

# Bytes copied in one transaction: a merge that is killed loses no more.
BATCH_BYTES = 32 * 2**20


def merge_into(
    target: StoredRows, path: str | None, progress: Callable[..., tqdm]
) -> None:
    """Copy every row that the other store lacks, or has with fewer blocks.

    Raises
    ------
    FileNotFoundError
        When there is no such store.
    PermissionError
        When the store to be filled cannot be written.
    ValueError
        When both are the same store, or the store to be read has another version or is
        damaged.
    """
    with _opened(path) as file:
        if file is target.file or file.identity == target.file.identity is not None:
            raise ValueError(f"{file.name} cannot be merged into itself.")
        with target.file.transaction():
            pass
        source = StoredRows(path)
        with file.reading() as tables:
            claims, passes = tables.claims(), tables.passes()
        with progress(total=sum(n_rows for _, n_rows in passes)) as bar:
            for one, _ in passes:
                put_all(target, _missing(source, target, one, bar.update), bar.update)
    if n_claimed := sum(count for process, count in claims if is_running(process)):
        warnings.warn(
            f"{file.name} is being filled: {n_claimed} passes of rows are not "
            "finished. Merge it again when the process that fills it is done.",
            UserWarning,
            stacklevel=3,
        )


def put_all(
    target: StoredRows, chunks: Iterable[Chunk], on_done: Callable[[int], object]
) -> None:
    """Store chunks, many of them in one transaction."""
    with target.file.reading() as tables:
        bound = tables.setting("max_size")
    # In a store of limited size each chunk removes older ones.
    limit = BATCH_BYTES if bound is None else 0
    held: list[Chunk] = []
    for chunk in chunks:
        if held and sum(one.n_bytes for one in held) + chunk.n_bytes > limit:
            _put(target, held, on_done)
        held.append(chunk)
    _put(target, held, on_done)


def _put(
    target: StoredRows, held: list[Chunk], on_done: Callable[[int], object]
) -> None:
    target.put(held)
    on_done(sum(len(chunk.digests) for chunk in held))
    held.clear()


@contextmanager
def _opened(path: str | None) -> Iterator[StoreFile]:
    """Open a store for one merge: engines may leave thousands of them."""
    if path is not None and not os.path.exists(path):
        raise FileNotFoundError(f"there is no store {path!r} to merge.")
    was_open = is_open(path)
    with warnings.catch_warnings():
        # This one is only read.
        warnings.filterwarnings("ignore", message=".*cannot be written: features in")
        file = open_file(path)
    try:
        yield file
    finally:
        if not was_open:
            file.close()


def _missing(
    source: StoredRows, target: StoredRows, one: Pass, on_done: Callable[[int], object]
) -> Iterator[Chunk]:
    """Yield the rows of a pass that another store lacks, and count those it has."""
    for deepest, digests, places, truncated in source.levels(one):
        known, _ = target.find(one, digests, deepest)
        new = np.flatnonzero(known < 0)
        on_done(len(digests) - len(new))
        for at, positions, values in source.read(places[new], range(deepest + 1)):
            rows = new[at]
            yield Chunk(
                one,
                [digests[row] for row in rows.tolist()],
                truncated[rows],
                {block: array[positions] for block, array in values.items()},
            )
