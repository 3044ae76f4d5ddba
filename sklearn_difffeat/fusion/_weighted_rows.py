"""The same rows under several weights of their modalities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from sklearn_difffeat.fusion import _principal_axes
from sklearn_difffeat.fusion._data import Float, row_chunks
from sklearn_difffeat.fusion._principal_axes import DiagonalAxes
from sklearn_difffeat.modalities._array import Columns


class WeightedRows:
    """Rows in their principal axes, for any weights of the modalities.

    Weights of modalities scale the blocks of the Gram matrix, which is computed once:
    that of the columns, or of the rows where these are far fewer. The eigenvectors of
    the scaled matrix turn the rows to axes in which the preconditioner of every label
    and every C is diagonal, and the rotation does not change an L2 penalty.

    Parameters
    ----------
    X : ndarray of shape (n, d), float32 or float64
        Standardised features.
    sample_weight : ndarray of shape (n,), float64
        All positive.
    modalities : dict of str to slice or ndarray of int
    """

    def __init__(
        self, X: NDArray[Any], sample_weight: Float, modalities: dict[str, Columns]
    ) -> None:
        self._X, self._modalities = X, modalities
        self._root, self._weight_sum = np.sqrt(sample_weight), sample_weight.sum()
        n, d = X.shape
        self._small = min(n, d) <= _principal_axes._MAX_FULL
        # Axes of the columns may be computed in single precision, in half the time:
        # they are still orthonormal.
        self._by_rows = 4 * n < 3 * d or d > _principal_axes._MAX_FULL
        if not self._small:
            return
        if self._by_rows:
            self._grams = {
                name: _gram(X[:, columns].T, self._root, np.float64)
                for name, columns in modalities.items()
            }
        else:
            self._grams = {
                "all": _gram(X * self._root[:, None].astype(X.dtype), 1.0, X.dtype)
            }

    def turned(
        self, factor: Float
    ) -> tuple[NDArray[Any], DiagonalAxes | None, NDArray[Any] | None]:
        """Rows of ``X * factor`` in their principal axes.

        Parameters
        ----------
        factor : ndarray of shape (d,)
            Weight of each column, the same within a modality.

        Returns
        -------
        rows : ndarray of shape (n, r)
        axes : DiagonalAxes or None
        rotation : ndarray of shape (d, r) or None
            Turns weights of the r axes into weights of the columns. Beyond 4,096 rows
            and columns only the rows are given, as they are.
        """
        dtype = self._X.dtype
        if not self._small:
            return self._X * factor.astype(dtype), None, None
        if self._by_rows:
            moments, axes = _eigh(
                sum(
                    factor[columns][0] ** 2 * self._grams[name]
                    for name, columns in self._modalities.items()
                )
            )
            # The rest are rounding errors.
            kept = moments > len(moments) * np.finfo(float).eps * moments[-1]
            moments, axes = moments[kept], axes[:, kept]
            spread = np.sqrt(moments)
            rows = axes * spread / self._root[:, None]
            back = (axes / spread * self._root[:, None]).astype(dtype)
            rotation = (self._X.T @ back) * factor[:, None].astype(dtype)
        else:
            used = np.flatnonzero(factor)
            scaled = factor[used].astype(dtype)
            gram = self._grams["all"][np.ix_(used, used)] * np.outer(scaled, scaled)
            moments, axes = _eigh(gram)
            moments = np.maximum(moments, 0)
            rows = (self._X[:, used] * scaled) @ axes
            rotation = np.zeros((len(factor), len(used)), dtype)
            rotation[used] = axes
        diagonal = DiagonalAxes(moments.astype(np.float64), self._weight_sum)
        return np.ascontiguousarray(rows, dtype=dtype), diagonal, rotation


def _gram(X: NDArray[Any], weight: Any, dtype: Any) -> NDArray[Any]:
    """Sum of the outer products of the rows of ``X * weight``."""
    total = np.zeros((X.shape[1], X.shape[1]), dtype)
    for rows in row_chunks(*X.shape):
        part = (X[rows] * weight).astype(dtype, copy=False)
        total += part.T @ part
    return total


def _eigh(gram: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    return linalg.eigh(gram, driver="evd", overwrite_a=True, check_finite=False)
