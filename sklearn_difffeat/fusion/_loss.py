"""The data of FusionClassifier's fit, and the log loss of its labels or classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_difffeat._process import refuse_inherited_gpu, uses_torch
from sklearn_difffeat.fusion._lbfgs import Float
from sklearn_difffeat.fusion._principal_axes import PrincipalAxes, row_chunks

# Products of fewer rows are slower, longer temporary arrays leave the caches.
_MIN_ROWS, _CHUNK_ENTRIES = 2048, 1 << 17


class LabelledRows:
    """Rows, their labels and weights, on numpy or on a torch device.

    Parameters
    ----------
    X : ndarray of shape (n, r), float32 or float64
    Y : ndarray of shape (n, L), 0 or 1
    C : float
    sample_weight : ndarray of shape (n,)
    axes : PrincipalAxes
        Those of X.
    label_weight : ndarray of shape (2, L) or None, default=None
        Weight of the negatives and of the positives of each label.
    softmax : bool, default=False
        The columns of Y are the classes of one target, not labels of their own.
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
        axes: PrincipalAxes,
        label_weight: Float | None = None,
        softmax: bool = False,
        device: str | None = None,
    ) -> None:
        self.C, self.softmax, self.axes = C, softmax, axes
        self.n_rows, self.n_features = X.shape
        self.n_labels = Y.shape[1]
        self.weight_sum, self.itemsize = sample_weight.sum(), X.dtype.itemsize
        self.xp, self.put, self.get = _array_library(device, X.dtype)
        counts = weighted_counts(Y, sample_weight)
        counts = counts if label_weight is None else counts * label_weight
        log_counts = np.log(np.maximum(counts, 1e-12))
        # Intercepts that give the weighted label frequencies.
        self.prior = log_counts[1] - (0 if softmax else log_counts[0])
        self.X, self._Y = self.put(X), self.put(Y)
        self.weight = self.put(sample_weight[:, None])
        self._label_weight = None if label_weight is None else self.put(label_weight)
        self.chunks = row_chunks(self.n_rows, self.n_labels, _CHUNK_ENTRIES, _MIN_ROWS)

    def product(self, W: Float) -> Any:
        """X @ W on the device."""
        return self.X @ self.put(W)

    def curvature(self, W: Float, b: Float) -> Float:
        """Second derivatives of the losses by the logits, summed over the rows."""
        logits = self.product(W) + self.put(b)
        labels = np.arange(self.n_labels)
        parts = [self.slopes(logits[r], r, labels)[2] for r in self.chunks]
        return self.C * np.sum([self.get(part) for part in parts], axis=0)

    def _labels(self, rows: slice, labels: NDArray[np.intp]) -> tuple[Any, Any]:
        """Indicators, and weights of the decisions."""
        Y, weight, by_label = self._Y[rows], self.weight[rows], self._label_weight
        if len(labels) < self.n_labels:
            Y = Y[:, labels]
            by_label = None if by_label is None else by_label[:, labels]
        if by_label is not None:
            weight = weight * (by_label[0] * (1 - Y) + by_label[1] * Y)
        return Y, weight

    def loss(self, logits: Any, rows: slice, labels: NDArray[np.intp]) -> Any:
        """Weighted loss of each label, or of the classes together."""
        Y, weight = self._labels(rows, labels)
        xp = self.xp
        if self.softmax:
            shifted = logits - xp.amax(logits, 1)[:, None]
            value = xp.log(xp.exp(shifted).sum(1))[:, None]
            value = value - (Y * shifted).sum(1)[:, None]
        else:
            value = xp.log1p(xp.exp(-xp.abs(logits))) + logits.clip(min=0) - Y * logits
        return (weight * value).sum(0, dtype=xp.float64)

    def slopes(
        self, logits: Any, rows: slice, labels: NDArray[np.intp]
    ) -> tuple[Any, Any, Any]:
        """Weighted loss, its first derivatives (n, L), and the sum of the second."""
        Y, weight = self._labels(rows, labels)
        xp = self.xp
        if self.softmax:
            shifted = logits - xp.amax(logits, 1)[:, None]
            proba = xp.exp(shifted)
            total = proba.sum(1)[:, None]
            proba = proba / total
            value = xp.log(total) - (Y * shifted).sum(1)[:, None]
        else:
            tail = xp.exp(-xp.abs(logits))
            value = xp.log1p(tail) + logits.clip(min=0) - Y * logits
            proba = xp.where(logits >= 0, 1.0, tail) / (1 + tail)
        residual = weight * (proba - Y)
        value = (weight * value).sum(0, dtype=xp.float64)
        curvature = (weight * (proba * (1 - proba))).sum(0, dtype=xp.float64)
        return value, residual, curvature


def weighted_counts(Y: NDArray[Any], sample_weight: Float) -> Float:
    """Weight (2, L) of the rows without and with each label."""
    chunks = row_chunks(*Y.shape)
    positives = np.sum([sample_weight[rows] @ Y[rows] for rows in chunks], axis=0)
    return np.vstack([sample_weight.sum() - positives, positives])


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

    uses_torch()
    refuse_inherited_gpu(device)
    return (
        torch,
        lambda a: torch.tensor(
            a if a.dtype.kind == "u" else a.astype(dtype, copy=False), device=device
        ),
        lambda a: a.cpu().numpy().astype(np.float64),
    )
