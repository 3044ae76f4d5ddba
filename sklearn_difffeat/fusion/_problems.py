"""The objectives of FusionClassifier.

Everything works on columns of a matrix ``theta``: each column is a problem of its own.
Binary labels share no parameter, so they are many columns, and go over the data in the
same matrix products; softmax and factorised problems are one flattened column.

Logits are linear in the weights, so a problem keeps those of its point and of its
step: a step costs two passes over the data, and trying other lengths of it none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sklearn_difffeat.fusion._data import Float
from sklearn_difffeat.fusion._lbfgs import EVERY
from sklearn_difffeat.fusion._loss import LabelledRows
from sklearn_difffeat.modalities._array import Columns


class LinearProblem:
    """``C * loss(X @ W + b) + 0.5 * ||W||^2`` over ``theta = [W; b]``.

    The objective of :class:`~sklearn.linear_model.LogisticRegression`, whose loss is
    the sum over the rows of the log loss in nats; intercepts are not penalised.

    Parameters
    ----------
    rows : LabelledRows
    labels : slice
        Columns of the indicators to fit; softmax takes them all.
    start : ndarray of shape (r + 1, L), float64, default=None
        Weights and intercepts of all labels; None starts from 0 and the frequencies.

    Attributes
    ----------
    theta : ndarray of shape (r + 1, m), float64
        One label a column; for softmax the same numbers as one column.
    """

    def __init__(
        self, rows: LabelledRows, labels: slice = EVERY, start: Float | None = None
    ) -> None:
        self._rows = rows
        self._labels = np.arange(rows.n_labels)[labels]
        if start is None:
            prior = rows.prior[self._labels]
            start = np.vstack([np.zeros((rows.n_features, len(prior))), prior])
            self._logits = rows.put(np.tile(prior, (rows.n_rows, 1)))
        else:
            start = start[:, self._labels]
            self._logits = rows.product(start[:-1]) + rows.put(start[-1])
        self.theta = self._flat(start)

    def _flat(self, matrix: Float) -> Float:
        return matrix.reshape(-1, 1) if self._rows.softmax else matrix

    def matrix(self, theta: Float) -> Float:
        """Parameters of one label a column."""
        return theta.reshape(-1, self._rows.n_labels) if self._rows.softmax else theta

    def start(self) -> tuple[Float, Float]:
        self._step, self._slope = np.zeros_like(self.theta), self._logits
        self._curvature = np.empty(len(self._labels))
        return self.evaluate(np.zeros(self.theta.shape[1]), EVERY)

    def aim(self, step: Float) -> None:
        self._step = step
        matrix = self.matrix(step)
        self._slope = self._rows.product(matrix[:-1])
        self._slope += self._rows.put(matrix[-1])

    def _own(self, columns: Columns) -> Columns:
        """Labels of the problems: all of them where the classes are one problem."""
        return EVERY if self._rows.softmax else columns

    def _at(self, rows: slice, size: Any, columns: Columns) -> Any:
        start, slope = self._logits[rows], self._slope[rows]
        if columns is not EVERY:
            start, slope = start[:, columns], slope[:, columns]
        return start + size * slope

    def value(self, size: Float, columns: Columns) -> Float:
        data = self._rows
        put, own = data.put(size), self._own(columns)
        labels = self._labels[own]
        value = sum(
            data.get(data.loss(self._at(rows, put, own), rows, labels))
            for rows in data.chunks
        )
        return data.C * value + self._penalty(size, columns)[0]

    def evaluate(self, size: Float, columns: Columns) -> tuple[Float, Float]:
        data = self._rows
        put, own = data.put(size), self._own(columns)
        labels = self._labels[own]
        value, curvature = np.zeros(len(size)), np.zeros(len(labels))
        gradient = np.zeros((data.n_features + 1, len(labels)))
        for rows in data.chunks:
            logits = self._at(rows, put, own)
            part, residual, curved = data.slopes(logits, rows, labels)
            value += data.get(part)
            curvature += data.get(curved)
            gradient[:-1] += data.get(data.X[rows].T @ residual)
            gradient[-1] += data.get(residual.sum(0, dtype=data.xp.float64))
        self._curvature[own] = data.C * curvature
        penalty, W = self._penalty(size, columns)
        gradient *= data.C
        gradient[:-1] += W
        return data.C * value + penalty, self._flat(gradient)

    def _penalty(self, size: Float, columns: Columns) -> tuple[Float, Float]:
        point = self.theta[:, columns] + size * self._step[:, columns]
        W = self.matrix(point)[:-1]
        return 0.5 * (W**2).sum(axis=None if self._rows.softmax else 0), W

    def move(self, size: Float) -> None:
        self.theta = self.theta + size * self._step
        self._slope *= self._rows.put(size)
        self._logits += self._slope

    def keep(self, columns: Columns) -> None:
        self.theta = self.theta[:, columns]
        if not self._rows.softmax:
            self._labels = self._labels[columns]
            self._curvature = self._curvature[columns]
            self._logits = self._logits[:, columns]

    def precondition(self, gradient: Float) -> Float:
        matrix = self.matrix(gradient)
        curvature = self._curvature
        step = np.empty_like(matrix)
        step[:-1] = self._rows.axes.solve(matrix[:-1], curvature)
        step[-1] = matrix[-1] / np.maximum(curvature, 1e-12)
        return self._flat(step)


class FactorizedProblem:
    """``C * loss(X @ P @ H + b) + 0.5 * (||P||^2 + ||H||^2)``, one problem.

    At a minimum the penalty is the trace norm of P @ H [1]_. The problem is not convex:
    another start may end elsewhere.

    Parameters
    ----------
    rows : LabelledRows
    P, H, b : ndarrays of shape (r, rank), (rank, L) and (L,), float64
        Start.

    Attributes
    ----------
    theta : ndarray of shape (r * rank + rank * L + L, 1), float64
        P, H and b end to end.

    References
    ----------
    .. [1] Srebro, Rennie, Jaakkola (2004). Maximum-margin matrix factorization.
       Advances in Neural Information Processing Systems 17.
    """

    def __init__(self, rows: LabelledRows, P: Float, H: Float, b: Float) -> None:
        self._rows = rows
        self._shapes = [P.shape, H.shape, (1, len(b))]
        self._cuts = np.cumsum([P.size, H.size])
        self._labels = np.arange(rows.n_labels)
        self.theta = self._pack(P, H, b)
        self._fused = rows.product(P)

    def _pack(self, P: Float, H: Float, b: Float) -> Float:
        return np.concatenate([P.ravel(), H.ravel(), b.ravel()])[:, None]

    def unpack(self, theta: Float) -> tuple[Float, Float, Float]:
        """Projection (r, rank), heads (rank, L) and intercepts (1, L)."""
        parts = np.split(theta.ravel(), self._cuts)
        P, H, b = (
            part.reshape(shape) for part, shape in zip(parts, self._shapes, strict=True)
        )
        return P, H, b

    def start(self) -> tuple[Float, Float]:
        self.aim(np.zeros_like(self.theta))
        return self.evaluate(np.zeros(1), EVERY)

    def aim(self, step: Float) -> None:
        self._step = step
        self._slope = self._rows.product(self.unpack(step)[0])

    def value(self, size: Float, columns: Columns) -> Float:
        data, point = self._rows, self.theta + size * self._step
        _, H, b = (data.put(part) for part in self.unpack(point))
        value = 0.0
        for rows in data.chunks:
            fused = self._fused[rows] + data.put(size) * self._slope[rows]
            value = value + data.get(data.loss(fused @ H + b, rows, self._labels)).sum()
        return data.C * value + self._penalty(point)

    def evaluate(self, size: Float, columns: Columns) -> tuple[Float, Float]:
        data, point = self._rows, self.theta + size * self._step
        P, H, b = self.unpack(point)
        weights, intercepts = data.put(H), data.put(b)
        value, curvature, energy = 0.0, np.zeros(data.n_labels), np.zeros(P.shape[1])
        by_P, by_H, by_b = np.zeros_like(P), np.zeros_like(H), np.zeros_like(b)
        for rows in data.chunks:
            fused = self._fused[rows] + data.put(size) * self._slope[rows]
            logits = fused @ weights + intercepts
            part, residual, curved = data.slopes(logits, rows, self._labels)
            value = value + data.get(part).sum()
            curvature += data.get(curved)
            energy += data.get((data.weight[rows] * fused**2).sum(0))
            by_P += data.get(data.X[rows].T @ (residual @ weights.T))
            by_H += data.get(fused.T @ residual)
            by_b += data.get(residual.sum(0, dtype=data.xp.float64))
        self._curvature, self._energy, self._heads = data.C * curvature, energy, H
        gradient = self._pack(data.C * by_P + P, data.C * by_H + H, data.C * by_b)
        return data.C * value + self._penalty(point), gradient

    def _penalty(self, point: Float) -> Float:
        return 0.5 * (point[: self._cuts[1]] ** 2).sum(axis=0)

    def move(self, size: Float) -> None:
        self.theta = self.theta + size * self._step
        self._fused = self._fused + self._rows.put(size) * self._slope

    def keep(self, columns: Columns) -> None:
        """One problem: none is left to keep."""

    def precondition(self, gradient: Float) -> Float:
        data, curvature = self._rows, self._curvature
        by_P, by_H, by_b = self.unpack(gradient)
        return self._pack(
            data.axes.solve(by_P, self._heads**2 @ curvature),
            by_H / (np.outer(self._energy, curvature / data.weight_sum) + 1),
            by_b / np.maximum(curvature, 1e-12),
        )
