"""Multi-label scores under the names that papers use."""

from __future__ import annotations

import numbers
import warnings
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_fscore_support
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils._param_validation import Interval, validate_params


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
        Indicator matrix of 0 and 1.
    Y_score : array-like of shape (n_samples, n_labels)
        Probabilities, or any scores that ``threshold`` divides.
    threshold : float, default=0.5
        A label counts as predicted where its score is at least this.
    top_k : int, default=3
        For the ``_top{k}`` scores only the k highest scores of a row count, and those
        still have to reach the threshold.

    Returns
    -------
    dict of str to float
        ``mAP``: mean over labels of the non-interpolated average precision; labels
        without a positive are left out, with one warning that counts them.
        ``CP``, ``CR``: mean over all labels of precision and recall; a label never
        predicted has precision 0. ``CF1``: harmonic mean of CP and CR.
        ``CF1_mean``: mean over labels of each label's F1, the other number that is
        published under the name CF1. ``OP``, ``OR``, ``OF1``: over all decisions.
        The same with ``_top{k}`` behind the name.

    Raises
    ------
    ValueError
        When the shapes differ, or Y_true holds anything but 0 and 1.

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
    truth = check_array(Y_true, accept_sparse=True, input_name="Y_true")
    truth = np.asarray(truth.toarray() if hasattr(truth, "toarray") else truth)
    score = check_array(Y_score, input_name="Y_score")
    check_consistent_length(truth, score)
    if truth.shape != score.shape:
        raise ValueError(
            f"Y_true has {truth.shape[1]} labels and Y_score {score.shape[1]}; pass "
            "one column a label in both."
        )
    if not np.isin(truth, (0, 1)).all():
        raise ValueError(
            "Y_true holds values other than 0 and 1; pass an indicator matrix, as "
            "MultiLabelBinarizer makes it."
        )
    truth = truth.astype(int)
    positive = truth.any(axis=0)
    if not positive.all():
        warnings.warn(
            f"{np.sum(~positive)} of {truth.shape[1]} labels have no positive in "
            "Y_true and are left out of mAP.",
            UserWarning,
            stacklevel=2,
        )
    report = {"mAP": float("nan")}
    if positive.any():
        kept = truth[:, positive], score[:, positive]
        report["mAP"] = float(average_precision_score(*kept, average="macro"))
    predicted = score >= threshold
    report |= _decisions(truth, predicted)
    k = min(top_k, score.shape[1])
    highest = np.zeros_like(predicted)
    top = np.argpartition(-score, k - 1, axis=1)[:, :k]
    np.put_along_axis(highest, top, True, axis=1)
    scores = _decisions(truth, predicted & highest)
    return report | {f"{name}_top{top_k}": value for name, value in scores.items()}


def _decisions(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    # A single column would be read as binary: its negatives as a second label.
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
