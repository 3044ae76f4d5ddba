"""The rows that FusionClassifier learns from, checked and encoded."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_difffeat.fusion._data import (
    Float,
    class_weights,
    column_moments,
    weighted_counts,
)
from sklearn_difffeat.fusion._loss import LabelledRows
from sklearn_difffeat.modalities._array import Columns, Layout


@dataclass(frozen=True)
class TrainingRows:
    """Features, targets and weights of the rows with a weight.

    Attributes
    ----------
    number : ndarray of shape (n,), int
        Number of each row, among the rows given to fit.
    X : ndarray or CSR of shape (n, d)
    target : ndarray or CSR of shape (n,) or (n, L)
        y as it was given, but 0 where it is not known.
    kind : {"binary", "multiclass", "indicator"}
    classes : ndarray of shape (n_classes,)
    Y : ndarray of shape (n, L), uint8
        Indicators of the labels, or of the classes; one column for binary y.
    known : ndarray of shape (n, L), bool, or None
        Where Y is known; None means everywhere.
    weight : ndarray of shape (n,), float64
    modalities : dict of str to slice or ndarray of int
    absent : ndarray of shape (n, n_modalities), bool, or None
    layout : tuple of (str, int) or None
        The layout that a ModalityArray has.
    declared : bool
        Whether the modalities were given, by a parameter or by X.
    """

    number: NDArray[np.intp]
    X: Any
    target: Any
    kind: str
    classes: NDArray[Any]
    Y: NDArray[np.uint8]
    known: NDArray[np.bool_] | None
    weight: Float
    modalities: dict[str, Columns]
    absent: NDArray[np.bool_] | None
    layout: Layout | None
    declared: bool

    def take(self, rows: NDArray[np.intp]) -> TrainingRows:
        """These rows alone."""
        return replace(
            self,
            number=self.number[rows],
            X=self.X[rows],
            target=self.target[rows],
            Y=self.Y[rows],
            known=None if self.known is None else self.known[rows],
            weight=self.weight[rows],
            absent=None if self.absent is None else self.absent[rows],
        )

    def class_weights(self, class_weight: Any) -> tuple[Float, Float | None]:
        """Weights of the rows, and of each label's negatives and positives, or None."""
        return class_weights(
            class_weight, self.kind, self.classes, self.Y, self.weight, self.known
        )

    def problem(
        self,
        X: NDArray[Any],
        varied: NDArray[np.bool_],
        class_weights: tuple[Float, Float | None],
        **options: Any,
    ) -> LabelledRows:
        """The fit of the labels that vary, to standardised features of these rows."""
        row_weight, label_weight = class_weights
        return LabelledRows(
            X,
            np.ascontiguousarray(self.Y[:, varied]),
            sample_weight=row_weight,
            label_weight=None if label_weight is None else label_weight[:, varied],
            known=None if self.known is None else self.known[:, varied],
            softmax=self.kind == "multiclass",
            **options,
        )

    def moments(self, standardize: bool) -> tuple[Float, Float]:
        """Numbers to subtract from the columns, and to divide them by, (d,) each."""
        mean, scale = column_moments(self.X, self.weight, self.modalities, self.absent)
        if standardize:
            return mean, scale
        return np.zeros_like(mean), np.ones_like(scale)

    def constants(self, *, warn: bool = True) -> tuple[NDArray[np.bool_], Float]:
        """Which labels vary (L,), and the constant logits (L,) of those that do not.

        The logit of a constant label is that after half a row of the other kind is
        added. A label without any known entry gets a probability just under a half.
        """
        negatives, positives = self.counts()
        varied = (negatives > 0) & (positives > 0)
        logits = np.where(positives > 0, 1.0, -1.0) * np.log1p(
            2 * (negatives + positives)
        )
        unheard = (negatives == 0) & (positives == 0)
        logits[unheard] = -1e-6
        n_constant = np.sum(~varied & ~unheard)
        if warn and n_constant:
            warnings.warn(
                f"{n_constant} of the {len(varied)} labels are constant in y; "
                "their constant is predicted.",
                stacklevel=5,
            )
        if warn and unheard.any():
            warnings.warn(
                f"{unheard.sum()} of the {len(varied)} labels are known for no row of "
                f"y, the first is label {unheard.argmax()}; they are predicted absent, "
                "with a probability of 0.5.",
                stacklevel=5,
            )
        return varied, logits

    def counts(self) -> Float:
        """Number (2, L) of rows known to be without and with each label, by weight."""
        return weighted_counts(self.Y, self.weight, self.known)
