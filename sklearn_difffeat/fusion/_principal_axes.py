"""The curvature that all labels share: the second moments of the features."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from sklearn.utils.extmath import randomized_svd

Float = NDArray[np.float64]

_MAX_FULL, _N_LEADING = 4096, 256


class PrincipalAxes:
    """Orthonormal axes in which the weighted second moments of X are diagonal.

    The Hessian of a logistic loss is near its mean curvature times these moments, for
    every label, so one eigendecomposition preconditions them all.

    Parameters
    ----------
    X : ndarray of shape (n, d)
    sample_weight : ndarray of shape (n,)
    seed : int, RandomState instance or None, default=0
        For the sketch that finds the leading axes where there are too many columns
        for all; the rest is taken as one value.
    """

    def __init__(self, X: NDArray[Any], sample_weight: Float, seed: Any = 0) -> None:
        self._weight_sum = sample_weight.sum()
        root = np.sqrt(sample_weight).astype(X.dtype)[:, None]
        d = X.shape[1]
        self._tail: float | None = None
        if d <= _MAX_FULL:
            moments = np.zeros((d, d), dtype=X.dtype)
            for rows in row_chunks(*X.shape):
                part = X[rows] * root[rows]
                moments += part.T @ part
            self._moments, self._axes = linalg.eigh(
                moments, driver="evd", overwrite_a=True, check_finite=False
            )
        else:
            part = X * root
            _, s, Vt = randomized_svd(part, _N_LEADING, n_iter=2, random_state=seed)
            self._moments, self._axes = s**2, np.ascontiguousarray(Vt.T)
            total = np.einsum("ij,ij->", part, part, dtype=np.float64)
            self._tail = max(total - self._moments.sum(), 0) / (d - _N_LEADING)
        self._moments = np.maximum(self._moments.astype(np.float64), 0)[:, None]

    def solve(self, gradient: Float, curvature: Float) -> Float:
        """Apply the inverse of ``1 + curvature * moments / weight`` by column."""
        mean = curvature / self._weight_sum
        share = 1 / (self._moments * mean + 1)
        rest = 0.0 if self._tail is None else 1 / (self._tail * mean + 1)
        axes = self._axes
        seen = axes.T @ gradient.astype(axes.dtype)
        step = axes @ ((share - rest) * seen).astype(axes.dtype)
        return step if self._tail is None else step + rest * gradient

    def logits_of(self, W: Float, curvature: float) -> Float:
        """A matrix with the norm that W has in the quadratic model of the loss."""
        mean = curvature / self._weight_sum
        seen = self._axes.T @ W
        logits = np.sqrt(self._moments * mean + 1) * seen
        if self._tail is None:
            return logits
        rest = np.sqrt(self._tail * mean + 1) * (W - self._axes @ seen)
        return np.vstack([logits, rest])


def row_space(X: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """X in orthonormal axes of its rows where these are few, and the axes or None.

    An L2 penalty does not see a rotation, and the weights of directions that no row
    has are 0 at the optimum.
    """
    n, d = X.shape
    if n >= d or n > _MAX_FULL:
        return X, None
    axes, R = linalg.qr(X.T, mode="economic", check_finite=False)
    return np.ascontiguousarray(R.T), axes


def row_chunks(
    n_rows: int, n_columns: int, n_entries: int = 1 << 20, least: int = 256
) -> list[slice]:
    """Slices of rows with about `n_entries` entries, and `least` rows or more."""
    step = max(n_entries // max(n_columns, 1), least)
    return [slice(i, i + step) for i in range(0, n_rows, step)]
