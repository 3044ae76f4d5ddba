"""Stored features as Parquet files, and back."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import gen_batches

from sklearn_difffeat.store._chunk import DIGEST_BYTES, Chunk, Pass
from sklearn_difffeat.store._rows import StoredRows

if TYPE_CHECKING:
    import pyarrow as pa

# Bytes of features in memory at a time: one row group of a file.
GROUP_BYTES = 64 * 2**20
LARGEST_GROUP = 16_384
COLUMN = re.compile(r"b(\d+)_t(\d+)(?:_d(\d+))?")
NEEDED = ("digest", "settings", "truncated")


def column_name(one: Pass, block: int) -> str:
    """Return the column name of a block and a pass."""
    draw = f"_d{one.draw}" if one.draw else ""
    return f"b{block}_t{one.timestep}{draw}"


def write_parquet(store: StoredRows, path: str | os.PathLike[str]) -> list[Path]:
    """Write every row's features, a file for each backbone with its settings.

    Raises
    ------
    ValueError
        When the store has no features, or one file is named where several are needed.
    """
    with store.file.reading() as tables:
        passes = [one for one, _ in tables.passes()]
    by_space: dict[str, list[Pass]] = {}
    for one in passes:
        if json.loads(one.space)["kind"] == "features":
            by_space.setdefault(one.space, []).append(one)
    if not by_space:
        raise ValueError(f"{store.file.name} has no features; nothing is written.")
    target = Path(path)
    if target.suffix == ".parquet":
        if len(by_space) > 1:
            raise ValueError(
                f"{store.file.name} keeps features of {len(by_space)} backbones or "
                f"settings, which do not fit into one file; name a folder, not {path}."
            )
        files = [target]
    else:
        target.mkdir(parents=True, exist_ok=True)
        files = [target / f"{_file_name(space)}.parquet" for space in by_space]
    for file, some in zip(files, by_space.values(), strict=True):
        # If this is interrupted, the file is complete or does not exist.
        part = file.with_name(f".{file.name}.part")
        try:
            _write(store, some, part)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
    return files


def _write(store: StoredRows, passes: Sequence[Pass], file: Path) -> None:
    pa, pq = _pyarrow()
    levels = {one: list(store.levels(one)) for one in passes}
    rows: dict[bytes, int] = {}
    for _, digests, _, _ in (level for one in passes for level in levels[one]):
        for digest in digests:
            rows.setdefault(digest, len(rows))
    truncated = np.zeros(len(rows), dtype=bool)
    columns = [_PassColumns(store, one, len(rows)) for one in passes]
    for column in columns:
        for level in levels.pop(column.one):
            truncated |= column.place(rows, level)
    fields = [field for column in columns for field in column.fields()]
    kinds = [pa.binary(DIGEST_BYTES), pa.string(), pa.bool_()]
    named = list(zip(NEEDED, kinds, strict=True))
    # Not lists of fixed length: older versions of pyarrow write none that are null.
    named += [(name, pa.list_(pa.float32())) for name, _ in fields]
    n_bytes = 4 * sum(width for _, width in fields)
    step = min(LARGEST_GROUP, max(1, GROUP_BYTES // n_bytes))
    settings = pa.scalar(passes[0].space)
    all_digests = list(rows)
    with pq.ParquetWriter(
        file,
        pa.schema(named),
        compression="zstd",
        use_dictionary=["settings"],
        write_page_checksum=True,
    ) as writer:
        for part in gen_batches(len(rows), step):
            some = all_digests[part]
            arrays = [
                pa.array(some, type=kinds[0]),
                pa.repeat(settings, len(some)),
                pa.array(truncated[part]),
            ]
            for column in columns:
                for values, missing in column.read(part):
                    lengths = np.where(missing, 0, values.shape[1])
                    starts = np.cumsum(lengths, dtype=np.int32)
                    arrays.append(
                        pa.ListArray.from_arrays(
                            pa.array(np.concatenate([[0], starts]), pa.int32()),
                            pa.array(values[~missing].ravel()),
                            mask=pa.array(missing),
                        )
                    )
            writer.write_batch(pa.record_batch(arrays, names=[n for n, _ in named]))


class _PassColumns:
    """Columns of one pass: where the rows are in a store, and their deepest blocks."""

    def __init__(self, store: StoredRows, one: Pass, n_rows: int) -> None:
        self.store, self.one = store, one
        self.places = np.full(n_rows, -1)
        self.deepest = np.full(n_rows, -1)
        self.widths: list[int] = []

    def place(
        self,
        rows: dict[bytes, int],
        level: tuple[int, list[bytes], np.ndarray, np.ndarray],
    ) -> np.ndarray:
        """Add the rows of one depth, the deepest first; return which were cut."""
        deepest, digests, places, truncated = level
        at = np.fromiter(map(rows.__getitem__, digests), np.intp, len(digests))
        self.places[at], self.deepest[at] = places, deepest
        if not self.widths:
            for _, _, values in self.store.read(places[:1], range(deepest + 1)):
                self.widths = [values[block].shape[1] for block in sorted(values)]
        cut = np.zeros(len(rows), dtype=bool)
        cut[at] = truncated
        return cut

    def fields(self) -> list[tuple[str, int]]:
        """Return name and width of each block's column."""
        names = (column_name(self.one, block) for block in range(len(self.widths)))
        return list(zip(names, self.widths, strict=True))

    def read(self, part: slice) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Return each block's values of some rows, float32, and rows without any."""
        places, depths = self.places[part], self.deepest[part]
        blocks = [np.zeros((len(places), width), "f4") for width in self.widths]
        missing = np.ones((len(self.widths), len(places)), dtype=bool)
        for deepest in set(depths[depths >= 0].tolist()):
            rows = np.flatnonzero(depths == deepest)
            wanted = range(deepest + 1)
            for at, positions, values in self.store.read(places[rows], wanted):
                for block in wanted:
                    blocks[block][rows[at]] = values[block][positions]
                    missing[block, rows[at]] = False
        return zip(blocks, missing, strict=True)


