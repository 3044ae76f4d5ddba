import numpy as np
import pandas as pd
import pytest
from helpers.fusion_oracles import make_multilabel
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score, get_scorer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    PredefinedSplit,
    cross_val_predict,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

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


def assert_same_model(one, other, X):
    assert_allclose(one.best_thresholds_, other.best_thresholds_, rtol=1e-5)
    assert_allclose(one.best_scores_, other.best_scores_, rtol=1e-12)
    assert_allclose(one.predict_proba(X), other.predict_proba(X), atol=1e-7)


def exact_pipeline():
    return Pipeline([("scale", StandardScaler()), ("head", FusionClassifier(tol=0))])


@pytest.mark.parametrize(
    "cv",
    [
        3,
        KFold(3, shuffle=True, random_state=0),
        GroupKFold(3),
        PredefinedSplit(np.arange(90) % 3),
        [
            (np.arange(90)[np.arange(90) % 3 != k], np.arange(k, 90, 3))
            for k in range(3)
        ],
    ],
    ids=["int", "KFold", "GroupKFold", "PredefinedSplit", "lists"],
)
@pytest.mark.parametrize("kind", [list, np.array, pd.Series])
def test_a_weight_of_zero_is_the_row_left_out(cv, kind):
    X, Y = make_multilabel(n=90)
    weight = np.where(np.arange(90) % 5 < 2, 0, 1)
    by_group = isinstance(cv, GroupKFold)
    groups = np.arange(90) // 6
    Y[:, 1] = weight == 0
    kept = np.flatnonzero(weight)
    with pytest.warns(UserWarning, match="constant in y"):
        weighted = TunedThresholdsClassifierCV(exact_pipeline(), cv=cv).fit(
            X,
            Y,
            groups=groups if by_group else None,
            head__sample_weight=kind(weight.tolist()),
        )
    assert weighted.best_thresholds_[1] == 0.5 and np.isnan(weighted.best_scores_[1])
    if isinstance(cv, PredefinedSplit):
        cv = PredefinedSplit(kept % 3)
    elif isinstance(cv, list):
        place = np.cumsum(weight) - 1
        cv = [tuple(place[part[weight[part] > 0]] for part in fold) for fold in cv]
    with pytest.warns(UserWarning, match="constant in y"):
        without = TunedThresholdsClassifierCV(exact_pipeline(), cv=cv)
        without.fit(X[kept], Y[kept], groups=groups[kept] if by_group else None)
    assert_array_equal(weighted.best_thresholds_, without.best_thresholds_)
    assert_array_equal(weighted.best_scores_, without.best_scores_)
    assert_array_equal(weighted.predict_proba(X), without.predict_proba(X))


def repeated(weight, n_folds=3):
    """Rows as often as they weigh, and the folds of both."""
    rows = np.repeat(np.arange(len(weight)), weight)
    folds = [
        [(np.flatnonzero(r % n_folds != k), np.flatnonzero(r % n_folds == k))
         for k in range(n_folds)]
        for r in (np.arange(len(weight)), rows)
    ]  # fmt: skip
    return rows, folds


@pytest.mark.parametrize("scoring", sorted(SCORES))
@pytest.mark.parametrize("routing", ["off", "estimator", "both", "alias"])
def test_a_weight_is_the_row_as_often(scoring, routing):
    X, Y = make_multilabel(n=90)
    weight = np.random.default_rng(0).integers(0, 4, 90)
    rows, (cv, cv_repeated) = repeated(weight)
    head = FusionClassifier(tol=1e-12)
    repeats = TunedThresholdsClassifierCV(head, cv=cv_repeated, scoring=scoring)
    repeats.fit(X[rows], Y[rows])
    with config_context(enable_metadata_routing=routing != "off"):
        model = TunedThresholdsClassifierCV(clone(head), cv=cv, scoring=scoring)
        params = {"sample_weight": weight}
        if routing != "off":
            asked = "w" if routing == "alias" else True
            model.estimator.set_fit_request(sample_weight=asked)
        if routing == "both":
            model.set_fit_request(sample_weight=True)
        if routing == "alias":
            params = {"w": weight}
        model.fit(X, Y, **params)
    assert_same_model(model, repeats, X)
    once = TunedThresholdsClassifierCV(head, cv=cv, scoring=scoring).fit(X, Y)
    assert np.abs(once.best_scores_ - model.best_scores_).max() > 0.01


