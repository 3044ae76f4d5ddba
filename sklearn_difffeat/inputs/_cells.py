"""The kinds of X the transformers take, turned into a plain list of cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from scipy.sparse import issparse

Cells: TypeAlias = Sequence[Any] | np.ndarray
KINDS = (
    "a list, tuple, 1-D object array, pandas or polars Series, pyarrow column, or "
    "one-column DataFrame or table"
)


def in_row(error: Exception, row: int) -> Exception:
    """Return an error that says in which row of X it happened."""
    *details, message = error.args or ("",)
    try:
        return type(error)(*details, f"row {row} of X: {message}")
    except TypeError:
        # Some errors of libraries have other arguments than a message.
        return ValueError(f"row {row} of X: {error}")


def is_missing(cell: Any) -> bool:
    """Whether a cell stands for an absent value.

    None, NaN, NaT and pd.NA do, and so does ``{"bytes": None, "path": None}``, as in
    image columns of parquet files.
    """
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(cell, dict):
        has_both = "bytes" in cell and "path" in cell
        return has_both and is_missing(cell["bytes"]) and is_missing(cell["path"])
    return isinstance(cell, (float, np.floating)) and math.isnan(cell)


def _only_column(X: Any, names: Sequence[Any]) -> Any:
    if len(names) != 1:
        raise ValueError(
            f"X is a {type(X).__name__} with {len(names)} columns {list(names)[:5]}; "
            "pass one column, X['name'], or name it in a ColumnTransformer."
        )
    return X[names[0]]


def as_cells(X: Any, *, arrays: bool) -> Cells:
    """Return X as a sequence of cells, one a row.

    Parameters
    ----------
    X : object
        The user's X.
    arrays : bool
        Whether a numeric NHWC array is a sequence of cells (pictures).

    Raises
    ------
    TypeError
        When X is one cell instead of many, or of a kind not accepted.
    ValueError
        When X is empty or has more than one column.
    """
    if issparse(X):
        raise TypeError(f"X is a sparse {type(X).__name__}; pass {KINDS}.")
    if isinstance(X, (str, bytes, dict)) or hasattr(X, "getbands"):
        raise TypeError(
            f"X is a single {type(X).__name__}, not a column of cells; wrap it in a "
            f"list, [X] (accepted: {KINDS})."
        )
    if hasattr(X, "column_names") and hasattr(X, "__getitem__"):
        # pyarrow's tables and the datasets of the library of that name.
        X = _only_column(X, X.column_names)
    elif hasattr(X, "columns") and hasattr(X, "__getitem__") and hasattr(X, "shape"):
        X = _only_column(X, list(X.columns))
    if isinstance(X, (list, tuple)):
        cells: Cells = X
    elif isinstance(X, np.ndarray):
        cells = _cells_of_array(X, arrays)
    elif hasattr(X, "to_pylist"):
        cells = X.to_pylist()
    elif hasattr(X, "to_list"):
        cells = X.to_list()
    elif hasattr(X, "tolist"):
        cells = X.tolist()
    elif _is_lazy_sequence(X):
        cells = X
    else:
        raise TypeError(f"X is of type {type(X).__name__}; pass {KINDS}.")
    if len(cells) == 0:
        raise ValueError(
            "Found array with 0 sample(s) while a minimum of 1 is required; X is empty."
        )
    return cells


def _is_lazy_sequence(X: Any) -> bool:
    """Whether X creates cells when they are asked for, like a ``datasets.Column``."""
    not_cells = (Mapping, bytearray, memoryview, range)
    has_items = hasattr(X, "__len__") and hasattr(X, "__getitem__")
    return has_items and not isinstance(X, not_cells)


def _cells_of_array(X: np.ndarray, arrays: bool) -> Cells:
    if X.ndim == 2 and X.shape[1] == 1:
        X = X[:, 0]
    if X.ndim == 1:
        return X.tolist() if X.dtype.kind in "OUST" else list(X)
    if arrays and X.ndim == 4 and X.dtype != object:
        return X
    kinds = "a 4-D array (rows, height, width, channels), or " if arrays else ""
    raise ValueError(
        f"X is an array of shape {X.shape} and dtype {X.dtype}; pass {kinds}{KINDS}."
    )


def find_missing(cells: Cells) -> np.ndarray:
    """Return a boolean array, True where a cell is missing."""
    count = len(cells)
    plain = isinstance(cells, np.ndarray)
    if isinstance(cells, (list, tuple)):
        plain = not any(map(_may_be_missing, _kinds(cells)))
    if plain:
        return np.zeros(count, dtype=bool)
    return np.fromiter((is_missing(c) for c in cells), dtype=bool, count=count)


def all_strings(cells: Cells) -> bool:
    """Whether every cell is a str."""
    return isinstance(cells, (list, tuple)) and _kinds(cells) == {str}


def _kinds(cells: Cells) -> set[type]:
    return set(map(type, cells))


def _may_be_missing(kind: type) -> bool:
    return not issubclass(kind, (str, bytes, np.ndarray))
