import numpy as np
import pandas as pd
import polars
import pytest
from helpers.fusion_oracles import make_multilabel
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    precision_recall_fscore_support,
)
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.multiclass import OneVsRestClassifier

from sklearn_difffeat import (
    FusionClassifier,
    TunedThresholdsClassifierCV,
    clustering_report,
    multilabel_report,
)
from sklearn_difffeat.fusion._loss import LabelledRows
from sklearn_difffeat.thresholds import best_threshold

SPANS = {"image": 7, "text": 5}


def partly_known(n=300, L=5, share=0.6, seed=3):
    """Features, indicators with NaN, and weights, some of them 0."""
    X, Y = make_multilabel(n=n, L=L)
    random = np.random.default_rng(seed)
    Y = np.where(random.random(Y.shape) < share, np.nan, Y)
    return X, Y, random.integers(0, 4, n).astype(float)


def standardised(model, X):
    return np.nan_to_num((X - model.mean_) / model.scale_)


@pytest.mark.parametrize("C", [0.05, 5.0])
@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 1, 1: 3}])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("gaps", [False, True])
def test_each_label_is_the_logistic_regression_of_its_known_rows(
    C, class_weight, weighted, gaps
):
    X, Y, weight = partly_known()
    weight = weight if weighted else np.ones(len(X))
    if gaps:
        X[::4, 7:] = np.nan
    model = FusionClassifier(
        C=C, class_weight=class_weight, modalities=SPANS, tol=1e-12
    )
    model.fit(X, Y, sample_weight=weight)
    Z = standardised(model, X)
    for label, y in enumerate(Y.T):
        known = ~np.isnan(y) & (weight > 0)
        alone = LogisticRegression(
            C=C, class_weight=class_weight, tol=1e-10, max_iter=10_000
        ).fit(Z[known], y[known], sample_weight=weight[known])
        assert_allclose(
            model.coef_[label] * model.scale_, alone.coef_[0], rtol=1e-3, atol=1e-4
        )
        assert_allclose(
            model.centered_intercept_[label], alone.intercept_[0], rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_array])
def test_sparse_features_fit_as_dense_ones(form):
    X, Y, _ = partly_known()
    X[X < 5] = 0
    dense = FusionClassifier(modalities=SPANS).fit(X, Y)
    assert_array_equal(
        FusionClassifier(modalities=SPANS).fit(form(X), Y).coef_, dense.coef_
    )


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize("n", [300, 10])
def test_what_stands_in_an_unknown_entry_does_not_matter(device, n):
    random = np.random.default_rng(0)
    X, Y = random.normal(size=(n, 20)), random.integers(0, 2, (n, 4)).astype(np.uint8)
    known = random.random(Y.shape) < 0.5
    logits = random.normal(size=Y.shape)
    found = []
    for filling in (0, 1):
        rows = LabelledRows(
            X,
            np.where(known, Y, 0).astype(np.uint8),
            C=1.0,
            sample_weight=np.ones(n),
            known=known,
            device=device,
        )
        rows._Y = rows.put(np.where(known, Y, filling).astype(np.uint8))
        labels = np.array([0, 2, 3])
        parts = rows.slopes(rows.put(logits[:, labels]), slice(None), labels)
        found.append([rows.get(part) for part in parts])
        assert not found[-1][1][~known[:, labels]].any()
    for one, other in zip(*found, strict=True):
        assert_array_equal(one, other)


@pytest.mark.parametrize("fusion_dim", [None, 2])
def test_a_row_with_no_known_label_moves_the_standardisation_alone(fusion_dim):
    X, Y, _ = partly_known()
    Y[:50] = np.nan
    params = {"fusion_dim": fusion_dim, "standardize": False, "tol": 1e-12}
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    model = FusionClassifier(**params).fit(X, Y)
    rest = FusionClassifier(**params).fit(X[50:], Y[50:])
    assert_allclose(model.predict_proba(X), rest.predict_proba(X), atol=1e-5)