def test_a_search_hands_the_weights_to_thresholds_and_estimator():
    X, Y = make_multilabel(n=90)
    weight = np.random.default_rng(0).integers(0, 4, 90)
    with config_context(enable_metadata_routing=True):
        head = FusionClassifier().set_fit_request(sample_weight=True)
        model = TunedThresholdsClassifierCV(head, cv=3)
        scorer = get_scorer("f1_macro").set_score_request(sample_weight=True)
        search = GridSearchCV(model, {"scoring": ["f1"]}, cv=2, scoring=scorer)
        with pytest.raises(UnsetMetadataPassedError, match="set_fit_request"):
            search.fit(X, Y, sample_weight=weight)
        model.set_fit_request(sample_weight=True)
        search.fit(X, Y, sample_weight=weight)
        direct = clone(model).fit(X, Y, sample_weight=weight)
    assert_same_model(search.best_estimator_, direct, X)


def test_weights_that_only_one_of_the_two_asked_for_reach_that_one():
    X, Y = make_multilabel(n=90)
    weight = np.random.default_rng(0).integers(0, 4, 90)
    with config_context(enable_metadata_routing=True):
        head = FusionClassifier().set_fit_request(sample_weight=False)
        model = TunedThresholdsClassifierCV(head, cv=3)
        scored = clone(model).fit(X, Y, sample_weight=weight)
        plain = clone(model).fit(X, Y)
        assert_array_equal(scored.predict_proba(X), plain.predict_proba(X))
        proba = cross_val_predict(head, X, Y, cv=3, method="predict_proba")
        for label in range(Y.shape[1]):
            expected = best_threshold(Y[:, label], proba[:, label], "f1", weight)
            assert scored.best_thresholds_[label] == expected[0]
        head = FusionClassifier().set_fit_request(sample_weight=True)
        model = TunedThresholdsClassifierCV(head, cv=3)
        model.set_fit_request(sample_weight=False)
        model.fit(X, Y, sample_weight=weight + 1)
        params = {"sample_weight": weight + 1}
        proba = cross_val_predict(
            head, X, Y, cv=3, method="predict_proba", params=params
        )
        expected = [
            best_threshold(y, p, "f1")[0] for y, p in zip(Y.T, proba.T, strict=True)
        ]
        assert_array_equal(model.best_thresholds_, expected)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.full(60, -1.0), "Negative values in data passed to `sample_weight`"),
        (np.full(60, np.nan), "Input sample_weight contains NaN"),
        (np.full(60, np.inf), "Input sample_weight contains infinity"),
        (np.ones(59), r"sample_weight.shape == \(59,\), expected \(60,\)"),
        (np.ones((60, 1)), "Sample weights must be 1D"),
        (np.zeros(60), "at least one non-zero number"),
    ],
)
@pytest.mark.parametrize("name", ["sample_weight", "head__sample_weight"])
def test_weights_that_cannot_be_are_an_error(weight, message, name):
    X, Y = make_multilabel(n=60)
    head = FusionClassifier() if name == "sample_weight" else exact_pipeline()
    with pytest.raises(ValueError, match=message):
        TunedThresholdsClassifierCV(head).fit(X, Y, **{name: weight})


def test_two_different_weights_of_a_row_are_an_error():
    X, Y = make_multilabel(n=60)
    params = {"scale__sample_weight": np.ones(60), "head__sample_weight": Y[:, 0] + 1}
    with pytest.raises(ValueError, match="differ, and the thresholds need one weight"):
        TunedThresholdsClassifierCV(exact_pipeline()).fit(X, Y, **params)


def test_the_columns_are_those_of_the_estimator():
    X, Y = make_multilabel(n=60)
    names = [f"text__{i}" for i in range(12)]
    model = TunedThresholdsClassifierCV(FusionClassifier(), cv=2)
    assert not hasattr(model, "n_features_in_")
    model.fit(pd.DataFrame(X, columns=names), Y)
    assert model.n_features_in_ == 12
    assert list(model.feature_names_in_) == names
    assert not hasattr(model.fit(X, Y), "feature_names_in_")


class NoProbability(FusionClassifier):
    def predict_proba(self, X):
        proba = super().predict_proba(X)
        proba[X[:, 0] == 7] = np.nan
        return proba


def test_a_probability_that_is_nan_is_an_error_that_names_the_row():
    X, Y = make_multilabel(n=60)
    X[41, 0] = 7
    weight = np.arange(60) % 2
    model = TunedThresholdsClassifierCV(NoProbability())
    with pytest.raises(ValueError, match="gives nan in row 41 for label 0"):
        model.fit(X, Y, sample_weight=weight)


@pytest.mark.parametrize("values", [(-1, 1), (0, 2)])
def test_an_indicator_of_other_numbers_is_an_error(values):
    X, Y = make_multilabel(n=60)
    with pytest.raises(ValueError, match="values other than 0 and 1"):
        TunedThresholdsClassifierCV(FusionClassifier()).fit(X, np.array(values)[Y])


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
