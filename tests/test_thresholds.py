import numpy as np
import pytest
from fusion_oracles import make_multilabel
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier

from sklearn_difffeat import FusionClassifier
from sklearn_difffeat.thresholds import TunedThresholdsClassifierCV, best_threshold

SCORES = {"f1": f1_score, "balanced_accuracy": balanced_accuracy_score}


@given(
    rows=st.lists(st.tuples(st.booleans(), st.integers(1, 8)), min_size=2, max_size=30),
    scoring=st.sampled_from(sorted(SCORES)),
)
def test_no_threshold_scores_better_than_the_best(rows, scoring):
    label, proba = np.array(rows, dtype=float).T
    proba = proba / 10
    threshold, score = best_threshold(label, proba, scoring)
    if len(set(label)) == 1:
        assert threshold == 0.5 and np.isnan(score)
        return
    scores = [SCORES[scoring](label, proba >= t) for t in np.unique(proba)]
    assert_allclose(score, max(scores))
    assert_allclose(SCORES[scoring](label, proba >= threshold), score)


@pytest.mark.parametrize(
    "estimator",
    [
        FusionClassifier(),
        OneVsRestClassifier(LogisticRegression(C=1e-3, max_iter=2000)),
    ],
)
def test_thresholds_are_the_best_on_held_out_rows(estimator):
    X, Y = make_multilabel()
    model = TunedThresholdsClassifierCV(estimator, cv=4).fit(X, Y)
    proba = cross_val_predict(estimator, X, Y, cv=4, method="predict_proba")
    for label in range(Y.shape[1]):
        called = proba[:, label] >= model.best_thresholds_[label]
        assert_allclose(f1_score(Y[:, label], called), model.best_scores_[label])
    whole = clone(estimator).fit(X, Y)
    assert_allclose(model.predict_proba(X), whole.predict_proba(X))
    assert_array_equal(
        model.predict(X), model.predict_proba(X) >= model.best_thresholds_
    )


def test_rare_labels_gain_from_thresholds_of_their_own():
    X, Y = make_multilabel(n=2000, seed=1)
    Y &= np.random.default_rng(0).random(Y.shape) < 0.3
    head = FusionClassifier()
    tuned = TunedThresholdsClassifierCV(head).fit(X[:1000], Y[:1000]).predict(X[1000:])
    fixed = head.fit(X[:1000], Y[:1000]).predict(X[1000:])
    scores = [f1_score(Y[1000:], p, average="macro") for p in (tuned, fixed)]
    assert scores[0] > scores[1] + 0.1


def test_a_sparse_indicator_and_a_constant_label_are_taken():
    X, Y = make_multilabel()
    Y[:, 2] = 0
    with pytest.warns(UserWarning, match="constant in y"):
        model = TunedThresholdsClassifierCV(FusionClassifier())
        model.fit(X, sparse.csr_matrix(Y))
    assert model.best_thresholds_[2] == 0.5
    assert sparse.issparse(model.predict(X))
    assert not model.predict(X)[:, [2]].sum()


@pytest.mark.parametrize("routing", [False, True])
def test_groups_and_weights_reach_splitter_and_estimator(routing):
    X, Y = make_multilabel(n=90)
    weight, groups = np.arange(90) % 3 + 0.5, np.arange(90) // 6
    with config_context(enable_metadata_routing=routing):
        head = FusionClassifier()
        if routing:
            head.set_fit_request(sample_weight=True)
        model = TunedThresholdsClassifierCV(head, cv=GroupKFold(3))
        model.fit(X, Y, groups=groups, sample_weight=weight)
    direct = FusionClassifier().fit(X, Y, sample_weight=weight)
    assert_allclose(model.estimator_.coef_, direct.coef_)


@pytest.mark.parametrize("y", [[0, 1] * 10, ["a", "b", "c", "d"] * 5])
def test_other_targets_are_an_error(y):
    model = TunedThresholdsClassifierCV(FusionClassifier())
    with pytest.raises(ValueError, match="Only multilabel-indicator targets"):
        model.fit(np.zeros((20, 2)), y)


def test_probabilities_in_a_list_are_an_error():
    X, Y = make_multilabel(n=60)
    model = TunedThresholdsClassifierCV(
        MultiOutputClassifier(LogisticRegression(C=1e-3, max_iter=2000)), cv=2
    )
    with pytest.raises(ValueError, match="MultiOutputClassifier gives one array per"):
        model.fit(X, Y)
