"""The one check of an indicator matrix, for heads, thresholds, scores and pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import check_array


def check_indicator(Y: Any, name: str, *, ensure_2d: bool = True) -> NDArray[Any]:
    """Dense indicators in their own dtype, each 0 or 1.

    Parameters
    ----------
    Y : array-like or sparse matrix of shape (n_samples, n_labels)
        Or of shape (n_samples,) without `ensure_2d`.
    name : str
        What messages call it.
    ensure_2d : bool, default=True

    Returns
    -------
    ndarray of the shape of Y

    Raises
    ------
    ValueError
        If Y has another shape, is empty, or holds anything but 0 and 1.

    Examples
    --------
    >>> from sklearn_difffeat._indicator import check_indicator
    >>> check_indicator([[0, 1], [1, 1]], "y").sum(axis=0)
    array([1, 2])
    """
    Y = check_array(Y, accept_sparse=True, ensure_2d=ensure_2d, input_name=name)
    dense = Y.toarray() if sparse.issparse(Y) else Y
    wrong = ~np.isin(dense, (0, 1))
    if wrong.any():
        where = tuple(np.argwhere(wrong)[0])
        raise ValueError(
            f"{name} holds values other than 0 and 1, first {dense[where]} in row "
            f"{where[0]}; give 1 where a label is present and 0 elsewhere."
        )
    return dense
