import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from helpers.fusion_oracles import make_multilabel
from helpers.fusion_tasks import SPANS, TASKS, make_task
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import get_scorer, make_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_difffeat import FusionClassifier, FusionClassifierCV, multilabel_report
from sklearn_difffeat.fusion._candidates import best_candidate
from sklearn_difffeat.fusion._classifier_cv import score_labels
from sklearn_difffeat.fusion._loss import LabelledRows
from sklearn_difffeat.fusion._solver import solve
from sklearn_difffeat.fusion._weighted_rows import WeightedRows

TWO = {"image": 7, "text": 5}
SMALL = {"Cs": [0.1, 1.0], "modality_weights": {"image": [0, 0.3, 1]}, "cv": 3}


@parametrize_with_checks([FusionClassifierCV(Cs=[0.1, 1.0])])
def test_every_scikit_learn_check_passes(estimator, check):
    check(estimator)


@pytest.mark.parametrize("scoring", [None, "average_precision", "neg_log_loss"])
@pytest.mark.parametrize("shape", [(300, 12), (40, 60)])
@pytest.mark.parametrize("fusion_dim", [None, 2])
def test_scores_are_those_of_a_grid_search(scoring, shape, fusion_dim, monkeypatch):
    monkeypatch.setattr("sklearn_difffeat.fusion._candidates._FOLD_TOL", 1e-12)
    X, Y = make_multilabel(n=shape[0], d=shape[1], L=4)
    params = {"modalities": {"image": 7, "text": shape[1] - 7}, "tol": 1e-12}
    if scoring == "neg_log_loss":
        scoring = make_scorer(lambda y, p: -((y - p) ** 2).mean(),
                              response_method="predict_proba")  # fmt: skip
    model = FusionClassifierCV(
        **SMALL, **params, scoring=scoring, fusion_dim=fusion_dim
    ).fit(X, Y)
    search = GridSearchCV(
        FusionClassifier(**params, fusion_dim=fusion_dim),
        {"modality_weights": model.weights_, "C": list(model.Cs_)},
        scoring=scoring or score_labels,
        cv=KFold(3),
    ).fit(X, Y)
    for fold in range(3):
        expected = search.cv_results_[f"split{fold}_test_score"].reshape(2, 3).T
        assert_allclose(model.scores_[fold], expected, atol=2e-3)


