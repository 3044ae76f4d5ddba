"""One decision threshold per label, tuned by cross-validation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn import get_config
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    MetaEstimatorMixin,
    _fit_context,
    clone,
)
from sklearn.model_selection import check_cv, cross_val_predict
from sklearn.utils import Tags, get_tags, indexable
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    process_routing,
)
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted


class TunedThresholdsClassifierCV(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """Multi-label classifier with a decision threshold of its own for every label.

    :class:`~sklearn.model_selection.TunedThresholdClassifierCV` does this for binary
    y. Here every label gets the threshold that is best on the probabilities of rows
    that cross-validation held out; the estimator is then fitted on all rows.

    Parameters
    ----------
    estimator : estimator
        Its ``predict_proba`` gives an array of shape (n_samples, n_labels).
    scoring : {"f1", "balanced_accuracy"}, default="f1"
        What the threshold of a label maximises.
    cv : int, cross-validation generator or iterable, default=None
        As for :func:`~sklearn.model_selection.cross_val_predict`.
    n_jobs : int, default=None
        Folds fitted at the same time.

    Attributes
    ----------
    estimator_ : estimator
        Fitted on all rows.
    best_thresholds_ : ndarray of shape (n_labels,)
        A label is present where its probability is at least this; 0.5 for a label
        that is constant in y.
    best_scores_ : ndarray of shape (n_labels,)
        Score of each label on the held-out rows, at its threshold; NaN where constant.
    classes_ : ndarray of shape (n_labels,)

    Examples
    --------
    >>> from sklearn.datasets import make_multilabel_classification
    >>> from sklearn_difffeat import FusionClassifier
    >>> from sklearn_difffeat.thresholds import TunedThresholdsClassifierCV
    >>> X, Y = make_multilabel_classification(n_classes=3, random_state=0)
    >>> model = TunedThresholdsClassifierCV(FusionClassifier()).fit(X, Y)
    >>> model.best_thresholds_.shape, model.predict(X).shape
    ((3,), (100, 3))
    """

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012
        "estimator": [HasMethods(["fit", "predict_proba"])],
        "scoring": [StrOptions({"f1", "balanced_accuracy"})],
        "cv": ["cv_object"],
        "n_jobs": [int, None],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        scoring: str = "f1",
        cv: Any = None,
        n_jobs: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.scoring = scoring
        self.cv = cv
        self.n_jobs = n_jobs

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any, **params: Any) -> TunedThresholdsClassifierCV:
        """Tune the thresholds, and fit the estimator on all rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like or sparse matrix of shape (n_samples, n_labels)
            Indicator matrix of 0 and 1.
        **params : dict
            ``groups`` for the splitter, the rest for the estimator's ``fit``; with
            metadata routing, to whichever asks for it.

        Returns
        -------
        TunedThresholdsClassifierCV
            The fitted estimator.

        Raises
        ------
        ValueError
            If y is not an indicator matrix, or the probabilities are no matrix.
        """
        X, y = indexable(X, y)
        kind = type_of_target(y, input_name="y")
        if kind != "multilabel-indicator":
            raise ValueError(
                "Only multilabel-indicator targets are supported, got a target of "
                f"type {kind}; use TunedThresholdClassifierCV of scikit-learn for a "
                "binary one."
            )
        y = y.toarray() if (was_sparse := sparse.issparse(y)) else np.asarray(y)
        if get_config()["enable_metadata_routing"]:
            routed = process_routing(self, "fit", **params)
            split, fit = routed.splitter.split, routed.estimator.fit
        else:
            split = {"groups": params.pop("groups", None)}
            fit = params
        cv = check_cv(self.cv, y, classifier=True)
        proba = cross_val_predict(
            self.estimator,
            X,
            y,
            cv=list(cv.split(X, y, **split)),
            n_jobs=self.n_jobs,
            method="predict_proba",
            params=fit,
        )
        if isinstance(proba, list):
            raise ValueError(
                f"predict_proba of {type(self.estimator).__name__} gives one array per "
                "label, but one array of shape (n_samples, n_labels) is needed; wrap "
                "the classifier in OneVsRestClassifier or use FusionClassifier."
            )
        best = [
            best_threshold(label, p, self.scoring)
            for label, p in zip(y.T, proba.T, strict=True)
        ]
        self.estimator_ = clone(self.estimator).fit(X, y, **fit)
        self.best_thresholds_, self.best_scores_ = np.array(best).T
        self.classes_ = np.arange(y.shape[1])
        self._sparse_target = was_sparse
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Probabilities of the labels, those of the estimator.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_labels)
        """
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    def predict(self, X: ArrayLike) -> Any:
        """Labels whose probability reaches their threshold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray or CSR of shape (n_samples, n_labels)
            Sparse if y was.
        """
        indicator = (self.predict_proba(X) >= self.best_thresholds_).astype(np.int64)
        return sparse.csr_matrix(indicator) if self._sparse_target else indicator

    def get_metadata_routing(self) -> MetadataRouter:
        """Where ``fit`` sends its metadata.

        Returns
        -------
        MetadataRouter
        """
        return (
            MetadataRouter(owner=self)
            .add(
                estimator=self.estimator,
                method_mapping=MethodMapping().add(caller="fit", callee="fit"),
            )
            .add(
                splitter=check_cv(self.cv),
                method_mapping=MethodMapping().add(caller="fit", callee="split"),
            )
        )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.classifier_tags.multi_class = False
        tags.input_tags = get_tags(self.estimator).input_tags
        return tags


def best_threshold(
    label: NDArray[Any], proba: NDArray[Any], scoring: str
) -> tuple[float, float]:
    """The threshold of one label with the best score, and that score.

    Parameters
    ----------
    label : ndarray of shape (n_samples,), 0 or 1
    proba : ndarray of shape (n_samples,)
    scoring : {"f1", "balanced_accuracy"}

    Returns
    -------
    threshold, score : float
        Halfway between two probabilities; 0.5 and NaN for a constant label.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_difffeat.thresholds import best_threshold
    >>> best_threshold(np.array([0, 1, 1]), np.array([0.1, 0.2, 0.6]), "f1")
    (0.15..., 1.0)
    """
    n_positive = label.sum()
    n_negative = len(label) - n_positive
    if not n_positive or not n_negative:
        return 0.5, np.nan
    order = np.argsort(-proba, kind="stable")
    ranked = proba[order].astype(np.float64)
    hits, called = np.cumsum(label[order]), np.arange(1, len(label) + 1)
    if scoring == "f1":
        score = 2 * hits / (called + n_positive)
    else:
        score = 0.5 * (hits / n_positive + 1 - (called - hits) / n_negative)
    below = np.append(ranked[1:], 0.0)
    # Rows of equal probability are called together.
    score = np.where(ranked > below, score, -1.0)
    best = int(score.argmax())
    return float(0.5 * (ranked[best] + below[best])), float(score[best])
