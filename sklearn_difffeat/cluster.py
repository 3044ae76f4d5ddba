"""For engines with their own workers: Ray, Spark, Dask and others."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import joblib
from sklearn.base import clone

from sklearn_difffeat._transformer import DiffusionFeatureTransformer
from sklearn_difffeat.inputs._cells import as_cells
from sklearn_difffeat.store import FeatureStore


def fill_store(
    transformer: DiffusionFeatureTransformer,
    X: Any,
    folder: str | os.PathLike[str],
    *,
    column: str | None = None,
    blocks: Any = None,
    timesteps: Any = None,
) -> str | None:
    """Compute the features of one partition, into a store of its own.

    The store grows on the worker's own disk and is copied into the folder when it is
    complete, so that the folder may be one that a cluster shares.
    :meth:`~sklearn_difffeat.FeatureStore.merge` brings all stores together. If the same
    partition is computed again, after a worker was lost or a run was interrupted, it
    continues from what its store holds. The model stays loaded in the worker's process,
    from partition to partition.

    Parameters
    ----------
    transformer : ImageDiffusionFeatureTransformer or TextDiffusionFeatureTransformer
        Its parameter ``cache`` is ignored; no fit is needed.
    X : column of cells, or table
        The rows of the partition, as the transformer takes them; with ``column``, the
        partition as the engine gives it: a DataFrame, a pyarrow table, or a mapping
        from names to columns.
    folder : str or path
        Created if it does not exist.
    column : str, default=None
        The column to read of a partition.
    blocks, timesteps : int, str or list of them, default=None
        As in :meth:`~sklearn_difffeat.DiffusionFeatureTransformer.precompute`.

    Returns
    -------
    str or None
        The path of the store; None for a partition without rows.

    Raises
    ------
    ValueError
        When the partition has no such column, or a parameter or a cell is not valid;
        what was computed before is kept.
    TypeError
        When ``column`` is given, but X has no columns.
    OSError
        When the folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from sklearn_difffeat import FeatureStore, TextDiffusionFeatureTransformer
    >>> from sklearn_difffeat.cluster import fill_store
    >>> folder = tempfile.TemporaryDirectory()
    >>> for partition in (["a red apple", "two birds"], ["a house"]):
    ...     _ = fill_store(TextDiffusionFeatureTransformer(), partition, folder.name)
    >>> stores = sorted(Path(folder.name).glob("*.db"))
    >>> len(stores)
    2
    >>> store = FeatureStore(Path(folder.name, "all.db")).merge(*stores)
    >>> store.describe()["rows"].tolist()
    [3]
    >>> folder.cleanup()
    """
    if column is not None:
        X = _column_of(X, column)
    if hasattr(X, "__len__") and not len(X):
        return None
    cells = list(as_cells(X, arrays=True))
    home = Path(folder, f"{joblib.hash(cells)}.db")
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as local:
        store = FeatureStore(Path(local, "part.db"))
        if home.exists():
            store.merge(home)
        try:
            worker = clone(transformer).set_params(cache=store)
            worker.precompute(cells, blocks=blocks, timesteps=timesteps)
        finally:
            # What was computed before an error is kept, too.
            store.close()
            arriving = home.with_name(f".{home.stem}.{uuid.uuid4().hex}")
            try:
                shutil.copyfile(store, arriving)
                arriving.replace(home)
            finally:
                arriving.unlink(missing_ok=True)
    return str(home)


def _column_of(partition: Any, column: str) -> Any:
    """Return a column of a DataFrame, pyarrow table or mapping."""
    names: Any = partition if isinstance(partition, Mapping) else None
    for attribute in ("column_names", "columns"):
        names = getattr(partition, attribute, None) if names is None else names
    if names is None:
        raise TypeError(
            f"The partition is a {type(partition).__name__}, which has no columns; "
            "leave column out for a plain sequence of cells."
        )
    if column not in names:
        raise ValueError(
            f"The partition has no column {column!r}; it has "
            f"{', '.join(map(repr, names))}."
        )
    return partition[column]