def read_parquet(path: str | os.PathLike[str]) -> Iterator[Chunk]:
    """Yield the rows of a file, or of all files of a folder, as they were stored.

    Raises
    ------
    FileNotFoundError
        When there is no such file, or none in the folder.
    ValueError
        When a file is damaged or holds something else.
    """
    source = Path(path)
    files = [source]
    if source.is_dir():
        files = sorted(source.rglob("*.parquet"))
        # Engines write hidden files beside their results.
        files = [file for file in files if not file.name.startswith((".", "_"))]
        if not files:
            raise FileNotFoundError(f"there is no file *.parquet in {path}.")
    elif not source.exists():
        raise FileNotFoundError(f"there is no file {path}.")
    for file in files:
        yield from _read(file)


def _read(path: Path) -> Iterator[Chunk]:
    pa, pq = _pyarrow()
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            blocks = _blocks_of(file.schema_arrow.names, path)
            names = [*NEEDED, *(n for some in blocks.values() for n in some)]
            n_groups = max(1, file.num_row_groups)
            step = min(LARGEST_GROUP, max(1, file.metadata.num_rows // n_groups))
            first = 0
            for batch in file.iter_batches(step, columns=names):
                yield from _chunks(batch, blocks, f"{path}, from row {first} on")
                first += len(batch)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path} cannot be read as Parquet ({error}); write it again."
        ) from error


def _blocks_of(names: Sequence[str], path: Path) -> dict[tuple[int, int], list[str]]:
    """Return the columns of each timestep and draw, by block."""
    if missing := [name for name in NEEDED if name not in names]:
        raise ValueError(
            f"{path} has no column {missing[0]!r}; only what FeatureStore.to_parquet "
            "wrote, or a copy with these columns, can be read back."
        )
    found: dict[tuple[int, int], dict[int, str]] = {}
    for name in names:
        if match := COLUMN.fullmatch(name):
            block, timestep, draw = (int(number or 0) for number in match.groups())
            found.setdefault((timestep, draw), {})[block] = name
    for (timestep, _), columns in found.items():
        lost = set(range(max(columns))) - set(columns)
        if lost:
            raise ValueError(
                f"{path} has no column of block {min(lost)} at timestep {timestep}; a "
                "store keeps a row with every block up to the deepest."
            )
    if not found:
        raise ValueError(f"{path} has no column of features, such as 'b0_t0'.")
    return {one: [by[block] for block in sorted(by)] for one, by in found.items()}


def _chunks(
    batch: pa.RecordBatch, blocks: dict[tuple[int, int], list[str]], where: str
) -> Iterator[Chunk]:
    digests = batch["digest"].to_pylist()
    if wrong := [d for d in digests if d is None or len(d) != DIGEST_BYTES]:
        raise ValueError(
            f"{where}: digest {wrong[0]!r} does not have {DIGEST_BYTES} bytes; keep "
            "the column as it was written."
        )
    truncated = np.array(batch["truncated"].to_pylist(), dtype=bool)
    settings = np.array(batch["settings"].to_pylist(), dtype=object)
    for text in dict.fromkeys(settings.tolist()):
        of_text = settings == text
        space = _space(text, where)
        for (timestep, draw), names in blocks.items():
            columns = [_matrix(batch[name], f"{where}, {name}") for name in names]
            depths = np.cumprod([has for has, _ in columns], axis=0).sum(axis=0) - 1
            for deepest in sorted(set(depths[of_text].tolist()) - {-1}):
                rows = np.flatnonzero(of_text & (depths == deepest))
                yield Chunk(
                    Pass(space, timestep, draw),
                    [digests[row] for row in rows.tolist()],
                    truncated[rows],
                    {
                        block: _as_kept(values[rows])
                        for block, (_, values) in enumerate(columns[: deepest + 1])
                    },
                )


def _space(text: Any, where: str) -> str:
    try:
        return StoredRows.space(json.loads(text) | {"kind": "features"})
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{where}: settings {text!r} are not valid; keep the column as written."
        ) from error


def _matrix(column: pa.Array, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows have values, and these, float32 (n, width), else zero."""
    has = column.is_valid().to_numpy(zero_copy_only=False)
    full = column.drop_null()
    flat = full.flatten().to_numpy(zero_copy_only=False)
    n_rows = len(full)
    if any(len(row) * n_rows != len(flat) for row in full):
        raise ValueError(f"{where}: rows have features of different lengths.")
    if not np.isfinite(flat).all():
        raise ValueError(f"{where}: features are not finite.")
    values = np.zeros((len(has), len(flat) // max(1, n_rows)), dtype=np.float32)
    values[has] = flat.reshape(n_rows, -1)
    return has, values


def _as_kept(values: np.ndarray) -> np.ndarray:
    """Return values in half precision if they had no more."""
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return half if np.array_equal(half, values) else values


def _file_name(space: str) -> str:
    """Name a file after its backbone and a digest of the settings."""
    backbone = str(json.loads(space)["backbone"])
    plain = re.sub(r"[^\w.-]+", "_", backbone)[:40]
    return f"{plain}-{hashlib.blake2b(space.encode(), digest_size=4).hexdigest()}"


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError("Parquet files need pyarrow: pip install pyarrow") from error
    return pyarrow, parquet
