"""All SQL of the store: the tables of its file, and the queries."""

from __future__ import annotations

import hashlib
import sqlite3
import time
import zlib
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from sklearn_difffeat.store._chunk import DIGEST_BYTES, Chunk, Pass

APPLICATION_ID = 0x44464654
VERSION = 1
PAGE_BYTES = 65536
LOG_PAGES = 256
# How long SQLite waits for another process.
BUSY_SECONDS = 120
SCHEMA = f"""
CREATE TABLE setting (name TEXT PRIMARY KEY, value INTEGER);
INSERT INTO setting VALUES ('max_size', NULL), ('removals', 0);
CREATE TABLE space (id INTEGER PRIMARY KEY, description TEXT NOT NULL UNIQUE);
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    space INTEGER NOT NULL, timestep INTEGER NOT NULL, draw INTEGER NOT NULL,
    deepest INTEGER NOT NULL, digests BLOB NOT NULL, truncated BLOB NOT NULL);
CREATE INDEX chunks_of_pass ON chunk (space, timestep, draw, id);
CREATE TABLE pooled (
    chunk INTEGER NOT NULL, block INTEGER NOT NULL, dtype TEXT NOT NULL,
    width INTEGER NOT NULL, checksum INTEGER NOT NULL, content BLOB NOT NULL);
CREATE UNIQUE INDEX blocks_of_chunk ON pooled (chunk, block);
CREATE TABLE worker (
    id TEXT PRIMARY KEY, host TEXT NOT NULL, process TEXT NOT NULL, seen REAL NOT NULL);
CREATE TABLE claim (
    space INTEGER, timestep INTEGER, draw INTEGER, digest BLOB, worker TEXT NOT NULL,
    PRIMARY KEY (space, timestep, draw, digest)) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION}"""
# Older files number their spaces.
SPACE = "(SELECT id FROM space WHERE description = ?)"