def test_many_labels_in_blocks_find_the_same_optimum(monkeypatch):
    X, Y, _ = partly_known()
    whole = FusionClassifier(class_weight="balanced").fit(X, Y)
    size = 3 * 2 * 8 * len(X)
    monkeypatch.setattr("sklearn_difffeat.fusion._solver._LOGIT_BYTES", size)
    blocks = FusionClassifier(class_weight="balanced").fit(X, Y)
    assert_allclose(blocks.predict_proba(X), whole.predict_proba(X), atol=1e-4)


def test_all_known_as_float_is_the_fit_of_integers():
    X, Y = make_multilabel()
    plain = FusionClassifier().fit(X, Y)
    assert_array_equal(FusionClassifier().fit(X, Y.astype(float)).coef_, plain.coef_)


def test_frames_and_lists_say_unknown_in_their_own_ways():
    X, Y, _ = partly_known(n=80, L=3)
    expected = FusionClassifier().fit(X, Y).coef_
    gaps = [[None if np.isnan(v) else int(v) for v in row] for row in Y]
    frame = pd.DataFrame(Y)
    held = [
        frame,
        frame.astype("Int64"),
        frame.astype("boolean"),
        pd.DataFrame(gaps, dtype=object).replace({None: pd.NA}),
        polars.DataFrame(gaps, orient="row"),
        gaps,
        Y.astype(np.float32),
    ]
    for y in held:
        assert_array_equal(FusionClassifier().fit(X, y).coef_, expected)


def test_a_label_known_in_one_kind_alone_is_constant():
    X, Y, _ = partly_known()
    Y[:, 1] = np.where(Y[:, 1] == 1, np.nan, Y[:, 1])
    Y[:, 3] = np.where(Y[:, 3] == 0, np.nan, Y[:, 3])
    with pytest.warns(UserWarning, match="2 of the 5 labels are constant"):
        model = FusionClassifier().fit(X, Y)
    found = model.predict(X)
    assert not found[:, 1].any() and found[:, 3].all()
    known = np.sum(~np.isnan(Y[:, 1]))
    assert_allclose(model.predict_proba(X)[:, 1], 0.5 / (known + 1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_label_that_no_row_knows_is_named_and_predicted_absent(dtype):
    X, Y, _ = partly_known()
    Y[:, 2] = np.nan
    with pytest.warns(UserWarning, match="known for no row.* first is label 2"):
        model = FusionClassifier().fit(X.astype(dtype), Y)
    assert not model.predict(X)[:, 2].any()
    assert_allclose(model.predict_proba(X)[:, 2], 0.5, atol=1e-5)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.array([0, 1, np.nan]), "Input y contains NaN"),
        (np.array([[0], [1], [np.nan]]), "contains NaN, and only an indicator matrix"),
        (np.array([[0, 1], [1, 2], [np.nan, 1]]), "Multioutput target data"),
        (np.array([[0, 1], [1, -1], [np.nan, 1]]), "Multioutput|other than 0 and 1"),
        (np.array([[0, 1], [1, np.inf], [np.nan, 1]]), "infinity"),
        (np.array([[0, 1], [1, 0.5], [np.nan, 1]]), "Unknown label type"),
        (sparse.csr_matrix([[0, 1], [1, 0], [np.nan, 1]]), "NaN"),
    ],
)
def test_other_targets_with_nan_are_an_error(y, message):
    with pytest.raises(ValueError, match=message):
        FusionClassifier().fit(np.eye(3), y)


def test_score_is_the_subset_accuracy_of_known_entries():
    X, Y, weight = partly_known()
    assert np.isnan(Y).all(axis=1).any()
    model = FusionClassifier().fit(X, Y)
    found = model.predict(X)
    for weights in (None, weight):
        right = [
            all(f == y for f, y in zip(*pair, strict=True) if not np.isnan(y))
            for pair in zip(found, Y, strict=True)
        ]
        # A row of which nothing is known says nothing.
        kept = ~np.isnan(Y).all(axis=1)
        expected = np.average(
            np.array(right)[kept], weights=None if weights is None else weights[kept]
        )
        assert_allclose(model.score(X, Y, weights), expected)
    whole = np.where(np.isnan(Y), 0, Y)
    assert model.score(X, whole) == accuracy_score(whole, found)
    assert np.isnan(model.score(X, np.full(Y.shape, np.nan)))
    with pytest.raises(ValueError, match="give the rows of X and the labels of fit"):
        model.score(X, Y[:, 1:])


