"""The objectives of FusionClassifier and their solution.

Everything works on columns of a matrix ``theta``: each column is a problem of its
own. Binary labels share no parameter, so they are many columns that pass the data in
the same matrix products; softmax and factorised problems are one flattened column.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from sklearn_difffeat._lbfgs import Columns, Float, minimize_lbfgs

_CHUNK_ENTRIES = 1 << 20
_MAX_ROTATION = 6000


def binary_loss(xp: Any, logits: Any, Y: Any, weight: Any) -> tuple[Any, Any, Any]:
    """Weighted log loss of each label: value (L,), residual and curvature (n, L)."""
    tail = xp.exp(-xp.abs(logits))
    value = xp.log1p(tail) + logits.clip(min=0) - Y * logits
    proba = xp.where(logits >= 0, 1.0, tail) / (1 + tail)
    return (
        (weight * value).sum(0, dtype=xp.float64),
        weight * (proba - Y),
        weight * proba * (1 - proba),
    )


def softmax_loss(xp: Any, logits: Any, Y: Any, weight: Any) -> tuple[Any, Any, Any]:
    """Weighted multinomial loss: value (1,), residual and curvature (n, L)."""
    shifted = logits - xp.amax(logits, 1)[:, None]
    proba = xp.exp(shifted)
    total = proba.sum(1)[:, None]
    proba = proba / total
    value = xp.log(total) - (Y * shifted).sum(1)[:, None]
    return (
        (weight * value).sum(0, dtype=xp.float64),
        weight * (proba - Y),
        weight * proba * (1 - proba),
    )


class LinearProblem:
    """``C * loss(X @ W + b) + 0.5 * ||W||^2`` over ``theta = [W; b]``.

    Parameters
    ----------
    X : ndarray of shape (n, r), float32 or float64
    Y : ndarray of shape (n, L), 0 or 1
    C : float
    sample_weight : ndarray of shape (n,)
    second_moments : ndarray of shape (r,)
        ``sample_weight @ X**2``, for the preconditioner.
    label_weight : ndarray of shape (2, L) or None, default=None
        Weight of the negatives and of the positives of each label.
    softmax : bool, default=False
        One multinomial problem over the columns of Y instead of one per column.
    device : str or None, default=None
        Torch device of the matrix products; None computes with numpy.
    """

    def __init__(
        self,
        X: NDArray[Any],
        Y: NDArray[Any],
        *,
        C: float,
        sample_weight: Float,
        second_moments: Float,
        label_weight: Float | None = None,
        softmax: bool = False,
        device: str | None = None,
    ) -> None:
        self.C, self.softmax = C, softmax
        self.second_moments, self.weight_sum = second_moments, sample_weight.sum()
        self.shape = (X.shape[1] + 1, Y.shape[1])
        self._loss = softmax_loss if softmax else binary_loss
        self._xp, self._put, self._get = _array_library(device, X.dtype)
        self._X, self._Y = self._put(X), self._put(Y)
        self._weight = self._put(sample_weight[:, None])
        counts = weighted_counts(Y, sample_weight)
        self._counts = counts if label_weight is None else counts * label_weight
        self._label_weight = None if label_weight is None else self._put(label_weight)
        self._chunks = _row_chunks(*Y.shape)

    def start(self) -> Float:
        """Weights of 0, and intercepts that give the weighted label frequencies."""
        theta = np.zeros(self.shape)
        log_counts = np.log(np.maximum(self._counts, 1e-12))
        theta[-1] = log_counts[1] - (0 if self.softmax else log_counts[0])
        return theta.reshape(-1, 1) if self.softmax else theta

    def evaluate(self, theta: Float, columns: Columns) -> tuple[Float, Float]:
        matrix = theta.reshape(self.shape) if self.softmax else theta
        value, gradient, _ = self.loss(matrix, columns)
        gradient[:-1] += matrix[:-1]
        squares = (matrix[:-1] ** 2).sum(axis=None if self.softmax else 0)
        return value + 0.5 * squares, gradient.reshape(theta.shape)

    def loss(
        self, theta: Float, columns: Columns, P: Float | None = None
    ) -> tuple[Float, Float, Float]:
        """``C * loss`` of X, or of X @ P, and its gradients by theta and by P."""
        gradient, curvature = np.zeros(theta.shape), np.zeros(theta.shape[1])
        slope = np.zeros((0, 0) if P is None else P.shape)
        value = np.zeros(1)
        W, b = self._put(theta[:-1]), self._put(theta[-1])
        projection = None if P is None else self._put(P)
        subset = not self.softmax and len(columns) < self.shape[1]
        label_weight = self._label_weight
        if subset and label_weight is not None:
            label_weight = label_weight[:, columns]
        for rows in self._chunks:
            X, Y, weight = self._X[rows], self._Y[rows], self._weight[rows]
            if subset:
                Y = Y[:, columns]
            if label_weight is not None:
                weight = weight * (label_weight[0] * (1 - Y) + label_weight[1] * Y)
            Z = X if projection is None else X @ projection
            part, residual, curved = self._loss(self._xp, Z @ W + b, Y, weight)
            value = value + self._get(part)
            gradient[:-1] += self._get(Z.T @ residual)
            gradient[-1] += self._get(residual.sum(0, dtype=self._xp.float64))
            curvature += self._get(curved.sum(0, dtype=self._xp.float64))
            if P is not None:
                slope += self.C * self._get(X.T @ (residual @ W.T))
        self.curvature = self.C * curvature
        return self.C * value, self.C * gradient, slope

    def nearest(self, W: Float, rank: int) -> Float:
        """W reduced to the rank in which it keeps most of its logits."""
        mean = self.curvature.mean() / self.weight_sum
        root = np.sqrt(self.second_moments * mean + 1)[:, None]
        Vt = linalg.svd(root * W, full_matrices=False)[2][:rank]
        return W @ Vt.T @ Vt

    def preconditioner(self) -> Float:
        mean = self.curvature / self.weight_sum
        rows = np.outer(self.second_moments, mean) + 1
        diagonal = np.vstack([rows, np.maximum(self.curvature, 1e-12)])
        return diagonal.reshape(-1, 1) if self.softmax else diagonal


class FactorizedProblem:
    """``C * loss(X @ P @ H + b) + 0.5 * (||P||^2 + ||H||^2)``, one problem.

    At a minimum the penalty is the trace norm of P @ H.

    Parameters
    ----------
    linear : LinearProblem
    rank : int
    """

    def __init__(self, linear: LinearProblem, rank: int) -> None:
        self._linear = linear
        r, L = linear.shape[0] - 1, linear.shape[1]
        self._cuts = [r * rank, (r + L) * rank]
        self._shapes = [(r, rank), (rank, L), (1, L)]
        self._labels = np.arange(L)

    def pack(self, P: Float, H: Float, b: Float) -> Float:
        """One column of parameters."""
        return np.concatenate([P.ravel(), H.ravel(), b.ravel()])[:, None]

    def unpack(self, theta: Float) -> tuple[Float, Float, Float]:
        """Projection (r, rank), heads (rank, L) and intercepts (1, L)."""
        parts = np.split(theta.ravel(), self._cuts)
        P, H, b = (a.reshape(s) for a, s in zip(parts, self._shapes, strict=True))
        return P, H, b

    def evaluate(self, theta: Float, columns: Columns) -> tuple[Float, Float]:
        P, H, b = self._at = self.unpack(theta)
        value, gradient, slope = self._linear.loss(np.vstack([H, b]), self._labels, P)
        penalty = 0.5 * ((P**2).sum() + (H**2).sum())
        packed = self.pack(slope + P, gradient[:-1] + H, gradient[-1])
        return np.atleast_1d(value.sum() + penalty), packed

    def preconditioner(self) -> Float:
        P, H, _ = self._at
        curvature = self._linear.curvature
        mean = curvature / self._linear.weight_sum
        moments = self._linear.second_moments
        return self.pack(
            np.outer(moments, H**2 @ mean) + 1,
            np.outer(moments @ P**2, mean) + 1,
            np.maximum(curvature, 1e-12),
        )


def _array_library(
    device: str | None, dtype: np.dtype[Any]
) -> tuple[Any, Callable[[Any], Any], Callable[[Any], Float]]:
    """Module of the array functions, and the ways into and out of its arrays."""
    if device is None:
        return (
            np,
            lambda a: np.asarray(a, dtype=a.dtype if a.dtype.kind == "u" else dtype),
            lambda a: np.asarray(a, dtype=np.float64),
        )
    import torch

    return (
        torch,
        lambda a: torch.tensor(a.astype(dtype, copy=False), device=device),
        lambda a: a.cpu().numpy().astype(np.float64),
    )


def _row_chunks(n_rows: int, n_columns: int) -> list[slice]:
    step = max(_CHUNK_ENTRIES // n_columns, 256)
    return [slice(i, i + step) for i in range(0, n_rows, step)]


def weighted_counts(Y: NDArray[Any], sample_weight: Float) -> Float:
    """Weight (2, L) of the rows without and with each label."""
    chunks = _row_chunks(*Y.shape)
    positives = np.sum([sample_weight[rows] @ Y[rows] for rows in chunks], axis=0)
    return np.vstack([sample_weight.sum() - positives, positives])


def principal_axes(
    X: NDArray[Any], sample_weight: Float
) -> tuple[NDArray[Any], Float, NDArray[Any] | None]:
    """Rotate X, in place where it can, so that its second moments are diagonal.

    An L2 penalty does not see a rotation, and in these axes one diagonal
    preconditions every label at once. With fewer rows than columns the directions
    that no row has are dropped: their weights are 0 at the optimum.

    Returns
    -------
    X : ndarray of shape (n, r)
    second_moments : ndarray of shape (r,)
    axes : ndarray of shape (d, r) or None
        Orthonormal columns, ``X @ axes`` is the first value; None means no rotation.
    """
    n, d = X.shape
    if min(n, d) > _MAX_ROTATION:
        return X, np.einsum("i,ij,ij->j", sample_weight, X, X), None
    axes = None
    if n < d:
        axes, R = linalg.qr(X.T, mode="economic", check_finite=False)
        X = np.ascontiguousarray(R.T)
    root = np.sqrt(sample_weight).astype(X.dtype)[:, None]
    chunks = _row_chunks(*X.shape)
    moments = np.zeros((X.shape[1], X.shape[1]))
    for rows in chunks:
        part = X[rows] * root[rows]
        moments += part.T @ part
    second, rotation = linalg.eigh(moments, overwrite_a=True, check_finite=False)
    rotation = rotation.astype(X.dtype)
    for rows in chunks:
        X[rows] = X[rows] @ rotation
    return X, np.maximum(second, 0), rotation if axes is None else axes @ rotation


def factors(W: Float, rank: int, drop: float = 1e-12) -> tuple[Float, Float]:
    """Balanced factors (r, rank) and (rank, L) of W, the same for any rotation.

    Singular values below `drop` times the largest count as zero.
    """
    U, s, Vt = linalg.svd(W, full_matrices=False)
    s = np.sqrt(np.where(s > drop * s[0], s, 0)[:rank])
    Vt = Vt[: len(s)]
    signs = np.sign(Vt[np.arange(len(s)), np.abs(Vt).argmax(axis=1)])
    P, H = np.zeros((len(W), rank)), np.zeros((rank, W.shape[1]))
    P[:, : len(s)] = U[:, : len(s)] * (s * signs)
    H[: len(s)] = Vt * (s * signs)[:, None]
    return P, H


def solve(
    problem: LinearProblem,
    *,
    rank: int | None,
    tol: float,
    max_iter: int,
    precision: float,
    verbose: bool = False,
) -> tuple[Float | None, Float, Float, int, int]:
    """Minimise the convex problem, and from it the factorised one.

    Parameters
    ----------
    problem : LinearProblem
    rank : int or None
    tol, max_iter, precision, verbose
        As in :func:`minimize_lbfgs`.

    Returns
    -------
    P : ndarray of shape (r, rank) or None
        None without `rank`: the heads act on the columns of X.
    H : ndarray of shape (rank or r, L)
    b : ndarray of shape (L,)
    n_iter, n_unfinished : int
    """
    options: dict[str, Any] = {
        "tol": tol,
        "max_iter": max_iter,
        "precision": precision,
        "verbose": verbose,
    }
    theta = problem.start()
    theta, n_iter, unfinished = minimize_lbfgs(problem, theta, **options)
    theta = theta.reshape(problem.shape)
    W, b = theta[:-1], theta[-1]
    P, H = None, W
    if rank is not None:
        used = min(rank, *W.shape)
        factorized = FactorizedProblem(problem, used)
        packed = factorized.pack(*factors(problem.nearest(W, used), used), b)
        packed, more, unfinished = minimize_lbfgs(factorized, packed, **options)
        P, H, intercept = factorized.unpack(packed)
        P, H = factors(P @ H, rank)
        b, n_iter = intercept[0], n_iter + more
    if problem.softmax:
        b = b - b.mean()
    return P, H, b, n_iter, unfinished
