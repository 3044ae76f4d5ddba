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
from sklearn.metrics import confusion_matrix_at_thresholds
from sklearn.model_selection import check_cv
from sklearn.utils import Tags, _safe_indexing, column_or_1d, get_tags, indexable
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    process_routing,
)
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import (
    _check_method_params,
    _check_sample_weight,
    _num_samples,
    check_consistent_length,
    check_is_fitted,
)

from sklearn_difffeat._folds import folds_of_rows
from sklearn_difffeat._indicator import check_indicator, split_unknown

__all__ = ["TunedThresholdsClassifierCV", "best_threshold"]


# At every threshold: the weight of rows that are rightly called positive, and wrongly.
_SCORES = {
    "f1": lambda hits, misses: 2 * hits / (hits + misses + hits[-1]),
    "balanced_accuracy": lambda hits, misses: (
        0.5 * (hits / hits[-1] + 1 - misses / misses[-1])
    ),
}


def best_threshold(
    label: Any,
    proba: Any,
    scoring: str,
    sample_weight: ArrayLike | None = None,
) -> tuple[float, float]:
    """The threshold of one label with the best score, and that score.

    Parameters
    ----------
    label : array-like of shape (n_samples,), 0 or 1
        NaN where it is not known; such rows are left out.
    proba : array-like of shape (n_samples,)
    scoring : {"f1", "balanced_accuracy"}
    sample_weight : array-like of shape (n_samples,), default=None
        A weight of 2 counts a row twice, a weight of 0 leaves it out.

    Returns
    -------
    threshold, score : float
        ``proba >= threshold`` has this score, and no other threshold has a better one.
        The threshold is halfway between two probabilities, or between the lowest one
        and 0. It is the upper of the two if there is no number between them in their
        precision. 0.5 and NaN if, over the rows with a weight above 0, the label is
        constant or not known in any row.

    Raises
    ------
    ValueError
        If a probability is not finite, `label` holds anything but 0, 1 and NaN,
        `scoring` is none of these, or the weights are negative, not finite or all 0.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_difffeat.thresholds import best_threshold
    >>> best_threshold(np.array([0, 1, 1]), np.array([0.1, 0.2, 0.6]), "f1")
    (0.15..., 1.0)
    >>> best_threshold([0, 1, 0, 0], [0, 0, 0, 0], "f1")
    (0.0, 0.4)
    """
    if scoring not in _SCORES:
        raise ValueError(f"scoring is {scoring!r}; give one of {sorted(_SCORES)}.")
    label = check_indicator(label, "label", ensure_2d=False, unknown=True)
    label = column_or_1d(label)
    proba = column_or_1d(proba)
    check_consistent_length(label, proba)
    if proba.dtype not in (np.float16, np.float32):
        proba = proba.astype(np.float64)
    finite = np.isfinite(proba)
    if not finite.all():
        row = int(finite.argmin())
        raise ValueError(
            f"proba is {proba[row]} in row {row}; give finite probabilities."
        )
    weight = None
    if sample_weight is not None:
        weight = _check_sample_weight(
            sample_weight, proba, dtype=np.float64, ensure_non_negative=True
        )
    known = ~np.isnan(label)
    if not known.all():
        label, proba = label[known], proba[known]
        weight = None if weight is None else weight[known]
        if not len(label) or (weight is not None and not weight.any()):
            return 0.5, np.nan
    _, misses, _, hits, cuts = confusion_matrix_at_thresholds(
        label, proba, pos_label=1, sample_weight=weight
    )
    if not hits[-1] or not misses[-1]:
        return 0.5, np.nan
    # Calling no row positive is never better than calling every row, the last
    # threshold.
    score = _SCORES[scoring](hits, misses)
    best = int(score.argmax())
    upper = cuts[best]
    below = cuts[best + 1] if best + 1 < len(cuts) else min(upper, cuts.dtype.type(0))
    halfway = cuts.dtype.type(0.5 * (float(upper) + float(below)))
    return float(halfway if halfway > below else upper), float(score[best])


