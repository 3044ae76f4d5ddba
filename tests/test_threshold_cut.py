import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import balanced_accuracy_score, f1_score

from sklearn_difffeat.thresholds import best_threshold

SCORES = {"f1": f1_score, "balanced_accuracy": balanced_accuracy_score}
TINY = float(np.finfo(np.float64).smallest_subnormal)
NEXT = float(np.nextafter(np.float32(0.5), np.float32(1)))
EDGES = st.sampled_from(
    [0.0, TINY, 3 * TINY, 1e-45, 0.5, np.nextafter(0.5, 1), NEXT, 1.0]
)


@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 1), EDGES | st.floats(0, 1), st.sampled_from([0, 0.1, 1, 2])
        ),
        min_size=1,
        max_size=12,
    ),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    scoring=st.sampled_from(sorted(SCORES)),
    weighted=st.booleans(),
)
@example([(0, 0.0, 1), (1, 0.0, 1), (0, 0.0, 1)], np.float64, "f1", False)
@example([(0, 0.5, 1), (1, NEXT, 1)], np.float32, "f1", False)
@example([(0, 0.0, 1), (1, 1e-45, 1)], np.float32, "f1", False)
def test_the_threshold_is_the_best_of_all_cuts(rows, dtype, scoring, weighted):
    label, proba, weight = (np.array(column) for column in zip(*rows, strict=True))
    proba = proba.astype(dtype)
    if not weighted:
        weight = np.ones(len(label))
    elif not weight.any():
        with pytest.raises(ValueError, match="at least one non-zero"):
            best_threshold(label, proba, scoring, weight)
        return
    threshold, score = best_threshold(
        label, proba, scoring, weight if weighted else None
    )
    counts = weight > 0
    label, proba, weight = label[counts], proba[counts], weight[counts]
    if len(set(label)) == 1:
        assert threshold == 0.5 and np.isnan(score)
        return

    def score_of(called):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return SCORES[scoring](label, called, sample_weight=weight)

    cuts = [proba >= cut for cut in np.unique(proba)]
    nothing, everything = np.zeros(len(label), bool), np.ones(len(label), bool)
    best = max(score_of(called) for called in [*cuts, nothing, everything])
    assert_allclose(score, best, rtol=1e-12)
    assert_allclose(score_of(proba >= threshold), score, rtol=1e-12)
    assert_array_equal(
        proba >= threshold, proba.astype(np.float64) >= np.float64(threshold)
    )


@pytest.mark.parametrize("kind", [list, np.array, pd.Series])
def test_probabilities_that_are_all_zero_are_called_together(kind):
    label, proba = kind([0, 1, 0, 0]), kind([0.0, 0.0, 0.0, 0.0])
    assert best_threshold(label, proba, "f1") == (0.0, 0.4)
    assert best_threshold(label, proba, "balanced_accuracy") == (0.0, 0.5)


@pytest.mark.parametrize(
    ("label", "proba", "weight", "scoring", "message"),
    [
        ([0, 1], [0.1, np.nan], None, "f1", "proba is nan in row 1"),
        ([0, 1], [np.inf, 0.1], None, "f1", "proba is inf in row 0"),
        ([0, 2], [0.1, 0.2], None, "f1", "label holds values other than 0 and 1"),
        ([0, 1], [0.1, 0.2, 0.3], None, "f1", "inconsistent numbers of samples"),
        ([0, 1], [0.1, 0.2], [1, -1], "f1", "Negative values in data passed to"),
        ([0, 1], [0.1, 0.2], [1, np.nan], "f1", "sample_weight contains NaN"),
        ([0, 1], [0.1, 0.2], [1], "f1", r"sample_weight.shape == \(1,\)"),
        ([0, 1], [0.1, 0.2], None, "accuracy", "scoring is 'accuracy'"),
    ],
)
def test_what_has_no_threshold_is_an_error(label, proba, weight, scoring, message):
    with pytest.raises(ValueError, match=message):
        best_threshold(label, proba, scoring, weight)
