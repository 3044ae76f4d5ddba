"""The feature store: what a pass gave for a row, kept for every later question."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from sklearn_difffeat.store._database import open_file
from sklearn_difffeat.store._place import whole
from sklearn_difffeat.store._rows import StoredRows

if TYPE_CHECKING:
    import pandas as pd


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
        """Bytes that the store may take; None where there is no bound."""
        with open_file(self._path).reading() as tables:
            return tables.setting("max_size")

    @property
    def size(self) -> int:
        """Bytes that the features take, with the store's own tables."""
        with open_file(self._path).reading() as tables:
            return tables.used()

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
        """Forget every feature and give the space back."""
        file = open_file(self._path)
        with file.transaction() as tables:
            tables.clear()
        with file.reading() as tables:
            tables.shrink()


def store_for(cache: Any) -> StoredRows | None:
    """Return the store that the parameter ``cache`` of a transformer names."""
    if cache is None or isinstance(cache, (bool, np.bool_)):
        return StoredRows() if cache else None
    return StoredRows(cache._path if isinstance(cache, FeatureStore) else cache)
