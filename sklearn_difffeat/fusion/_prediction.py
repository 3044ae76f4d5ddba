"""What a fitted FusionClassifier says about rows."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse, special
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils.validation import check_is_fitted, validate_data

from sklearn_difffeat.fusion._data import absent_modalities, scaled_chunks
from sklearn_difffeat.fusion._input import MATRIX, densified_columns
from sklearn_difffeat.modalities._array import Columns, Layout


class FusedPrediction(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierMixin, BaseEstimator
):
    """Methods that need the fitted attributes of FusionClassifier only."""

    classes_: NDArray[Any]
    coef_: NDArray[Any]
    centered_intercept_: NDArray[Any]
    projections_: dict[str, NDArray[Any]]
    modalities_: dict[str, Columns]
    mean_: NDArray[np.float64]
    scale_: NDArray[np.float64]
    n_features_in_: int
    _kind: str
    _layout: Layout | None
    _declared: bool
    _sparse_target: bool

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """Logits of the labels or classes.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            1-D for binary y.

        Examples
        --------
        >>> from sklearn_difffeat import FusionClassifier
        >>> model = FusionClassifier().fit([[0], [1]], [0, 1])
        >>> model.decision_function([[0], [1]]).round(1)
        array([-0.7,  0.7])
        """
        logits = self._project(self._validate(X), self.coef_.T * self.scale_[:, None])
        logits += self.centered_intercept_
        return logits[:, 0] if self._kind == "binary" else logits

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Probabilities of the labels, each by itself, or of the classes.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_labels) or (n_samples, n_classes)

        Examples
        --------
        >>> from sklearn_difffeat import FusionClassifier
        >>> FusionClassifier().fit([[0], [1]], [0, 1]).predict_proba([[0.5]])
        array([[0.5, 0.5]])
        """
        logits = self.decision_function(X)
        if self._kind == "binary":
            return np.column_stack([special.expit(-logits), special.expit(logits)])
        if self._kind == "multiclass":
            return special.softmax(logits, axis=1)
        return special.expit(logits)

    def predict_log_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Logarithms of the probabilities, exact where they underflow.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_labels) or (n_samples, n_classes)

        Examples
        --------
        >>> from sklearn_difffeat import FusionClassifier
        >>> FusionClassifier().fit([[0], [1]], [0, 1]).predict_log_proba([[0.5]]).shape
        (1, 2)
        """
        logits = self.decision_function(X)
        if self._kind == "binary":
            return special.log_expit(np.column_stack([-logits, logits]))
        if self._kind == "multiclass":
            return special.log_softmax(logits, axis=1)
        return special.log_expit(logits)

    def predict(self, X: ArrayLike) -> Any:
        """Classes, or an indicator matrix that is sparse if y was.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,), or ndarray or CSR of shape (n_samples, n_labels)

        Examples
        --------
        >>> from sklearn_difffeat import FusionClassifier
        >>> FusionClassifier().fit([[0], [1]], ["no", "yes"]).predict([[2]])
        array(['yes'], dtype='<U3')
        """
        logits = self.decision_function(X)
        if self._kind == "indicator":
            # Not logits >= 0: the probability of a tiny negative one rounds to 0.5.
            indicator = (special.expit(logits) >= 0.5).astype(np.int64)
            return sparse.csr_matrix(indicator) if self._sparse_target else indicator
        if self._kind == "binary":
            return self.classes_[(logits > 0).astype(np.intp)]
        return self.classes_[logits.argmax(axis=1)]

    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Fused representation: the sum of the projected modalities.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, k)
            The logits less their intercepts where `fusion_dim` is None.

        Examples
        --------
        >>> from sklearn_difffeat import FusionClassifier
        >>> FusionClassifier().fit([[0], [1]], [0, 1]).transform([[0.5]]).round() + 0
        array([[0.]])
        """
        return self._project(self._validate(X), self._projection())

    def modality_contributions(self, X: ArrayLike) -> dict[str, NDArray[Any]]:
        """Each modality's share of every logit.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        dict of str to ndarray of shape (n_samples, n_outputs)
            Together with ``centered_intercept_`` they add up to the logits. A
            modality that a row lacks has the share 0.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn_difffeat import FusionClassifier
        >>> model = FusionClassifier(modalities={"image": 1, "text": 1})
        >>> _ = model.fit([[0, 0], [1, 0], [0, 1], [1, 1]], [0, 0, 0, 1])
        >>> shares = model.modality_contributions([[1, np.nan]])
        >>> shares["image"] > 0, shares["text"]
        (array([[ True]]), array([[0.]]))
        """
        data = self._validate(X)
        if not self._declared:
            warnings.warn(
                "X came to fit without modalities, so all columns are one; pass "
                "modalities= or build the model with make_fusion_pipeline.",
                stacklevel=2,
            )
        weights = self.coef_.T * self.scale_[:, None]
        return {
            name: self._project(data, weights[columns], columns)
            for name, columns in self.modalities_.items()
        }

    def __sklearn_is_fitted__(self) -> bool:
        # A fit that was interrupted has set n_features_in_ already.
        return hasattr(self, "coef_")

    @property
    def _n_features_out(self) -> int:
        return next(iter(self.projections_.values())).shape[1]

    def _validate(self, X: Any) -> NDArray[Any]:
        check_is_fitted(self)
        layout = getattr(X, "_layout", None)
        X = validate_data(self, densified_columns(X), reset=False, **MATRIX)
        if layout and self._layout and layout != self._layout:
            raise ValueError(
                f"The modalities of X should match those of fit: X has {layout}, fit "
                f"had {self._layout}; stack them in the same order and widths."
            )
        absent_modalities(X, self.modalities_, self._declared)
        return X

    def _projection(self) -> NDArray[Any]:
        result = np.empty((self.n_features_in_, self._n_features_out))
        for name, owned in self.modalities_.items():
            result[owned] = self.projections_[name]
        return result

    def _project(
        self, X: NDArray[Any], weights: NDArray[Any], columns: Columns = slice(None)
    ) -> NDArray[Any]:
        weights = weights.astype(self.coef_.dtype)
        result = np.empty((X.shape[0], weights.shape[1]), dtype=self.coef_.dtype)
        mean, scale = self.mean_[columns], self.scale_[columns]
        for rows, block in scaled_chunks(X[:, columns], mean, scale):
            result[rows] = block.astype(self.coef_.dtype) @ weights
        return result
