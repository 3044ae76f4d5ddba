"""The feature store: what a pass gave for a row, kept for every later question."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sklearn_difffeat._process import absolute
from sklearn_difffeat.store._chunk import (
    DIGEST_BYTES,
    POSITION_BITS,
    Chunk,
    Index,
    Pass,
)
from sklearn_difffeat.store._database import StoreFile, open_file
from sklearn_difffeat.store._errors import deleted
from sklearn_difffeat.store._place import Identity, identity

if TYPE_CHECKING:
    import pandas as pd

# Indexes kept in memory, one for each pass; about 200 bytes a row.
MAX_INDEXES = 16
# A place holds, from the last bit on, a position, a chunk and the connection.
TAG_SHIFT = POSITION_BITS + 31


class FeatureStore:
    """Features that were computed, kept in a file or in memory.

    ``cache=`` of the transformers names a store; this class looks into it. A row is
    found by its content (a file's bytes, the pixels, or the text) together with the
    backbone's fingerprint, input size, seed, precision and pooling. A pass is kept
    with all the blocks that it went through, each in half precision unless its values
    need more. Several processes and threads may read and fill one store at a time; a
    process that is killed leaves it whole.

    Parameters
    ----------
    path : str or path, default=None
        File, made if there is none; None is the store in this process's memory, which
        ``cache=True`` uses.
    max_size : int, default=None
        Bytes that the store may take; the oldest features give way to new ones. The
        bound is part of the store: it holds for every process, until another is set.
        None leaves it as it is, 0 lifts it.

    Raises
    ------
    ValueError
        When the file is damaged, or no feature store of a version that this package
        reads.
    IsADirectoryError
        When the path is a folder.
    PermissionError
        When the file cannot be made, or ``max_size`` is given and it cannot be written.
    FileNotFoundError
        When its folder does not exist; from a transformer, also when the file was
        deleted or replaced in the middle of a call. The next call makes it anew.

    Warns
    -----
    UserWarning
        Once a process, when the file is there but cannot be written: features in it are
        used, others are computed but not kept.

    See Also
    --------
    DiffusionFeatureTransformer : Uses a store through its parameter ``cache``.

    Notes
    -----
    The file is an SQLite database in write-ahead mode, so on a disk of this machine:
    SQLite does not share such a file over a network file system.

    Examples
    --------
    >>> from sklearn_difffeat import FeatureStore, TextDiffusionFeatureTransformer
    >>> store = FeatureStore()
    >>> store.clear()
    >>> texts = ["a red apple", "two birds"]
    >>> Z = TextDiffusionFeatureTransformer(cache=True).fit_transform(texts)
    >>> store.describe()[["timestep", "blocks", "rows"]].values.tolist()
    [[0, 7, 2]]
    >>> store.clear()
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, max_size: int | None = None
    ) -> None:
        # Whole, since a worker may stand in another folder.
        self.path = None if path is None else absolute(_checked(path))
        # The file that is in use since ``space`` was asked.
        self._identity: Identity | None = None
        self._descriptions: dict[int, str] = {}
        file = open_file(self.path)
        if max_size is not None:
            if max_size < 0:
                raise ValueError(f"max_size={max_size} is negative; give bytes, or 0.")
            with file.transaction() as connection:
                connection.execute(
                    "UPDATE setting SET value = ? WHERE name = 'max_size'",
                    (int(max_size) or None,),
                )
                self._make_room(connection, 0)

    @property
    def file(self) -> StoreFile:
        """This process's connection.

        Raises
        ------
        FileNotFoundError
            When the file in use was deleted or replaced.
        """
        if self.path is not None and self._identity is not None:
            if self._identity != identity(self.path):
                raise deleted(self.path)
        return open_file(self.path)

    def __repr__(self) -> str:
        where = "" if self.path is None else repr(self.path)
        return f"{type(self).__name__}({where})"

    def __fspath__(self) -> str:
        if self.path is None:
            raise TypeError("the store in memory has no path; give cache=True for it.")
        return self.path

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path,)

    @property
    def max_size(self) -> int | None:
        """Bytes that the store may take; None where there is no bound."""
        with open_file(self.path).reading() as connection:
            return _setting(connection, "max_size")

    @property
    def size(self) -> int:
        """Bytes that the features take, with the store's own tables."""
        with open_file(self.path).reading() as connection:
            return _used(connection)

    def describe(self) -> pd.DataFrame:
        """Tell what is kept: one row for each backbone, setting and pass.

        Returns
        -------
        DataFrame
            Columns ``kind`` ("features" or "latents"), ``backbone`` (its
            fingerprint), ``settings`` (input size, seed, dtype, pooling), ``timestep``,
            ``draw``, ``blocks`` (how many a row has), ``rows`` and ``bytes``.
        """
        import pandas as pd

        with open_file(self.path).reading() as connection:
            found = connection.execute(
                "SELECT description, timestep, draw, deepest + 1, "
                f"sum(length(digests)) / {DIGEST_BYTES}, sum((SELECT "
                "sum(length(content)) FROM pooled WHERE pooled.chunk = chunk.id)) "
                "FROM chunk JOIN space ON space.id = chunk.space "
                "GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
            ).fetchall()
        rows = []
        for description, *numbers in found:
            settings = json.loads(description)
            kind, backbone = settings.pop("kind"), settings.pop("backbone")
            rows.append((kind, backbone, settings, *numbers))
        names = ["timestep", "draw", "blocks", "rows", "bytes"]
        return pd.DataFrame(rows, columns=["kind", "backbone", "settings", *names])

    def clear(self) -> None:
        """Forget every feature and give the space back."""
        file = open_file(self.path)
        with file.transaction() as connection:
            for table in ("pooled", "chunk", "space", "claim", "worker"):
                connection.execute(f"DELETE FROM {table}")
            _count_removal(connection)
        with file.reading() as connection:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def space(self, description: Mapping[str, Any]) -> int:
        """Return the number of a backbone with its settings, and begin to use the file.

        The number is one of the content: it means the same in every file, so that a
        store that is cleared or replaced meanwhile never takes it for another's.
        """
        text = json.dumps(description, sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        number = int.from_bytes(digest, "big") >> 1
        self._descriptions[number] = text
        self._identity = open_file(self.path).identity
        return number

    def find(
        self, one: Pass, digests: Sequence[bytes], deepest: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return which rows are known down to a block.

        Parameters
        ----------
        one : Pass
        digests : sequence of bytes
        deepest : int

        Returns
        -------
        places : ndarray of shape (n,), int64
            To be given to :meth:`read`; -1 where the row is not known.
        truncated : ndarray of shape (n,), bool
            Whose input was cut.
        """
        file = self.file
        with file.reading() as connection:
            index = _refreshed(file, connection, self._as_kept(connection, one))
            places = index.find(digests, deepest)
            places[places >= 0] |= _tag(file)
            truncated = np.zeros(len(digests), dtype=bool)
            if index.truncated:
                truncated[:] = [digest in index.truncated for digest in digests]
            return places, truncated

    def read(
        self, places: np.ndarray, blocks: Sequence[int]
    ) -> Iterator[tuple[np.ndarray, np.ndarray, dict[int, np.ndarray]]]:
        """Read the blocks of the rows at some places, a chunk at a time.

        Yields
        ------
        rows : ndarray of int
            Where in ``places`` the rows of this chunk stand.
        positions : ndarray of int
            Where in the values they stand.
        values : dict of int to ndarray
            By block; read-only, float16 or float32.

        Raises
        ------
        ValueError
            When what the file holds is not what was written.
        """
        file = self.file
        rows = np.argsort(places, kind="stable")
        rows = rows[np.searchsorted(places[rows], 0) :]
        tags = places[rows] >> TAG_SHIFT << TAG_SHIFT
        # Chunks of another file have other features under the same numbers.
        rows = rows[tags == _tag(file)]
        chunks, positions = np.divmod(places[rows] - _tag(file), 1 << POSITION_BITS)
        starts = np.flatnonzero(np.diff(chunks, prepend=-1))
        ends = np.append(starts[1:], len(rows))[: len(starts)]
        query = (
            "SELECT block, dtype, width, checksum, content FROM pooled "
            f"WHERE chunk = ? AND block IN "
            f"({', '.join(str(int(block)) for block in set(blocks))})"
        )
        numbers = chunks[starts].tolist()
        for chunk, start, end in zip(numbers, starts, ends, strict=True):
            if self.file is not file:
                return
            with file.reading() as connection:
                found = connection.execute(query, (chunk,)).fetchall()
            # Fewer blocks: the chunk was removed after it was found.
            if len(found) == len(set(blocks)):
                values = {}
                for block, dtype, width, checksum, content in found:
                    place = chunk, block
                    intact = place in file.verified or zlib.crc32(content) == checksum
                    if not intact:
                        raise ValueError(
                            f"{file.name} is damaged (chunk {chunk}, block {block}); "
                            "move the file away or clear the store, and its features "
                            "will be computed anew."
                        )
                    file.verified.add(place)
                    values[block] = np.frombuffer(content, dtype).reshape(-1, width)
                yield rows[start:end], positions[start:end], values

    def put(self, chunks: Sequence[Chunk]) -> None:
        """Keep what passes gave, whole, or nothing of it.

        A store that cannot be written keeps nothing, as was said when it was opened.

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
        with file.transaction() as connection:
            n_bytes = sum(a.nbytes for c in chunks for a in c.values.values())
            self._make_room(connection, n_bytes)
            for chunk in chunks:
                deepest = max(chunk.values)
                one = self._as_kept(connection, chunk.one, insert=True)
                # Two processes may have computed a row, where one was taken for dead.
                known = _refreshed(file, connection, one).find(chunk.digests, deepest)
                new = np.flatnonzero((known < 0) & chunk.lasting)
                if len(new):
                    _insert(connection, replace(chunk.take(new), one=one), deepest)
                connection.executemany(
                    "DELETE FROM claim WHERE space = ? AND timestep = ? AND draw = ? "
                    "AND digest = ?",
                    [(*chunk.one, digest) for digest in chunk.digests],
                )

    def _as_kept(
        self, connection: sqlite3.Connection, one: Pass, *, insert: bool = False
    ) -> Pass:
        """Return a pass with the number that this very file has for its space.

        Older files count their spaces.
        """
        text = self._descriptions.get(one.space)
        if text is None:
            return one
        query = "SELECT id FROM space WHERE description = ?"
        found = connection.execute(query, (text,)).fetchone()
        if found is None and insert:
            connection.execute("INSERT INTO space VALUES (?, ?)", (one.space, text))
        return one if found is None else one._replace(space=found[0])

    def _make_room(self, connection: sqlite3.Connection, n_bytes: int) -> None:
        bound = _setting(connection, "max_size")
        if bound is None:
            return
        if n_bytes > bound:
            raise ValueError(
                f"{self.file.name}: max_size={bound} is too small for the {n_bytes} "
                "bytes of one batch; raise it, or set a smaller batch_size."
            )
        oldest = "SELECT id FROM chunk ORDER BY id LIMIT 1"
        removed = False
        while _used(connection) + n_bytes > bound:
            found = connection.execute(oldest).fetchone()
            if found is None:
                break
            connection.execute("DELETE FROM pooled WHERE chunk = ?", found)
            connection.execute("DELETE FROM chunk WHERE id = ?", found)
            removed = True
        if removed:
            _count_removal(connection)


def store_for(cache: Any) -> FeatureStore | None:
    """Return the store that the parameter ``cache`` of a transformer names.

    Raises
    ------
    TypeError, ValueError, OSError
        When it names none.
    """
    if cache is None or isinstance(cache, (bool, np.bool_)):
        return FeatureStore() if cache else None
    return FeatureStore() if getattr(cache, "path", "") is None else FeatureStore(cache)


def _checked(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"cache={path!r} is no text; give the path as str or Path.")
    if not text:
        raise ValueError("cache='' is empty; name a file, such as 'features.db'.")
    return text


def _tag(file: StoreFile) -> int:
    """Return the part of a row's place that tells which connection found it."""
    return file.number % (1 << 63 - TAG_SHIFT) << TAG_SHIFT


def _setting(connection: sqlite3.Connection, name: str) -> int | None:
    query = "SELECT value FROM setting WHERE name = ?"
    return connection.execute(query, (name,)).fetchone()[0]


def _count_removal(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE setting SET value = value + 1 WHERE name = 'removals'")


def _used(connection: sqlite3.Connection) -> int:
    def number(pragma: str) -> int:
        return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])

    return (number("page_count") - number("freelist_count")) * number("page_size")


def _refreshed(file: StoreFile, connection: sqlite3.Connection, one: Pass) -> Index:
    """Return the index of a pass with what other processes have added since."""
    removals = _setting(connection, "removals") or 0
    index = file.indexes.get(one)
    if index is None or index.removals != removals:
        index = file.indexes[one] = Index(removals=removals)
    file.indexes.move_to_end(one)
    while len(file.indexes) > MAX_INDEXES:
        file.indexes.popitem(last=False)
    for row in connection.execute(
        "SELECT id, deepest, digests, truncated FROM chunk "
        "WHERE space = ? AND timestep = ? AND draw = ? AND id > ? ORDER BY id",
        (*one, index.last),
    ):
        index.add(*row)
    return index


def _insert(connection: sqlite3.Connection, chunk: Chunk, deepest: int) -> None:
    digests, truncated = b"".join(chunk.digests), chunk.truncated.tobytes()
    number = connection.execute(
        "INSERT INTO chunk (space, timestep, draw, deepest, digests, truncated) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (*chunk.one, deepest, digests, truncated),
    ).lastrowid
    rows = []
    for block, values in chunk.values.items():
        content = values.tobytes()
        checksum = zlib.crc32(content)
        dtype = values.dtype.newbyteorder("<").str
        rows.append((number, block, dtype, values.shape[1], checksum, content))
    connection.executemany("INSERT INTO pooled VALUES (?, ?, ?, ?, ?, ?)", rows)