class Tables(sqlite3.Connection):
    """A connection to a store."""

    def __del__(self) -> None:
        # Other threads may still use the connection to a file that was deleted, so the
        # last one closes it. From Python 3.13 on, sqlite3 warns if nobody does.
        with suppress(sqlite3.Error):
            self.close()

    def prepare(self, name: str) -> None:
        """Prepare for writing; an empty file gets its tables."""
        self.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        self.is_store(name)
        self._write_ahead()
        # A power cut may lose the last seconds, a killed process nothing.
        self.execute("PRAGMA synchronous = NORMAL")
        self.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        with self:
            self.begin()
            if not self._number("PRAGMA application_id"):
                for statement in SCHEMA.split(";"):
                    self.execute(statement)

    def is_store(self, name: str) -> bool:
        """Return whether the file is a store; False where it is still empty."""
        # Both at the same moment: another process may just be creating the tables.
        self.execute("BEGIN")
        try:
            kind = self._number("PRAGMA application_id")
            version = self._number("PRAGMA user_version")
            n_tables = self._number("SELECT count(*) FROM sqlite_master")
        finally:
            self.rollback()
        if kind == APPLICATION_ID and version == VERSION:
            return True
        if kind == version == n_tables == 0:
            return False
        self.close()
        if kind != APPLICATION_ID:
            raise ValueError(
                f"{name} is a database of another program; choose another path."
            )
        raise ValueError(
            f"{name} was written in version {version} of the store, this package "
            f"reads version {VERSION}; use the package that wrote it, or another path."
        )

    def _write_ahead(self) -> None:
        # Changing the journal does not wait for other processes as transactions do.
        end = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > end:
                    raise
            time.sleep(0.05)

    def begin(self) -> None:
        """Begin to write, as the only writer; ``with`` commits or rolls back."""
        # Ctrl-C may have interrupted an earlier transaction before its end.
        self.rollback()
        self.execute("BEGIN IMMEDIATE")

    def _number(self, query: str) -> int:
        return int(self.execute(query).fetchone()[0])

    def used(self) -> int:
        """Return the bytes that are in use."""
        return self._number(
            "SELECT (page_count - freelist_count) * page_size "
            "FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
        )

    def setting(self, name: str) -> int | None:
        """Return ``max_size`` (None without a limit), or ``removals``."""
        query = "SELECT value FROM setting WHERE name = ?"
        return self.execute(query, (name,)).fetchone()[0]

    def bound(self, max_size: int | None) -> None:
        """Set the most bytes that may be in use."""
        query = "UPDATE setting SET value = ? WHERE name = 'max_size'"
        self.execute(query, (max_size,))

    def _count_removal(self) -> None:
        self.execute("UPDATE setting SET value = value + 1 WHERE name = 'removals'")

    def make_room(self, n_bytes: int) -> None:
        """Remove the oldest chunks until this many bytes fit below the limit."""
        bound = self.setting("max_size")
        removed = False
        while bound is not None and self.used() + n_bytes > bound:
            found = self.execute("SELECT min(id) FROM chunk").fetchone()
            if found == (None,):
                break
            self.execute("DELETE FROM pooled WHERE chunk = ?", found)
            self.execute("DELETE FROM chunk WHERE id = ?", found)
            removed = True
        if removed:
            self._count_removal()

    def clear(self) -> None:
        """Remove everything but the settings."""
        for table in ("pooled", "chunk", "space", "claim", "worker"):
            self.execute(f"DELETE FROM {table}")
        self._count_removal()

    def shrink(self) -> None:
        """Return the space of removed features to the disk, outside a transaction."""
        self.execute("VACUUM")
        self.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def described(self) -> list[tuple[Any, ...]]:
        """Return description, timestep, draw, blocks, rows and bytes of each pass."""
        return self.execute(
            "SELECT description, timestep, draw, deepest + 1, "
            f"sum(length(digests)) / {DIGEST_BYTES}, sum((SELECT "
            "sum(length(content)) FROM pooled WHERE pooled.chunk = chunk.id)) "
            "FROM chunk JOIN space ON space.id = chunk.space "
            "GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
        ).fetchall()

    def passes(self) -> list[tuple[Pass, int]]:
        """Return every stored pass and its number of rows, chunk by chunk."""
        found = self.execute(
            f"SELECT description, timestep, draw, sum(length(digests)) / {DIGEST_BYTES}"
            " FROM chunk JOIN space ON space.id = chunk.space "
            "GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        )
        return [(Pass(*one), n_rows) for *one, n_rows in found]

    def chunks(self, one: Pass, after: int) -> Iterable[tuple[int, int, bytes, bytes]]:
        """Return number, deepest block, digests and truncated of a pass's chunks."""
        query = (
            f"SELECT id, deepest, digests, truncated FROM chunk WHERE space = {SPACE} "
            "AND timestep = ? AND draw = ? AND id > ? ORDER BY id"
        )
        return self.execute(query, (*one, after))

    def blocks(self, chunk: int, blocks: Iterable[int]) -> list[tuple[Any, ...]]:
        """Return block, dtype, width, checksum and content of a chunk's blocks."""
        query = (
            "SELECT block, dtype, width, checksum, content FROM pooled "
            f"WHERE chunk = ? AND block IN ({', '.join(map(str, blocks))})"
        )
        return self.execute(query, (chunk,)).fetchall()

    def insert(self, chunk: Chunk) -> None:
        """Add a chunk."""
        self.execute(
            "INSERT INTO space VALUES (?, ?) ON CONFLICT (description) DO NOTHING",
            (_numbered(chunk.one)[0], chunk.one.space),
        )
        digests, truncated = b"".join(chunk.digests), chunk.truncated.tobytes()
        number = self.execute(
            "INSERT INTO chunk (space, timestep, draw, deepest, digests, truncated) "
            f"VALUES ({SPACE}, ?, ?, ?, ?, ?)",
            (*chunk.one, chunk.deepest, digests, truncated),
        ).lastrowid
        for block, values in chunk.values.items():
            content = values.tobytes()
            dtype = values.dtype.newbyteorder("<").str
            self.execute(
                "INSERT INTO pooled VALUES (?, ?, ?, ?, ?, ?)",
                (number, block, dtype, values.shape[1], zlib.crc32(content), content),
            )

    def sign_in(self, worker: str, host: str, process: str) -> None:
        """Record which process a worker is."""
        query = "INSERT OR REPLACE INTO worker VALUES (?, ?, ?, ?)"
        self.execute(query, (worker, host, process, time.time()))

    def workers(self) -> list[tuple[str, str]]:
        """Return every worker and its process."""
        return self.execute("SELECT id, process FROM worker").fetchall()

    def claims(self) -> list[tuple[str, int]]:
        """Return the process of every worker that computes, and how many passes."""
        return self.execute(
            "SELECT process, count(*) FROM claim JOIN worker ON worker.id = worker "
            "GROUP BY process"
        ).fetchall()

    def dismiss(self, worker: str) -> None:
        """Forget a worker and its claims."""
        self.execute("DELETE FROM claim WHERE worker = ?", (worker,))
        self.execute("DELETE FROM worker WHERE id = ?", (worker,))

    def claim(self, worker: str, one: Pass, digests: Iterable[bytes]) -> None:
        """Record that a worker computes a pass of some rows."""
        numbers = _numbered(one)
        self.executemany(
            "INSERT OR REPLACE INTO claim VALUES (?, ?, ?, ?, ?)",
            [(*numbers, digest, worker) for digest in digests],
        )

    def release(self, one: Pass, digests: Iterable[bytes]) -> None:
        """Remove all claims to a pass of some rows."""
        numbers = _numbered(one)
        self.executemany(
            "DELETE FROM claim "
            "WHERE space = ? AND timestep = ? AND draw = ? AND digest = ?",
            [(*numbers, digest) for digest in digests],
        )

    def claimed_by_others(self, worker: str, one: Pass) -> set[bytes]:
        """Return the rows for which other workers compute a pass."""
        found = self.execute(
            "SELECT digest FROM claim "
            "WHERE space = ? AND timestep = ? AND draw = ? AND worker != ?",
            (*_numbered(one), worker),
        )
        return {digest for (digest,) in found}


def _numbered(one: Pass) -> tuple[int, int, int]:
    """Number a space by its content, so that the number is the same in every file."""
    digest = hashlib.blake2b(one.space.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1, one.timestep, one.draw
