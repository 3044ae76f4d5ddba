"""The data of FusionClassifier's fit, and the log loss of its labels or classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_difffeat._process import refuse_inherited_gpu, uses_torch
from sklearn_difffeat.fusion._data import Float, row_chunks, weighted_counts
from sklearn_difffeat.fusion._principal_axes import (
    DiagonalAxes,
    PrincipalAxes,
    row_space,
)

# Products of fewer rows are slower; larger temporary arrays do not fit in the caches.
_MIN_ROWS, _CHUNK_ENTRIES = 2048, 1 << 17


class LabelledRows:
    """The problem of one fit: rows, labels and weights, on numpy or a torch device.

    Parameters
    ----------
    X : ndarray of shape (n, d), float32 or float64
        Standardised features; the matrix products keep their precision, sums over the
        rows are float64.
    Y : ndarray of shape (n, L), uint8
        1 where a row has the label, else 0.
    C : float
        Weight of the loss against half the squared norm of the weights.
    sample_weight : ndarray of shape (n,), float64
    label_weight : ndarray of shape (2, L), float64, or None, default=None
        Weight of the negatives and of the positives of each label.
    known : ndarray of shape (n, L), bool, or None, default=None
        Where it is known whether a row has a label; every sum over the rows of a label
        leaves out the others. None means everywhere.
    softmax : bool, default=False
        The columns of Y are the classes of one target, not separate labels.
    device : str or None, default=None
        Torch device of the matrix products; None computes with numpy.
    seed : int, RandomState instance or None, default=0
        As for :class:`PrincipalAxes`.
    axes : DiagonalAxes, default=None
        The axes of X, if its columns are already principal axes of other columns.
    rotation : ndarray of shape (d, r), default=None
        Turns weights of the axes into weights of these columns.

    Attributes
    ----------
    rotation : ndarray of shape (d, r) or None
        Turns weights of the r columns in which the rows are kept into weights of X;
        None if these are the same.
    axes : PrincipalAxes
        The axes of the r columns.
    prior : ndarray of shape (L,), float64
        Intercepts that give the weighted label frequencies.
    """

    def __init__(
        self,
        X: NDArray[Any],
        Y: NDArray[np.uint8],
        *,
        C: float,
        sample_weight: Float,
        label_weight: Float | None = None,
        known: NDArray[np.bool_] | None = None,
        softmax: bool = False,
        device: str | None = None,
        seed: Any = 0,
        axes: DiagonalAxes | None = None,
        rotation: NDArray[Any] | None = None,
    ) -> None:
        self.rotation = rotation
        if axes is None:
            X, self.rotation = row_space(X)
            axes = PrincipalAxes(X, sample_weight, seed)
        self.axes: DiagonalAxes = axes
        self.C, self.softmax = C, softmax
        (self.n_rows, self.n_features), self.n_labels = X.shape, Y.shape[1]
        self.weight_sum, self.dtype = sample_weight.sum(), X.dtype
        self.xp, self.put, self.get = _array_library(device, X.dtype)
        counts = weighted_counts(Y, sample_weight, known)
        counts = counts if label_weight is None else counts * label_weight
        log_counts = np.log(np.maximum(counts, 1e-12))
        self.prior = log_counts[1] - (0 if softmax else log_counts[0])
        self.X, self._Y = self.put(X), self.put(Y)
        self.weight = self.put(sample_weight[:, None])
        self._label_weight = None if label_weight is None else self.put(label_weight)
        self._known = None if known is None else self.put(known.view(np.uint8))
        self.chunks = row_chunks(self.n_rows, self.n_labels, _CHUNK_ENTRIES, _MIN_ROWS)

    def product(self, W: Float) -> Any:
        """X @ W on the device."""
        return self.X @ self.put(W)

    def curvature(self, W: Float, b: Float) -> Float:
        """Second derivatives (L,) of the losses by the logits, summed over the rows."""
        logits = self.product(W) + self.put(b)
        labels = np.arange(self.n_labels)
        parts = [self.slopes(logits[r], r, labels)[2] for r in self.chunks]
        return self.C * np.sum([self.get(part) for part in parts], axis=0)

    def _labels(self, rows: slice, labels: NDArray[np.intp]) -> tuple[Any, Any]:
        """Indicators, and weights of the decisions."""
        Y, weight, by_label = self._Y[rows], self.weight[rows], self._label_weight
        known = None if self._known is None else self._known[rows]
        if len(labels) < self.n_labels:
            Y = Y[:, labels]
            by_label = None if by_label is None else by_label[:, labels]
            known = None if known is None else known[:, labels]
        if by_label is not None:
            weight = weight * (by_label[0] * (1 - Y) + by_label[1] * Y)
        if known is not None:
            weight = weight * known
        return Y, weight

    def _losses(self, logits: Any, Y: Any) -> tuple[Any, Any]:
        """Loss of each decision, (n, L) or (n, 1), and probabilities (n, L)."""
        xp = self.xp
        if self.softmax:
            shifted = logits - xp.amax(logits, 1)[:, None]
            proba = xp.exp(shifted)
            total = proba.sum(1)[:, None]
            return xp.log(total) - (Y * shifted).sum(1)[:, None], proba / total
        tail = xp.exp(-xp.abs(logits))
        value = xp.log1p(tail) + logits.clip(min=0) - Y * logits
        return value, xp.where(logits >= 0, 1.0, tail) / (1 + tail)

    def loss(self, logits: Any, rows: slice, labels: NDArray[np.intp]) -> Any:
        """Weighted loss (m,) of each label, or (1,) of the classes together.

        `logits` of shape (n, m) are those of these rows and labels.
        """
        Y, weight = self._labels(rows, labels)
        return (weight * self._losses(logits, Y)[0]).sum(0, dtype=self.xp.float64)

    def slopes(
        self, logits: Any, rows: slice, labels: NDArray[np.intp]
    ) -> tuple[Any, Any, Any]:
        """Weighted loss, its first derivatives (n, m), and the sums (m,) of the second.

        The derivatives are those by the logits, for classes only the diagonal.
        """
        Y, weight = self._labels(rows, labels)
        value, proba = self._losses(logits, Y)
        value = (weight * value).sum(0, dtype=self.xp.float64)
        curvature = (weight * (proba * (1 - proba))).sum(0, dtype=self.xp.float64)
        return value, weight * (proba - Y), curvature


def _array_library(
    device: str | None, dtype: np.dtype[Any]
) -> tuple[Any, Callable[[Any], Any], Callable[[Any], Float]]:
    """Module of the array functions, and functions that convert to and from it."""
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