def test_a_search_takes_unknown_labels():
    X, Y, _ = partly_known()
    search = GridSearchCV(FusionClassifier(), {"C": [0.01, 1.0]}, cv=KFold(3))
    assert np.isfinite(search.fit(X, Y).cv_results_["mean_test_score"]).all()


@pytest.mark.filterwarnings("ignore:.*no positive")
def test_the_report_counts_known_entries_alone():
    _, Y, _ = partly_known(n=60, L=4)
    score = np.random.default_rng(0).random(Y.shape).round(1)
    known = ~np.isnan(Y)
    report = multilabel_report(Y, score, top_k=2)
    each = [
        precision_recall_fscore_support(
            y[k], p[k] >= 0.5, average="binary", zero_division=0
        )
        for y, p, k in zip(Y.T, score.T, known.T, strict=True)
    ]
    assert_allclose(
        [report["CP"], report["CR"], report["CF1_mean"]],
        np.mean([e[:3] for e in each], axis=0),
    )
    overall = precision_recall_fscore_support(
        Y[known], score[known] >= 0.5, average="binary"
    )
    assert_allclose([report["OP"], report["OR"], report["OF1"]], overall[:3])
    hits = called = 0
    for y, p, k in zip(Y, score, known, strict=True):
        top = np.flatnonzero(k)[np.argsort(-p[k], kind="stable")[:2]]
        top = top[p[top] >= 0.5]
        hits, called = hits + y[top].sum(), called + len(top)
    assert_allclose(report["OP_top2"], hits / called)
    assert_allclose(report["OR_top2"], hits / np.nansum(Y))


def test_the_report_of_what_is_all_known_does_not_change():
    _, Y = make_multilabel()
    score = np.random.default_rng(0).random(Y.shape).round(1)
    report = multilabel_report(Y, score)
    assert multilabel_report(Y.astype(float), score) == report
    assert_allclose(report["mAP"], average_precision_score(Y, score))


def test_clusters_leave_out_rows_that_are_not_fully_known():
    Z = np.arange(12.0).reshape(6, 2)
    labels = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [1, np.nan], [0, np.nan]])
    expected = clustering_report(Z[:4], labels[:4])
    assert clustering_report(Z, labels) == expected


def test_thresholds_are_found_on_the_rows_that_know_the_label():
    X, Y, weight = partly_known()
    model = TunedThresholdsClassifierCV(FusionClassifier(), cv=3)
    model.fit(X, Y, sample_weight=weight)
    rows = np.flatnonzero(weight)
    X, Y, weight = X[rows], Y[rows], weight[rows]
    proba = np.empty(Y.shape)
    for train, test in KFold(3).split(X):
        head = FusionClassifier().fit(X[train], Y[train], sample_weight=weight[train])
        proba[test] = head.predict_proba(X[test])
    for label, known in enumerate(~np.isnan(Y.T)):
        threshold, score = best_threshold(
            Y[known, label], proba[known, label], "f1", weight[known]
        )
        assert model.best_thresholds_[label] == threshold
        assert model.best_scores_[label] == score
        assert (threshold, score) == best_threshold(
            Y[:, label], proba[:, label], "f1", weight
        )


def test_a_label_that_nobody_knows_keeps_its_threshold():
    assert best_threshold([np.nan, np.nan], [0.2, 0.7], "f1")[0] == 0.5
    found = best_threshold([1, np.nan, 0], [0.2, 0.7, 0.1], "f1", [0, 1, 0])
    assert found[0] == 0.5 and np.isnan(found[1])


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_an_estimator_that_takes_no_nan_says_so():
    X, Y, _ = partly_known()
    model = TunedThresholdsClassifierCV(OneVsRestClassifier(LogisticRegression()))
    with pytest.raises(ValueError, match="NaN"):
        model.fit(X, Y)


def test_folds_that_test_a_row_twice_are_refused():
    X, Y = make_multilabel(n=20)
    half = np.arange(10)
    model = TunedThresholdsClassifierCV(FusionClassifier(), cv=[(half, half)] * 2)
    with pytest.raises(ValueError, match="cv does not test each row once"):
        model.fit(X, Y)
