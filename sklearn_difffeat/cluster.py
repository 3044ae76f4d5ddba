"""For engines that bring their own workers: Ray, Spark, Dask and others."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
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
    X : column of cells
        The rows of the partition, as the transformer takes them.
    folder : str or path
        Made if it is not there.
    blocks, timesteps : int, str or list of them, default=None
        As in :meth:`~sklearn_difffeat.DiffusionFeatureTransformer.precompute`.

    Returns
    -------
    str or None
        The path of the store; None for a partition without rows.

    Raises
    ------
    ValueError
        When a parameter or a cell is not valid; what was computed before is kept.
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
            # What was computed before an error is kept as well.
            store.close()
            arriving = home.with_name(f".{home.stem}.{uuid.uuid4().hex}")
            try:
                shutil.copyfile(store, arriving)
                arriving.replace(home)
            finally:
                arriving.unlink(missing_ok=True)
    return str(home)
