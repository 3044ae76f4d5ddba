"""Where to cut the probabilities of one label."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import column_or_1d
from sklearn.utils.validation import _check_sample_weight, check_consistent_length


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
    proba : array-like of shape (n_samples,)
    scoring : {"f1", "balanced_accuracy"}
    sample_weight : array-like of shape (n_samples,), default=None
        A weight of 2 is the row twice, a weight of 0 is the row left out.

    Returns
    -------
    threshold, score : float
        ``proba >= threshold`` has this score, and no other threshold a better one. It
        is halfway between two probabilities, or between the lowest and 0; or the upper
        of the two where no number of their precision is between them. 0.5 and NaN for
        a label that is constant over the rows of weight.

    Raises
    ------
    ValueError
        If a probability is not finite, `label` holds anything but 0 and 1, `scoring`
        is unknown, or the weights are negative, not finite or all 0.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_difffeat.thresholds import best_threshold
    >>> best_threshold(np.array([0, 1, 1]), np.array([0.1, 0.2, 0.6]), "f1")
    (0.15..., 1.0)
    >>> best_threshold([0, 1, 0, 0], [0, 0, 0, 0], "f1")
    (0.0, 0.4)
    """
    if scoring not in ("f1", "balanced_accuracy"):
        raise ValueError(
            f"scoring is {scoring!r}; give 'f1' or 'balanced_accuracy', which "
            "best_threshold knows."
        )
    label, proba = column_or_1d(label), column_or_1d(proba)
    check_consistent_length(label, proba)
    if proba.dtype not in (np.float16, np.float32):
        proba = proba.astype(np.float64)
    if not np.isin(label, (0, 1)).all():
        raise ValueError("label holds values other than 0 and 1; give 1 for present.")
    finite = np.isfinite(proba)
    if not finite.all():
        row = int(finite.argmin())
        raise ValueError(
            f"proba is {proba[row]} in row {row}; give finite probabilities."
        )
    weight = np.ones(len(label))
    if sample_weight is not None:
        weight = _check_sample_weight(
            sample_weight, weight, dtype=np.float64, ensure_non_negative=True
        )
    counted = np.flatnonzero(weight)
    order = counted[np.argsort(-proba[counted], kind="stable")]
    ranked, weight, present = proba[order], weight[order], label[order] == 1
    if present.all() or not present.any():
        return 0.5, np.nan
    hits, misses = np.cumsum(weight * present), np.cumsum(weight * ~present)
    if scoring == "f1":
        score = 2 * hits / (hits + misses + hits[-1])
    else:
        score = 0.5 * (hits / hits[-1] + 1 - misses / misses[-1])
    # To call no row is never better than to call every row, the last of these cuts.
    # Rows of equal probability are called together.
    ends = np.append(ranked[1:] < ranked[:-1], True)
    best = int(np.where(ends, score, -1.0).argmax())
    upper = ranked[best]
    below = (
        ranked[best + 1] if best + 1 < len(ranked) else min(upper, ranked.dtype.type(0))
    )
    halfway = ranked.dtype.type(0.5 * (float(upper) + float(below)))
    return float(halfway if halfway > below else upper), float(score[best])
