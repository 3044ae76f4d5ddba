"""Scores of labels and of clusters under the names that papers use."""

from __future__ import annotations

import numbers
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    calinski_harabasz_score,
    davies_bouldin_score,
    precision_recall_fscore_support,
    silhouette_score,
)
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils._param_validation import Interval, validate_params

from sklearn_difffeat._indicator import check_indicator, split_unknown


@validate_params(
    {
        "threshold": [Interval(numbers.Real, None, None, closed="neither")],
        "top_k": [Interval(numbers.Integral, 1, None, closed="left")],
    },
    prefer_skip_nested_validation=True,
)
def multilabel_report(
    Y_true: Any, Y_score: Any, *, threshold: float = 0.5, top_k: int = 3
) -> dict[str, float]:
    """Score multi-label predictions by the protocol of ML-GCN.

    Parameters
    ----------
    Y_true : array-like or sparse matrix of shape (n_samples, n_labels)
        Indicator matrix of 0 and 1; NaN where it is not known whether a row has a
        label.
    Y_score : array-like of shape (n_samples, n_labels)
        Probabilities, or any scores that are compared with ``threshold``.
    threshold : float, default=0.5
        A label counts as predicted where its score is at least this.
    top_k : int, default=3
        For the ``_top{k}`` scores only the k highest scores of a row count, and they
        still have to reach the threshold; of equal scores the first count. A label that
        is not known in a row is not counted among its k labels.

    Returns
    -------
    dict of str to float
        Each from 0 to 1, higher is better. ``mAP``: mean over labels of the
        non-interpolated average precision; labels without a positive are left out,
        with one warning that counts them, NaN where none has one.
        ``CP``, ``CR``: mean over all labels of precision and recall; a label never
        predicted has precision 0, one without a positive recall 0. ``CF1``: harmonic
        mean of CP and CR. ``CF1_mean``: mean over labels of each label's F1, the other
        number that is published under the name CF1. ``OP``, ``OR``, ``OF1``: over all
        decisions. The same with ``_top{k}`` after the name. All are taken over the
        entries of Y_true that are known: average precision, precision and recall of a
        label are over the rows where it is known.

    Raises
    ------
    ValueError
        When the shapes differ, Y_true holds anything but 0, 1 and NaN, or Y_score is
        not finite.

    Warns
    -----
    UserWarning
        Once, with the number of labels that have no positive in Y_true.

    References
    ----------
    .. [1] Chen et al., "Multi-Label Image Recognition with Graph Convolutional
       Networks", CVPR 2019, and its public code.

    Examples
    --------
    >>> from sklearn_difffeat import multilabel_report
    >>> report = multilabel_report([[1, 0], [0, 1]], [[0.9, 0.6], [0.2, 0.8]])
    >>> report["mAP"], report["CF1"]
    (1.0, 0.857...)
    """
    Y_true, known = split_unknown(Y_true)
    truth = check_indicator(Y_true, "Y_true").astype(int)
    # The minus below would not work with unsigned and boolean scores.
    score = check_array(Y_score, input_name="Y_score", dtype=[np.float64, np.float32])
    check_consistent_length(truth, score)
    if truth.shape != score.shape:
        raise ValueError(
            f"Y_true has {truth.shape[1]} labels and Y_score {score.shape[1]}; pass "
            "one column per label in both."
        )
    positive = truth.any(axis=0)
    if not positive.all():
        warnings.warn(
            f"{np.sum(~positive)} of {truth.shape[1]} labels have no positive in "
            "Y_true and are left out of mAP.",
            UserWarning,
            stacklevel=2,
        )
    report = {"mAP": mean_average_precision(truth, score, known)}
    predicted = score >= threshold
    if known is not None:
        # Absent and not predicted: no score counts such an entry.
        truth, predicted = truth * known, predicted & known
        score = np.where(known, score, -np.inf)
    report |= _decisions(truth, predicted)
    k = min(top_k, score.shape[1])
    highest = np.zeros_like(predicted)
    top = np.argsort(-score, axis=1, kind="stable")[:, :k]
    np.put_along_axis(highest, top, True, axis=1)
    scores = _decisions(truth, predicted & highest)
    return report | {f"{name}_top{top_k}": value for name, value in scores.items()}


