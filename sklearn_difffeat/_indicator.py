"""One check of indicator matrices for classifiers, thresholds, scores and pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import check_array


def check_indicator(
    Y: Any, name: str, *, ensure_2d: bool = True, unknown: bool = False
) -> NDArray[Any]:
    """Dense indicators in their own dtype, each 0 or 1.

    Parameters
    ----------
    Y : array-like or sparse matrix of shape (n_samples, n_labels)
        Or of shape (n_samples,) without `ensure_2d`.
    name : str
        Its name in error messages.
    ensure_2d : bool, default=True
    unknown : bool, default=False
        Also take NaN, None and pandas.NA where a label is not known, as NaN.

    Returns
    -------
    ndarray of the shape of Y
        float64 if an entry is not known.

    Raises
    ------
    ValueError
        If Y has another shape, is empty, or holds anything but 0, 1 and what is
        taken as not known.

    Examples
    --------
    >>> from sklearn_difffeat._indicator import check_indicator
    >>> check_indicator([[0, 1], [1, 1]], "y").sum(axis=0)
    array([1, 2])
    >>> check_indicator([[0, None], [1, 1]], "y", unknown=True)
    array([[ 0., nan],
           [ 1.,  1.]])
    """
    known = None
    if unknown:
        Y, known = split_unknown(Y)
    Y = check_array(Y, accept_sparse=True, ensure_2d=ensure_2d, input_name=name)
    dense = Y.toarray() if sparse.issparse(Y) else Y
    wrong = ~np.isin(dense, (0, 1))
    if wrong.any():
        where = tuple(np.argwhere(wrong)[0])
        allowed = "" if known is None else ", and NaN where that is not known"
        raise ValueError(
            f"{name} holds values other than 0 and 1, first {dense[where]} in row "
            f"{where[0]}; give 1 where a label is present and 0 elsewhere{allowed}."
        )
    return dense if known is None else np.where(known, dense, np.nan)


def split_unknown(Y: Any) -> tuple[Any, NDArray[np.bool_] | None]:
    """Y with 0 for what is not known, and where it is known; None if all of it is.

    NaN, None and pandas.NA in a dense Y mean not known. A Y without any of them is
    returned unchanged.

    Examples
    --------
    >>> from sklearn_difffeat._indicator import split_unknown
    >>> split_unknown([[0, 1], [1, float("nan")]])
    (array([[0., 1.],
           [1., 0.]]), array([[ True,  True],
           [ True, False]]))
    """
    if sparse.issparse(Y):
        return Y, None
    if hasattr(Y, "isna"):
        gaps = np.asarray(Y.isna())
    else:
        try:
            gaps = pd.isna(np.asarray(Y))
        except ValueError:
            return Y, None  # Rows of different lengths: check_array says so.
    if not np.any(gaps) or np.ndim(gaps) == 0:
        return Y, None
    values = np.asarray(Y)
    if values.dtype.kind == "f":
        return np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf), ~gaps
    filled = np.where(gaps, 0, values)
    try:
        return filled.astype(np.float64), ~gaps
    except (TypeError, ValueError):
        return filled, ~gaps