class TunedThresholdsClassifierCV(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """Multi-label classifier with one tuned decision threshold per label.

    :class:`~sklearn.model_selection.TunedThresholdClassifierCV` does this for binary y.
    Here every label gets the threshold that is best on the probabilities of rows that
    cross-validation held out. The estimator is then fitted on all rows.

    Parameters
    ----------
    estimator : estimator
        Its ``predict_proba`` gives an array of shape (n_samples, n_labels).
    scoring : {"f1", "balanced_accuracy"}, default="f1"
        Score that the threshold of each label maximises.
    cv : int, cross-validation generator or iterable, default=None
        As for :func:`~sklearn.model_selection.cross_val_predict`.
    n_jobs : int, default=None
        Folds fitted at the same time.

    Attributes
    ----------
    estimator_ : estimator
        Fitted on all rows.
    best_thresholds_ : ndarray of shape (n_labels,)
        A label is present where its probability is at least this; 0.5 for a label that
        is constant in y, or not known in any row.
    best_scores_ : ndarray of shape (n_labels,)
        Score of each label on the held-out rows, at its threshold; NaN where constant.
    classes_ : ndarray of shape (n_labels,)
    n_features_in_ : int
        Only if the fitted estimator has it.
    feature_names_in_ : ndarray of shape (n_features,)
        Only if the fitted estimator has it.

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
        "scoring": [StrOptions(set(_SCORES))],
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
    def fit(
        self, X: Any, y: Any, sample_weight: ArrayLike | None = None, **params: Any
    ) -> TunedThresholdsClassifierCV:
        """Tune the thresholds, and fit the estimator on all rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like or sparse matrix of shape (n_samples, n_labels)
            Indicator matrix of 0 and 1. NaN where it is not known whether a row has a
            label, for an estimator that takes it, such as :class:`FusionClassifier`:
            the threshold of a label is found on the rows where it is known.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, in the scores of the thresholds and in the fits of the
            estimator. A row of weight 2 counts as two equal rows in the same fold. A
            row of weight 0 is left out before the folds are made; folds that are given
            as lists of rows keep their other rows.
        **params : dict
            ``groups`` for the splitter, the rest for the estimator's ``fit``; with
            metadata routing, to whichever asks for it. Weights for a step of a
            pipeline, such as ``classifier__sample_weight``, count in the scores of the
            thresholds, too.

        Returns
        -------
        TunedThresholdsClassifierCV
            The fitted estimator.

        Raises
        ------
        ValueError
            If y is not an indicator matrix, `cv` does not hold out each row exactly
            once, the probabilities are no matrix or not finite, or the weights are
            negative, not finite or all 0.

        Notes
        -----
        With metadata routing the estimator gets the weights if it asks for them by
        ``set_fit_request(sample_weight=True)``. The thresholds count every row once
        after ``set_fit_request(sample_weight=False)`` of this class itself.
        """
        y, known = split_unknown(y)
        X, y = indexable(X, y)
        kind = type_of_target(y, input_name="y")
        if kind != "multilabel-indicator":
            raise ValueError(
                "Only multilabel-indicator targets are supported, got a target of "
                f"type {kind}; use TunedThresholdClassifierCV of scikit-learn for a "
                "binary one."
            )
        was_sparse, y = sparse.issparse(y), check_indicator(y, "y")
        own = {} if sample_weight is None else {"sample_weight": sample_weight}
        if get_config()["enable_metadata_routing"]:
            routed = process_routing(self, "fit", **own, **params)
            split, fit = routed.splitter.split, routed.estimator.fit
            # cross_val_predict routes again, by the names that the caller uses.
            weighs = self._get_metadata_request().fit.requests["sample_weight"]
        else:
            split = {"groups": params.pop("groups", None)}
            fit = params | own
            weighs = None
        weight = _weights_of_rows(own or fit, X)
        rows = np.arange(_num_samples(X))
        if weight is not None and _weights_in(fit):
            rows = np.flatnonzero(weight)
        cv = check_cv(self.cv, y, classifier=True)
        folds = folds_of_rows(cv, X, y, split, rows)
        if known is not None:
            y = np.where(known, y, np.nan)
        if len(rows) < len(y):
            fit = _check_method_params(X, fit, rows)
            X, y = _safe_indexing(X, rows), y[rows]
        proba = _held_out_proba(self.estimator, X, y, folds, fit, self.n_jobs)
        wrong = np.argwhere(~np.isfinite(proba))
        if len(wrong):
            row, label = wrong[0]
            raise ValueError(
                f"predict_proba of {type(self.estimator).__name__} gives "
                f"{proba[row, label]} in row {rows[row]} for label {label}; thresholds "
                "need finite probabilities."
            )
        weight = None if weight is None or weighs is False else weight[rows]
        best = [
            best_threshold(label, p, self.scoring, weight)
            for label, p in zip(y.T, proba.T, strict=True)
        ]
        self.estimator_ = clone(self.estimator).fit(X, y, **fit)
        self.best_thresholds_, self.best_scores_ = np.array(best).T
        self.classes_ = np.arange(y.shape[1])
        self._sparse_target = was_sparse
        return self

    @property
    def n_features_in_(self) -> int:
        """Number of columns that the estimator was fitted on."""
        return self.estimator_.n_features_in_

    @property
    def feature_names_in_(self) -> NDArray[np.object_]:
        """Their names, where the estimator was fitted on a data frame."""
        return self.estimator_.feature_names_in_

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
            .add_self_request(self)
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


def _weights_in(params: dict[str, Any]) -> list[str]:
    return [k for k in params if k.rpartition("__")[2] == "sample_weight"]


def _weights_of_rows(params: dict[str, Any], X: Any) -> NDArray[np.float64] | None:
    """The one weight of each row that a fit with these parameters uses."""
    names = _weights_in(params)
    weights = [
        _check_sample_weight(
            params[name],
            np.empty(_num_samples(X)),
            dtype=np.float64,
            ensure_non_negative=True,
        )
        for name in names
        if params[name] is not None
    ]
    if not weights:
        return None
    if not all(np.array_equal(weights[0], other) for other in weights[1:]):
        raise ValueError(
            f"{' and '.join(names)} differ, and the thresholds need one weight a row; "
            "pass the weights of the thresholds as sample_weight under metadata "
            "routing."
        )
    return weights[0]


def _held_out_proba(
    estimator: Any,
    X: Any,
    y: NDArray[Any],
    folds: list[tuple[NDArray[np.intp], NDArray[np.intp]]],
    fit: dict[str, Any],
    n_jobs: int | None,
) -> NDArray[Any]:
    """Probabilities (n_samples, n_labels) of each row by the model of its fold.

    cross_val_predict encodes the values of y again, and would take NaN for a class.
    """
    held = np.concatenate([test for _, test in folds])
    if not np.array_equal(np.sort(held), np.arange(len(y))):
        raise ValueError(
            "cv does not test each row once, and every row needs one held-out "
            "probability; give folds that hold out each row once, such as KFold."
        )
    parts = Parallel(n_jobs=n_jobs)(
        delayed(_proba_of_fold)(clone(estimator), X, y, *fold, fit) for fold in folds
    )
    return np.concatenate(parts)[np.argsort(held)]


def _proba_of_fold(
    estimator: Any,
    X: Any,
    y: NDArray[Any],
    train: NDArray[np.intp],
    test: NDArray[np.intp],
    fit: dict[str, Any],
) -> NDArray[Any]:
    rows, target = _safe_split(estimator, X, y, train)
    estimator.fit(rows, target, **_check_method_params(X, fit, train))
    proba = estimator.predict_proba(_safe_split(estimator, X, y, test, train)[0])
    if isinstance(proba, list):
        raise ValueError(
            f"predict_proba of {type(estimator).__name__} gives one array per "
            "label, but one array of shape (n_samples, n_labels) is needed; wrap "
            "the classifier in OneVsRestClassifier or use FusionClassifier."
        )
    return proba