def mean_average_precision(
    truth: NDArray[Any],
    score: NDArray[Any],
    known: NDArray[np.bool_] | None = None,
    sample_weight: Any = None,
) -> float:
    """Mean over the labels with a positive of the average precision of known entries.

    Parameters
    ----------
    truth : ndarray of shape (n_samples, n_labels), 0 or 1
    score : ndarray of shape (n_samples, n_labels)
    known : ndarray of shape (n_samples, n_labels), bool, default=None
        None means that all entries are known; else `truth` is 0 where they are not.
    sample_weight : array-like of shape (n_samples,), default=None

    Returns
    -------
    float
        NaN where no label has a positive.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_difffeat.metrics import mean_average_precision
    >>> truth, score = np.array([[1, 0], [0, 0]]), np.array([[0.2, 0.6], [0.3, 0.8]])
    >>> mean_average_precision(truth, score)
    0.5
    >>> mean_average_precision(truth, score, np.array([[True, True], [False, True]]))
    1.0
    """
    weight = np.ones(len(truth)) if sample_weight is None else np.asarray(sample_weight)
    counted = weight > 0
    precisions = []
    for label in range(truth.shape[1]):
        rows = counted if known is None else counted & known[:, label]
        hit = truth[rows, label] != 0
        if hit.any():
            precision = average_precision(hit, score[rows, label], weight[rows])
            precisions.append(precision)
    return float(np.mean(precisions)) if precisions else float("nan")


def average_precision(
    hit: NDArray[np.bool_], score: NDArray[Any], weight: NDArray[Any]
) -> float:
    """As in scikit-learn, whose checks of the input take longer than the computation.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_difffeat.metrics import average_precision
    >>> average_precision(np.array([True, False]), np.array([0.5, 0.5]), np.ones(2))
    0.5
    """
    order = np.argsort(-score, kind="stable")
    hits, called = np.cumsum(weight[order] * hit[order]), np.cumsum(weight[order])
    # Rows with equal scores are counted together.
    ends = np.flatnonzero(np.diff(score[order], append=np.nan))
    hits, called = hits[ends], called[ends]
    return float(np.diff(hits, prepend=0) @ (hits / called) / hits[-1])


def _decisions(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    # A single column would be read as binary, with its negatives as a second label.
    labels = np.arange(truth.shape[1]) if truth.shape[1] > 1 else [1]
    counted = predicted.astype(int)
    macro, micro = (
        precision_recall_fscore_support(
            truth, counted, labels=labels, average=average, zero_division=0
        )
        for average in ("macro", "micro")
    )
    precision, recall = float(macro[0]), float(macro[1])
    total = precision + recall
    return {
        "CP": precision,
        "CR": recall,
        "CF1": 2 * precision * recall / total if total else 0.0,
        "CF1_mean": float(macro[2]),
        "OP": float(micro[0]),
        "OR": float(micro[1]),
        "OF1": float(micro[2]),
    }


def clustering_report(Z: Any, labels: Any) -> dict[str, float]:
    """Measure how tightly features cluster by their labels.

    Parameters
    ----------
    Z : array-like of shape (n_rows, n_features)
        Features, for example from ``FusionClassifier.transform``. Distances are
        Euclidean: scale the features first where their scales differ.
    labels : array-like of shape (n_rows,), or array-like or sparse matrix of shape \
(n_rows, n_labels)
        One label per row; or an indicator matrix, of which only the rows with exactly
        one label are used, since a row with several labels belongs to no single
        cluster. Rows of it with a NaN, a label that is not known, are left out.

    Returns
    -------
    dict of str to float
        ``silhouette``: mean silhouette coefficient, from -1 to 1, higher is tighter.
        ``davies_bouldin``: from 0, lower is tighter. ``calinski_harabasz``: from 0,
        higher is tighter; it grows with the number of rows. ``n_rows`` and
        ``n_clusters``: how many rows and labels were used.

    Raises
    ------
    ValueError
        When Z holds NaN, the lengths differ, an indicator matrix holds anything but
        0, 1 and NaN, or there are fewer than two labels or as many as rows.

    See Also
    --------
    EmbeddingDisplay : A picture of the same features.

    Examples
    --------
    >>> from sklearn_difffeat import clustering_report
    >>> Z = [[0, 0], [0, 1], [5, 5], [5, 6], [9, 9]]
    >>> report = clustering_report(Z, [[1, 0], [1, 0], [0, 1], [0, 1], [1, 1]])
    >>> report["n_rows"], round(report["silhouette"], 2)
    (4, 0.86)
    """
    Z = check_array(Z, input_name="Z")
    if np.ndim(labels) == 2:
        indicator = check_indicator(labels, "labels", unknown=True)
        check_consistent_length(Z, indicator)
        used = indicator.sum(axis=1) == 1
        Z, clusters = Z[used], indicator[used].argmax(axis=1)
    else:
        clusters = column_or_1d(labels)
        check_consistent_length(Z, clusters)
    n_rows, n_clusters = len(clusters), len(np.unique(clusters))
    if not 2 <= n_clusters < n_rows:
        raise ValueError(
            f"labels leave {n_clusters} clusters in {n_rows} rows with one label each; "
            "give at least two labels, and more rows than labels."
        )
    return {
        "silhouette": float(silhouette_score(Z, clusters)),
        "davies_bouldin": float(davies_bouldin_score(Z, clusters)),
        "calinski_harabasz": float(calinski_harabasz_score(Z, clusters)),
        "n_rows": n_rows,
        "n_clusters": n_clusters,
    }
