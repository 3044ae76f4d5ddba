"""A store in use: which rows it has, their features, and how rows are added."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np

from sklearn_difffeat.store._chunk import POSITION_BITS, Chunk, Pass
from sklearn_difffeat.store._database import TAG_SHIFT, StoreFile, deleted, open_file
from sklearn_difffeat.store._place import identity, whole


class StoredRows:
    """A store during one call of a transformer.

    Parameters
    ----------
    path : str or path, default=None
        None is the store in this process's memory.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = whole(path)
        self._identity = open_file(self.path).identity

    @property
    def file(self) -> StoreFile:
        """This process's connection.

        Raises
        ------
        FileNotFoundError
            When the file was deleted or replaced since the call began.
        """
        if self.path is not None and self._identity != identity(self.path):
            raise deleted(self.path)
        return open_file(self.path)

    @staticmethod
    def space(description: Mapping[str, Any]) -> str:
        """Return the key for a backbone's features with some settings."""
        return json.dumps(description, sort_keys=True)

    def find(
        self, one: Pass, digests: Sequence[bytes], deepest: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return which rows are known down to a block.

        Returns
        -------
        places : ndarray of shape (n,), int64
            To be given to :meth:`read`; -1 where the row is not known.
        truncated : ndarray of shape (n,), bool
            Whether the row's input was cut.
        """
        file = self.file
        with file.reading():
            places, truncated = file.index(one).find(digests, deepest)
        places[places >= 0] |= file.tag
        return places, truncated

    def levels(
        self, one: Pass
    ) -> Iterator[tuple[int, list[bytes], np.ndarray, np.ndarray]]:
        """Yield all rows of a pass, grouped by the deepest block that is stored.

        Yields
        ------
        deepest : int
        digests : list of bytes
        places, truncated : ndarray of shape (n,)
            As :meth:`find` returns them.
        """
        file = self.file
        with file.reading():
            index = file.index(one)
            digests, depths = list(index.places), set(index.deepest.values())
        for deepest in sorted(depths, reverse=True):
            places, truncated = self.find(one, digests, deepest)
            found = places >= 0
            if found.any():
                level = list(compress(digests, found))
                yield deepest, level, places[found], truncated[found]
            digests = list(compress(digests, ~found))

    def read(
        self, places: np.ndarray, blocks: Sequence[int]
    ) -> Iterator[tuple[np.ndarray, np.ndarray, dict[int, np.ndarray]]]:
        """Read the blocks of the rows at some places, a chunk at a time.

        Yields
        ------
        rows : ndarray of int
            Positions in ``places`` of the rows of this chunk.
        positions : ndarray of int
            Their positions in the values.
        values : dict of int to ndarray
            By block; read-only, float16 or float32.

        Raises
        ------
        ValueError
            When the file's content is not what was written.
        """
        file = self.file
        rows = np.argsort(places, kind="stable")
        # In another file the same chunk numbers have other features.
        rows = rows[places[rows] >> TAG_SHIFT << TAG_SHIFT == file.tag]
        chunks, positions = np.divmod(places[rows] - file.tag, 1 << POSITION_BITS)
        starts = np.flatnonzero(np.diff(chunks, prepend=-1))
        wanted = set(map(int, blocks))
        numbers = chunks[starts].tolist()
        parts = np.split(rows, starts)[1:], np.split(positions, starts)[1:]
        for chunk, *at in zip(numbers, *parts, strict=True):
            if self.file is not file:
                return
            with file.reading() as tables:
                found = tables.blocks(chunk, wanted)
            # Fewer blocks: the chunk was removed after it was found.
            if len(found) < len(wanted):
                continue
            values = {}
            for block, dtype, width, checksum, content in found:
                place = chunk, block
                if place not in file.verified and zlib.crc32(content) != checksum:
                    raise ValueError(
                        f"{file.name} is damaged (chunk {chunk}, block {block}); "
                        "move the file away or clear the store, and its features "
                        "will be computed again."
                    )
                file.verified.add(place)
                values[block] = np.frombuffer(content, dtype).reshape(-1, width)
            yield at[0], at[1], values

    def put(self, chunks: Sequence[Chunk]) -> None:
        """Store the results of passes, all of them or none.

        A store that cannot be written keeps nothing; a warning said so when it was
        opened.

        Raises
        ------
        OSError
            When the disk is full.
        ValueError
            When the chunks alone are larger than ``max_size``.
        """
        file = self.file
        if not file.writable:
            return
        n_bytes = sum(chunk.n_bytes for chunk in chunks)
        with file.transaction() as tables:
            bound = tables.setting("max_size")
            if bound is not None and n_bytes > bound:
                raise ValueError(
                    f"{file.name}: max_size={bound} is too small for the {n_bytes} "
                    "bytes of one batch; raise it, or set a smaller batch_size."
                )
            tables.make_room(n_bytes)
            for chunk in chunks:
                # Two processes may have computed a row, if one was wrongly taken for
                # dead.
                places, _ = file.index(chunk.one).find(chunk.digests, chunk.deepest)
                new = np.flatnonzero(places < 0)
                if len(new):
                    tables.insert(chunk.take(new))
                tables.release(chunk.one, chunk.digests)
