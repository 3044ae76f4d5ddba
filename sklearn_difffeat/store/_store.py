"""The feature store: features of rows, stored for later calls."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from sklearn_difffeat.store._database import close_file, open_file
from sklearn_difffeat.store._place import whole
from sklearn_difffeat.store._rows import StoredRows

if TYPE_CHECKING:
    import pandas as pd


class FeatureStore:
    """Features that were computed, kept in a file or in memory.

    ``cache=`` of the transformers names a store; this class shows what is in it, limits
    it and empties it. A row is found by its content (a file's bytes, the pixels, or the
    text) together with the backbone's fingerprint, input size, seed, precision and
    pooling. A pass is stored with all the blocks that it went through: as float32 for a
    float32 model, else as float16 unless the values do not fit. Several processes and
    threads may read and fill one store at the same time. A process that is killed does
    not damage it.

    Parameters
    ----------
    path : str or path, default=None
        File, created if there is none. None is the store in this process's memory,
        which ``cache=True`` uses.
    max_size : int, default=None
        Largest size in bytes; the oldest features are removed for new ones. The limit
        is part of the store: it holds for every process, until another is set. None
        leaves it unchanged, 0 removes it.

    Raises
    ------
    ValueError
        When the file is damaged, or no feature store of a version that this package
        reads, or ``max_size`` is negative.
    IsADirectoryError
        When the path is a folder.
    PermissionError
        When the file cannot be made, or ``max_size`` is given and it cannot be written.
    FileNotFoundError
        When its folder does not exist; from a transformer, also when the file was
        deleted or replaced in the middle of a call. The next call creates it again.

    Warns
    -----
    UserWarning
        Once per process, when the file exists but cannot be written: features in it are
        used, others are computed but not stored.

    See Also
    --------
    DiffusionFeatureTransformer : Uses a store through its parameter ``cache``.

    Notes
    -----
    The file is an SQLite database in write-ahead mode. It has to be on a disk of this
    machine, because SQLite does not share such a file over a network file system.

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
        self._path = whole(path)
        file = open_file(self._path)
        if max_size is not None:
            if max_size < 0:
                raise ValueError(f"max_size={max_size} is negative; give bytes, or 0.")
            with file.transaction() as tables:
                tables.bound(int(max_size) or None)
                tables.make_room(0)

    def __repr__(self) -> str:
        where = "" if self._path is None else repr(self._path)
        return f"{type(self).__name__}({where})"

    def __fspath__(self) -> str:
        if self._path is None:
            raise TypeError("the store in memory has no path; give cache=True for it.")
        return self._path

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._path,)

    @property
    def max_size(self) -> int | None:
        """Largest size in bytes; None where there is no limit."""
        with open_file(self._path).reading() as tables:
            return tables.setting("max_size")

    @property
    def size(self) -> int:
        """Size in bytes of the features and the store's own tables."""
        with open_file(self._path).reading() as tables:
            return tables.used()

    def describe(self) -> pd.DataFrame:
        """Describe what is stored: one row for each backbone, setting and pass.

        Returns
        -------
        DataFrame
            Columns ``kind`` ("features" or "latents"), ``backbone`` (its
            fingerprint), ``settings`` (input size, seed, dtype, pooling), ``timestep``,
            ``draw``, ``blocks`` (how many a row has), ``rows`` and ``bytes``.

        Examples
        --------
        >>> from sklearn_difffeat import FeatureStore
        >>> FeatureStore().describe().columns.tolist()[:4]
        ['kind', 'backbone', 'settings', 'timestep']
        """
        import pandas as pd

        with open_file(self._path).reading() as tables:
            found = tables.described()
        rows = []
        for description, *numbers in found:
            settings = json.loads(description)
            kind, backbone = settings.pop("kind"), settings.pop("backbone")
            rows.append((kind, backbone, settings, *numbers))
        names = ["timestep", "draw", "blocks", "rows", "bytes"]
        return pd.DataFrame(rows, columns=["kind", "backbone", "settings", *names])

    def clear(self) -> None:
        """Remove every feature and free the disk space.

        Raises
        ------
        PermissionError
            When the file cannot be written.
        """
        file = open_file(self._path)
        with file.transaction() as tables:
            tables.clear()
        with file.reading() as tables:
            tables.shrink()

    def close(self) -> None:
        """Close the file, which is complete then and may be copied or moved.

        Until then, what was written last is in a file beside it, ``...-wal``, as long
        as any process has the store open. The next use opens the store again. The store
        in memory has no file, and stays as it is.
        """
        if self._path is not None:
            close_file(self._path)

    def merge(
        self, *others: str | os.PathLike[str] | FeatureStore, verbose: bool = False
    ) -> FeatureStore:
        """Copy what other stores hold into this one, as from the workers of a cluster.

        Rows that this store already has at the same blocks cost nothing, so a merge
        that was interrupted continues when it is called again. The other stores are
        only read, and may be deleted afterwards.

        Parameters
        ----------
        *others : str, path or FeatureStore
        verbose : bool, default=False
            Show a progress bar for each store.

        Returns
        -------
        self

        Raises
        ------
        FileNotFoundError
            When one of them does not exist; those before it were merged.
        PermissionError
            When this store cannot be written.
        ValueError
            When one is this store itself, no store, damaged, or of another version.

        Warns
        -----
        UserWarning
            When a process of this machine is still filling a store: what is finished is
            merged.

        Examples
        --------
        >>> import tempfile
        >>> from sklearn_difffeat import FeatureStore, TextDiffusionFeatureTransformer
        >>> folder = tempfile.TemporaryDirectory()
        >>> paths = [f"{folder.name}/part-{i}.db" for i in range(2)]
        >>> for path, text in zip(paths, ["a red apple", "two birds"]):
        ...     _ = TextDiffusionFeatureTransformer(cache=path).precompute([text])
        >>> store = FeatureStore(f"{folder.name}/features.db").merge(*paths)
        >>> store.describe()["rows"].tolist()
        [2]
        >>> folder.cleanup()
        """
        from sklearn_difffeat.store._merge import merge_into

        for other in others:
            path = other._path if isinstance(other, FeatureStore) else whole(other)
            merge_into(StoredRows(self._path), path, _progress("merged", verbose))
        return self

    def to_parquet(self, path: str | os.PathLike[str]) -> list[Path]:
        """Write all features as Parquet, for other programs; latents are left out.

        Parameters
        ----------
        path : str or path
            A folder, which gets a file for each backbone with its settings, or a file
            ``*.parquet`` where there is one backbone and setting only.

        Returns
        -------
        list of Path
            The files. A row is a picture or a text; its columns are ``digest`` (16
            bytes), ``settings`` (JSON: backbone, input size, seed, precision, pooling),
            ``truncated``, and for each block and timestep its features as a list of
            float32, ``b3_t100``; ``b3_t100_d1`` is the second noise draw. Where a row
            has no such pass, the value is null.

        Raises
        ------
        ImportError
            When pyarrow is not installed.
        ValueError
            When the store is empty, or a single file is named where several are needed.

        Notes
        -----
        ``hashlib.blake2b(content, digest_size=16).digest()`` is the digest of a row
        given as a path (``content`` are the file's bytes), as bytes, or as a text (its
        UTF-8 bytes). Use it to join the rows to your own tables.

        Examples
        --------
        >>> import tempfile
        >>> import pyarrow.parquet
        >>> from sklearn_difffeat import FeatureStore, TextDiffusionFeatureTransformer
        >>> folder = tempfile.TemporaryDirectory()
        >>> store = FeatureStore(f"{folder.name}/features.db")
        >>> _ = TextDiffusionFeatureTransformer(cache=store).precompute(["a red apple"])
        >>> file, = store.to_parquet(f"{folder.name}/features.parquet")
        >>> pyarrow.parquet.read_table(file).column_names[:4]
        ['digest', 'settings', 'truncated', 'b0_t0']
        >>> copy = FeatureStore.from_parquet(file, f"{folder.name}/copy.db")
        >>> copy.describe()["rows"].tolist()
        [1]
        >>> folder.cleanup()
        """
        from sklearn_difffeat.store._parquet import write_parquet

        return write_parquet(StoredRows(self._path), path)

    @classmethod
    def from_parquet(
        cls,
        source: str | os.PathLike[str],
        path: str | os.PathLike[str] | None = None,
        *,
        verbose: bool = False,
    ) -> FeatureStore:
        """Read what :meth:`to_parquet` wrote back into a store.

        Parameters
        ----------
        source : str or path
            A file, or a folder of them.
        path : str or path, default=None
            The store, created if there is none; None is the store in memory. What it
            holds already is kept.
        verbose : bool, default=False
            Show a progress bar.

        Returns
        -------
        FeatureStore

        Raises
        ------
        FileNotFoundError
            When there is nothing to read.
        ImportError
            When pyarrow is not installed.
        ValueError
            When a file is damaged, lacks a column, or holds values that are not finite.
        """
        from sklearn_difffeat.store._merge import put_all
        from sklearn_difffeat.store._parquet import read_parquet

        store = cls(path)
        with _progress("read", verbose)() as bar:
            put_all(StoredRows(store._path), read_parquet(source), bar.update)
        return store


def _progress(what: str, verbose: bool) -> Callable[..., tqdm]:
    return partial(tqdm, desc=what, unit="row", disable=not verbose)


def store_for(cache: Any) -> StoredRows | None:
    """Return the store that the parameter ``cache`` of a transformer names."""
    if cache is None or isinstance(cache, (bool, np.bool_)):
        return StoredRows() if cache else None
    return StoredRows(cache._path if isinstance(cache, FeatureStore) else cache)
