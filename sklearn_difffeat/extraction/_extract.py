"""The features of a column of cells: the entry point."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from joblib import effective_n_jobs
from tqdm.auto import tqdm

from sklearn_difffeat.extraction._extraction import Extraction
from sklearn_difffeat.extraction._features import Features
from sklearn_difffeat.extraction._job import Job, Rows
from sklearn_difffeat.extraction._workers import share_out
from sklearn_difffeat.inputs._column import Column
from sklearn_difffeat.store._rows import StoredRows


def extract(
    job: Job,
    column: Column,
    store: StoredRows | None,
    values: np.ndarray | None,
    n_jobs: int | None,
    progress: Callable[..., tqdm],
) -> Rows:
    """Compute every pass that a plan asks for and that is not stored yet.

    Parameters
    ----------
    job : Job
    column : Column
    store : StoredRows or None
    values : ndarray of shape (n_rows of X, n_features), float32, or None
        Filled in place, with NaN where a cell is missing or cannot be read; None leaves
        the features in the store.
    n_jobs : int or None
        joblib jobs.
    progress : callable
        Makes a progress bar for a total of rows.

    Returns
    -------
    Rows
        What is known about each row of X, for warnings.
    """
    n_rows = len(column.cells)
    needed = np.zeros((n_rows, len(job.plan.passes)), dtype=bool)
    needed[column.present] = True
    rows = Rows(column.cells, np.arange(n_rows), needed, job.unreadable)
    features = None if values is None else Features(values, column.present, job.plan)
    with progress(total=len(column.present)) as bar:
        extraction = Extraction(job, rows, store, features, on_done=bar.update)
        if effective_n_jobs(n_jobs) > 1:
            share_out(extraction, n_jobs)
        extraction.run()
    assert not rows.needed.any()
    for repeat, original in extraction.repeats.items():
        rows.truncated[repeat] = rows.truncated[original]
        rows.overflowed[repeat] = rows.overflowed[original]
        if original in rows.errors:
            rows.errors[repeat] = rows.errors[original]
        elif values is not None:
            values[repeat] = values[original]
    if features is not None:
        features.values[list(rows.errors)] = np.nan
        features.finish(job.widths)
    return rows
