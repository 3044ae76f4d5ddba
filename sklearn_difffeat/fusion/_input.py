"""The kinds of X that FusionClassifier takes."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
from scipy import sparse

MATRIX: dict[str, Any] = {
    "accept_sparse": "csr",
    "dtype": [np.float64, np.float32],
    "order": "C",
    # absent_modalities checks values that are not finite, and names the row.
    "ensure_all_finite": False,
}


def densified_columns(X: Any) -> Any:
    """Dense pandas columns, if some are sparse but no scipy matrix can hold all."""
    dtypes = X.dtypes if hasattr(X, "columns") and hasattr(X, "dtypes") else ()
    fills = [getattr(dtype, "fill_value", None) for dtype in dtypes]
    if all(fill is None for fill in fills) or all(fill == 0 for fill in fills):
        return X
    return X.apply(lambda c: c.sparse.to_dense() if hasattr(c, "sparse") else c)


def check_dense_copy_fits(X: Any) -> None:
    """Refuse a sparse X whose dense copy is larger than the memory of the machine."""
    if not sparse.issparse(X):
        return
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return
    size = X.shape[0] * X.shape[1] * X.dtype.itemsize
    if size > memory:
        raise MemoryError(
            f"X is sparse with {X.shape[0]} rows and {X.shape[1]} columns, and its "
            f"standardised copy needs {size / 2**30:,.1f} GiB of the "
            f"{memory / 2**30:,.1f} GiB of this machine; give fewer columns, for "
            "example by max_features of the vectoriser or by TruncatedSVD."
        )


def warn_of_sparse_stacks(X: Any) -> None:
    """Warn if a sparse X without modalities seems to have dense columns beside others.

    scikit-learn stacks a sparse matrix and the arrays of this package's transformers
    to a sparse matrix, which does not carry the modalities.
    """
    if not sparse.issparse(X):
        return
    n_full = int(np.sum(np.bincount(X.indices, minlength=X.shape[1]) == X.shape[0]))
    if 1 < n_full < X.shape[1]:
        warnings.warn(
            f"{n_full} of the {X.shape[1]} columns of the sparse X have no zeros, as "
            "if dense features were stacked with sparse ones, and X does not say "
            "which modalities it has, so all columns are one; set sparse_threshold=0 "
            "on the ColumnTransformer, or pass modalities=.",
            stacklevel=5,
        )
