"""Folds of the rows that have a weight."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import (
    BaseCrossValidator,
    BaseShuffleSplit,
    PredefinedSplit,
)
from sklearn.model_selection._split import _CVIterableWrapper
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _check_method_params


def folds_of_rows(
    cv: Any, X: Any, y: NDArray[Any], params: dict[str, Any], rows: NDArray[np.intp]
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Folds of these rows, numbered among them.

    A splitter makes folds only of the rows that are left. Folds that the user gave as
    lists of row numbers keep their other rows.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.model_selection import KFold
    >>> from sklearn_difffeat._folds import folds_of_rows
    >>> X, y = np.zeros((5, 1)), np.zeros(5)
    >>> folds_of_rows(KFold(2), X, y, {}, np.array([0, 2, 4]))
    [(array([2]), array([0, 1])), (array([0, 1]), array([2]))]
    """
    numbers_rows = isinstance(cv, _CVIterableWrapper | PredefinedSplit)
    looks_at_rows = isinstance(cv, BaseCrossValidator | BaseShuffleSplit)
    if looks_at_rows and not numbers_rows:
        params = _check_method_params(X, params, rows)
        return list(cv.split(_safe_indexing(X, rows), y[rows], **params))
    # Row numbers that the user gave are those of the whole X.
    place = np.full(len(y), -1)
    place[rows] = np.arange(len(rows))
    folds = [
        tuple(part[part >= 0] for part in (place[np.asarray(i)] for i in fold))
        for fold in cv.split(X, y, **params)
    ]
    return [(train, test) for train, test in folds if len(test)]