def test_the_final_fit_is_that_of_the_classifier_with_what_was_chosen():
    X, Y = make_multilabel()
    model = FusionClassifierCV(**SMALL, modalities=TWO).fit(X, Y)
    plain = FusionClassifier(
        C=model.C_, modality_weights=model.modality_weights_, modalities=TWO
    ).fit(X, Y)
    for name in ("coef_", "intercept_", "mean_", "scale_", "classes_"):
        assert_array_equal(getattr(model, name), getattr(plain, name))
    for method in ("predict", "predict_proba", "decision_function", "transform"):
        assert_array_equal(getattr(model, method)(X), getattr(plain, method)(X))
    shares, expected = model.modality_contributions(X), plain.modality_contributions(X)
    assert_array_equal(shares["image"], expected["image"])
    assert model.score(X, Y) == multilabel_report(Y, plain.predict_proba(X))["mAP"]
    again = pickle.loads(pickle.dumps(model))
    assert_array_equal(again.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("factor", [(1, 1), (0.3, 1), (0, 1), (1, 0)])
@pytest.mark.parametrize("shape", [(300, 12), (60, 300), (80, 100)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_turned_rows_lead_to_the_same_optimum(factor, shape, dtype):
    random = np.random.default_rng(0)
    X = random.normal(size=shape).astype(dtype)
    Y = (random.random((shape[0], 3)) < 0.4).astype(np.uint8)
    weight = random.uniform(0.5, 2, shape[0])
    spans = {"a": slice(0, 5), "b": slice(5, shape[1])}
    scale = np.where(np.arange(shape[1]) < 5, *map(float, factor))
    options = {"rank": None, "tol": 1e-12, "max_iter": 1000, "verbose": False}
    data = {"C": 2.0, "sample_weight": weight}
    plain = solve(LabelledRows((X * scale).astype(dtype), Y, **data), **options)
    rows, axes, rotation = WeightedRows(X, weight, spans).turned(scale)
    problem = LabelledRows(rows, Y, **data, axes=axes, rotation=rotation)
    found = solve(problem, **options)
    atol = 1e-5 if dtype == np.float64 else 3e-3
    assert_allclose(found.heads, plain.heads, atol=atol)
    assert_allclose(found.intercept, plain.intercept, atol=atol)


def test_beyond_the_full_axes_the_rows_stay_as_they_are(monkeypatch):
    X, Y = make_multilabel(n=100, d=20, L=3)
    params = {"modalities": {"image": 10, "text": 10}, "random_state": 0}
    full = FusionClassifierCV(**SMALL, **params).fit(X, Y)
    monkeypatch.setattr("sklearn_difffeat.fusion._principal_axes._MAX_FULL", 15)
    monkeypatch.setattr("sklearn_difffeat.fusion._principal_axes._N_LEADING", 5)
    sketched = FusionClassifierCV(**SMALL, **params).fit(X, Y)
    assert_allclose(sketched.scores_, full.scores_, atol=0.02)


@pytest.mark.parametrize("task", TASKS)
def test_a_weak_modality_never_spoils_a_strong_one(task):
    # One draw leads or trails by 0.01 by chance.
    lead = []
    for seed in range(8):
        train, test = make_task(task, seed, n_test=800)
        model = FusionClassifierCV([0.01, 0.1, 1.0], modalities=SPANS).fit(*train)
        single = [[{name: 0}] for name in SPANS]
        alone = [clone(model).set_params(modality_weights=w) for w in single]
        lead.append(model.score(*test) - max(m.fit(*train).score(*test) for m in alone))
    assert np.mean(lead) > -0.005
    if task == "both":
        assert np.mean(lead) > 0


@pytest.mark.parametrize("n_classes", [2, 3])
def test_classes_are_chosen_for_and_predicted(n_classes):
    random = np.random.default_rng(0)
    X = random.normal(size=(90, 12))
    y = np.array(["a", "b", "c"])[np.argmax(X[:, 7 : 7 + n_classes], axis=1)]
    model = FusionClassifierCV(**SMALL, modalities=TWO).fit(X, y)
    assert model.scores_.shape == (3, 3, 2)
    assert model.modality_weights_["image"] < 1
    assert np.mean(model.predict(X) == y) > 0.9
    assert 0.9 < model.score(X, y) <= 1
    again = FusionClassifierCV(**SMALL, modalities=TWO, scoring="accuracy").fit(X, y)
    assert again.score(X, y) == np.mean(again.predict(X) == y)


def test_unknown_labels_are_left_out_of_fits_and_scores():
    X, Y = make_multilabel()
    hidden = np.random.default_rng(0).random(Y.shape) < 0.4
    Y = np.where(hidden, np.nan, Y)
    model = FusionClassifierCV(**SMALL, modalities=TWO, tol=1e-10).fit(X, Y)
    search = GridSearchCV(
        FusionClassifier(modalities=TWO),
        {"C": list(model.Cs_)},
        scoring=score_labels,
        cv=KFold(3),
    ).fit(X, Y)
    assert_allclose(
        model.scores_.mean(axis=0)[2], search.cv_results_["mean_test_score"], atol=5e-3
    )
    frame = pd.DataFrame(Y).astype("Int64")
    again = FusionClassifierCV(**SMALL, modalities=TWO, tol=1e-10).fit(X, frame)
    assert_array_equal(again.scores_, model.scores_)


def test_labels_constant_or_unknown_in_a_fold_do_no_harm():
    X, Y = make_multilabel(n=60, L=4)
    Y = Y.astype(float)
    Y[:20, 1], Y[20:, 1] = 1, 0
    Y[20:, 2] = np.nan
    model = FusionClassifierCV(**SMALL, modalities=TWO).fit(X, Y)
    assert np.isfinite(model.scores_).all()


def test_sparse_features_and_targets_give_the_same_scores():
    X, Y = make_multilabel()
    X[X < 5] = 0
    dense = FusionClassifierCV(**SMALL, modalities=TWO).fit(X, Y)
    thin = FusionClassifierCV(**SMALL, modalities=TWO)
    thin.fit(sparse.csr_matrix(X), sparse.csr_matrix(Y))
    assert_array_equal(thin.scores_, dense.scores_)
    assert sparse.issparse(thin.predict(X))


def test_rows_may_lack_modalities_and_names_tell_them():
    X, Y = make_multilabel()
    X[::3, :7] = np.nan
    names = [f"{'image' if i < 7 else 'text'}__{i}" for i in range(12)]
    frame = pd.DataFrame(X, columns=names)
    model = FusionClassifierCV(**SMALL).fit(frame, Y)
    expected = FusionClassifierCV(**SMALL, modalities=TWO).fit(X, Y)
    assert_array_equal(model.scores_, expected.scores_)
    assert list(model.feature_names_in_) == names


def test_a_weight_of_two_is_the_row_twice_and_of_zero_the_row_left_out():
    X, Y = make_multilabel(n=90)
    fold = np.arange(90) % 2
    weight = np.random.default_rng(0).integers(0, 3, 90)
    rows = np.repeat(np.arange(90), weight)

    def splits(fold):
        return [tuple(np.flatnonzero((fold == k) == t) for t in (0, 1)) for k in (0, 1)]

    params = {**SMALL, "modalities": TWO, "tol": 1e-12}
    weighted = FusionClassifierCV(**params | {"cv": splits(fold)})
    weighted.fit(X, Y, sample_weight=weight)
    repeated = FusionClassifierCV(**params | {"cv": splits(fold[rows])})
    repeated.fit(X[rows], Y[rows])
    assert_allclose(weighted.scores_, repeated.scores_, atol=0.01)
    assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=1e-4)


def test_jobs_do_not_change_the_scores():
    X, Y = make_multilabel(n=90)
    params = {**SMALL, "modalities": TWO}
    one, two = (FusionClassifierCV(**params, n_jobs=k).fit(X, Y) for k in (1, 2))
    assert_array_equal(one.scores_, two.scores_)


def test_groups_reach_the_splitter_with_and_without_routing():
    X, Y = make_multilabel(n=90)
    groups = np.arange(90) % 6
    params = {**SMALL, "modalities": TWO, "cv": GroupKFold(3)}
    plain = FusionClassifierCV(**params).fit(X, Y, groups=groups)
    with sklearn.config_context(enable_metadata_routing=True):
        routed = FusionClassifierCV(**params).fit(X, Y, groups=groups)
        pipeline = make_pipeline(MinMaxScaler(), clone(routed))
        inside = pipeline.fit(X, Y, groups=groups)[-1]
    assert_array_equal(routed.scores_, plain.scores_)
    assert_allclose(inside.scores_, plain.scores_, atol=1e-3)
    with pytest.raises(ValueError, match="enable_metadata_routing"):
        FusionClassifierCV(**params).fit(X, Y, group=groups)


def test_the_scorer_asks_for_weights_under_routing():
    X, Y = make_multilabel(n=90)
    weight = np.random.default_rng(0).uniform(0.1, 2, 90)
    seen = []

    def score(y, proba, sample_weight=None):
        seen.append(sample_weight is not None)
        return roc_auc_score(y, proba, sample_weight=sample_weight)

    scorer = make_scorer(score, response_method="predict_proba")
    with sklearn.config_context(enable_metadata_routing=True):
        for asked in (True, False):
            scorer = scorer.set_score_request(sample_weight=asked)
            model = FusionClassifierCV(**SMALL, modalities=TWO, scoring=scorer)
            model = model.set_fit_request(sample_weight=True)
            model.fit(X, Y, sample_weight=weight)
            model.score(X, Y, sample_weight=weight) if asked else model.score(X, Y)
            assert set(seen) == {asked}
            seen.clear()
    model = FusionClassifierCV(**SMALL, modalities=TWO, scoring=scorer)
    model.fit(X, Y, sample_weight=weight)
    assert set(seen) == {True}


def test_a_number_of_Cs_and_auto_weights_are_grids():
    X, Y = make_multilabel(n=60)
    model = FusionClassifierCV(3, modalities={"a": 4, "b": 4, "c": 4}, cv=2).fit(X, Y)
    assert_allclose(model.Cs_, [1e-4, 1, 1e4])
    assert model.scores_.shape == (2, 19, 3)
    assert model.weights_[0] == {"a": 1, "b": 1, "c": 1}
    assert {"a": 1, "b": 0, "c": 0} in model.weights_
    assert model.C_ in model.Cs_ and model.modality_weights_ in model.weights_
    one = FusionClassifierCV(2, cv=2).fit(X, Y)
    assert one.weights_ == [{"all": 1.0}]


def test_combinations_of_weights_leave_out_that_of_zeros():
    X, Y = make_multilabel(n=60)
    weights = {"image": [0, 1], "text": (0, 0.5)}
    model = FusionClassifierCV([1.0], weights, modalities=TWO, cv=2).fit(X, Y)
    found = [(w["image"], w["text"]) for w in model.weights_]
    assert found == [(0, 0.5), (1, 0), (1, 0.5)]


def test_fewer_modalities_win_unless_the_lead_is_clear():
    weights = [{"image": 1.0, "text": 1.0}, {"image": 0.0, "text": 1.0}]
    alone = np.array([0.50, 0.60, 0.40])
    for lead, expected in (([0.1, -0.07, 0.0], 1), ([0.02, 0.03, 0.02], 0)):
        scores = np.stack([alone + np.array(lead), alone], axis=1)[:, :, None]
        assert best_candidate(scores, weights) == (expected, 0)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"Cs": []}, "minimum of 1 is required"),
        ({"Cs": [1.0, 0.0]}, "give positive numbers"),
        ({"Cs": [np.nan]}, "Cs contains NaN"),
        ({"Cs": 0}, "'Cs' parameter"),
        ({"modality_weights": {"sound": [1]}}, "names 'sound', but the modalities"),
        ({"modality_weights": {"image": [-1]}}, "is not a number of at least 0"),
        ({"modality_weights": {"image": ["much"]}}, "is not a number of at least 0"),
        ({"modality_weights": [{"image": 0, "text": 0}]}, "leaves out every modality"),
        ({"modality_weights": {"image": []}}, "nothing to choose from"),
        ({"modality_weights": []}, "nothing to choose from"),
        ({"modality_weights": "all"}, "'modality_weights' parameter"),
        ({"scoring": "best"}, "'scoring' parameter"),
    ],
)
def test_what_is_no_candidate_is_an_error(params, message):
    X, Y = make_multilabel(n=60)
    with pytest.raises(ValueError, match=message):
        FusionClassifierCV(**{"modalities": TWO, **params}).fit(X, Y)


def test_a_score_of_nan_everywhere_is_an_error():
    X, Y = make_multilabel(n=30)
    model = FusionClassifierCV(**SMALL, modalities=TWO, scoring=lambda *_: float("nan"))
    with pytest.raises(ValueError, match="NaN in every fold"):
        model.fit(X, Y)


@pytest.mark.filterwarnings("ignore:The fit of")
def test_too_few_steps_in_the_folds_warn():
    X, Y = make_multilabel()
    model = FusionClassifierCV(**SMALL, modalities=TWO, max_iter=2)
    with pytest.warns(ConvergenceWarning, match="in the folds did not converge"):
        model.fit(X, Y)


@pytest.mark.parametrize("name", ["average_precision", "f1_macro", "roc_auc"])
def test_any_scorer_scores_the_fitted_model(name):
    X, Y = make_multilabel()
    model = FusionClassifierCV(**SMALL, modalities=TWO, scoring=name).fit(X, Y)
    assert model.score(X, Y) == get_scorer(name)(model, X, Y)
