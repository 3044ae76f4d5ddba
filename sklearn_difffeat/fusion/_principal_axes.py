"""The curvature that all labels share: the second moments of the features."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from sklearn.utils.extmath import randomized_svd

from sklearn_difffeat.fusion._data import Float, row_chunks

_MAX_FULL, _N_LEADING = 4096, 256


class DiagonalAxes:
    """The columns themselves, where their second moments are diagonal.

    Parameters
    ----------
    moments : ndarray of shape (d,), float64
        Weighted sums of the squares of each column.
    weight_sum : float
        Sum of the weights of the rows.
    """

    def __init__(self, moments: Float, weight_sum: float) -> None:
        self._moments, self._weight_sum = moments[:, None], weight_sum

    def solve(self, gradient: Float, curvature: Float) -> Float:
        """Apply the inverse of ``I + curvature * X' W X / sum(W)``, column by column.

        Parameters
        ----------
        gradient : ndarray of shape (d, m), float64
        curvature : ndarray of shape (m,), float64
            Second derivative of the loss by the logits, summed over the rows.

        Returns
        -------
        ndarray of shape (d, m)
        """
        return gradient / (self._moments * (curvature / self._weight_sum) + 1)

    def logits_of(self, W: Float, curvature: float) -> Float:
        """A matrix with the norm that W has in the quadratic model of the loss.

        Parameters
        ----------
        W : ndarray of shape (d, L), float64
        curvature : float
            As for :meth:`solve`, the same for every label.

        Returns
        -------
        ndarray of shape (d, L), or (256 + d, L) where the axes were sketched
        """
        return np.sqrt(self._moments * (curvature / self._weight_sum) + 1) * W


class PrincipalAxes(DiagonalAxes):
    """Orthonormal axes in which the weighted second moments of X are diagonal.

    The Hessian of a logistic loss is near its mean curvature times these moments, for
    every label, so one eigendecomposition preconditions them all; [1]_ bounds the
    Hessian by the same moments. Beyond 4,096 columns a sketch [2]_ finds the leading
    256 axes, and the moments of all others are taken as their mean.

    Parameters
    ----------
    X : ndarray of shape (n, d), float32 or float64
        Moments and axes are computed in its precision.
    sample_weight : ndarray of shape (n,), float64
    seed : int, RandomState instance or None, default=0
        For the sketch.

    References
    ----------
    .. [1] Boehning (1992). Multinomial logistic regression algorithm. Annals of the
       Institute of Statistical Mathematics 44, 197-200.
    .. [2] Halko, Martinsson, Tropp (2011). Finding structure with randomness.
       arXiv:0909.4061.
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
        """As for :class:`DiagonalAxes`."""
        mean = curvature / self._weight_sum
        share = 1 / (self._moments * mean + 1)
        rest = 0.0 if self._tail is None else 1 / (self._tail * mean + 1)
        axes = self._axes
        seen = axes.T @ gradient.astype(axes.dtype)
        step = axes @ ((share - rest) * seen).astype(axes.dtype)
        return step if self._tail is None else step + rest * gradient

    def logits_of(self, W: Float, curvature: float) -> Float:
        """As for :class:`DiagonalAxes`."""
        mean = curvature / self._weight_sum
        seen = self._axes.T @ W
        logits = np.sqrt(self._moments * mean + 1) * seen
        if self._tail is None:
            return logits
        rest = np.sqrt(self._tail * mean + 1) * (W - self._axes @ seen)
        return np.vstack([logits, rest])


def row_space(X: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """X in orthonormal axes of its rows where these are few, and the axes or None.

    A rotation does not change an L2 penalty, and the weights of directions that no row
    has are 0 at the optimum [1]_.

    Parameters
    ----------
    X : ndarray of shape (n, d)

    Returns
    -------
    ndarray of shape (n, n) and ndarray of shape (d, n)
        Where n < d and n <= 4096, else X itself and None.

    References
    ----------
    .. [1] Hastie, Tibshirani (2004). Efficient quadratic regularization for expression
       arrays. Biostatistics 5, 329-340.
    """
    n, d = X.shape
    if n >= d or n > _MAX_FULL:
        return X, None
    axes, R = linalg.qr(X.T, mode="economic", check_finite=False)
    return np.ascontiguousarray(R.T), axes
