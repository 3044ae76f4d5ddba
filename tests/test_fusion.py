import pickle
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from scipy.optimize import check_grad
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_difffeat import FusionClassifier, make_fusion_pipeline
from sklearn_difffeat._fusion_solver import (
    FactorizedProblem,
    LinearProblem,
    factors,
    principal_axes,
    solve,
)
from sklearn_difffeat._modalities import ModalityArray


@parametrize_with_checks([FusionClassifier(), FusionClassifier(fusion_dim=8)])
def test_every_scikit_learn_check_passes(estimator, check):
    check(estimator)


def make_multilabel(n=300, d=12, L=5, seed=0, dtype=np.float64):
    """Correlated columns of very different scales, labels of different rarity."""
    rng = np.random.default_rng(seed)
    Z = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    logits = Z @ rng.normal(size=(d, L)) / np.sqrt(d) + rng.normal(size=L)
    Y = (logits + rng.logistic(size=(n, L)) > 1).astype(int)
    X = 5 + Z * np.logspace(-2, 3, d)
    return X.astype(dtype), Y


def log_loss_objective(model, X, Y, C, weight=None, label_weight=(1, 1)):
    """Objective per label on standardised columns, weights from the raw space."""
    F = np.asarray(X, dtype=float) @ model.coef_.T + model.intercept_
    weight = np.ones(len(X)) if weight is None else weight
    each = np.where(Y, label_weight[1], label_weight[0]) * (np.logaddexp(0, F) - Y * F)
    return C * weight @ each + 0.5 * ((model.coef_ * X.std(0)) ** 2).sum(axis=1)


def one_vs_rest(X, Y, **params):
    logistic = LogisticRegression(tol=1e-8, max_iter=10_000, **params)
    return OneVsRestClassifier(make_pipeline(StandardScaler(), logistic)).fit(X, Y)


@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_objective_matches_one_vs_rest_logistic_regression(C):
    X, Y = make_multilabel()
    model = FusionClassifier(C=C).fit(X, Y)
    oracle = one_vs_rest(X, Y, C=C)
    logistic = [e[-1] for e in oracle.estimators_]
    F = oracle.decision_function(X)
    squares = [(e.coef_**2).sum() for e in logistic]
    best = C * (np.logaddexp(0, F) - Y * F).sum(axis=0) + 0.5 * np.array(squares)
    assert np.all(log_loss_objective(model, X, Y, C) <= best * (1 + 1e-8))
    assert_allclose(model.predict_proba(X), oracle.predict_proba(X), atol=1e-4)
    assert_array_equal(model.predict(X), oracle.predict(X))


def test_float32_reaches_the_same_optimum_and_keeps_its_dtype():
    X, Y = make_multilabel(n=600, d=40, L=8)
    model = FusionClassifier().fit(X.astype(np.float32), Y)
    oracle = one_vs_rest(X, Y)
    for output in (model.predict_proba(X), model.coef_, model.transform(X)):
        assert output.dtype == np.float32
    assert_allclose(model.predict_proba(X), oracle.predict_proba(X), atol=1e-3)


@pytest.mark.parametrize("n_features", [15, 150])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_classes_match_logistic_regression(n_classes, n_features):
    X, y = make_classification(
        n_samples=120,
        n_features=n_features,
        n_informative=8,
        n_classes=n_classes,
        random_state=0,
    )
    y = np.array(["a", "b", "c", "d"])[y]
    logistic = LogisticRegression(C=0.3, tol=1e-9, max_iter=5000)
    oracle = make_pipeline(StandardScaler(), logistic).fit(X, y)
    model = FusionClassifier(C=0.3).fit(X, y)
    assert_allclose(model.predict_proba(X), oracle.predict_proba(X), atol=1e-4)
    assert_allclose(model.decision_function(X), oracle.decision_function(X), atol=2e-3)
    assert_array_equal(model.classes_, oracle.classes_)
    assert model.coef_.shape == oracle[-1].coef_.shape
    assert_allclose(
        model.predict_log_proba(X), np.log(model.predict_proba(X)), atol=1e-10
    )


@pytest.mark.parametrize("class_weight", ["balanced", {0: 1, 1: 7}])
def test_class_weight_matches_one_vs_rest_logistic_regression(class_weight):
    X, Y = make_multilabel()
    model = FusionClassifier(class_weight=class_weight).fit(X, Y)
    oracle = one_vs_rest(X, Y, class_weight=class_weight)
    assert_allclose(model.predict_proba(X), oracle.predict_proba(X), atol=1e-4)


def test_a_list_of_class_weights_holds_one_dict_per_label():
    X, Y = make_multilabel(L=2)
    model = FusionClassifier(class_weight=[{1: 5}, {0: 2, 1: 1}]).fit(X, Y)
    for label, weights in enumerate([{0: 1, 1: 5}, {0: 2, 1: 1}]):
        alone = FusionClassifier(class_weight=weights).fit(X, Y[:, label])
        assert_allclose(
            model.predict_proba(X)[:, label], alone.predict_proba(X)[:, 1], atol=1e-5
        )


def test_balanced_classes_match_logistic_regression():
    X, y = make_classification(weights=[0.9], random_state=0)
    logistic = LogisticRegression(class_weight="balanced", tol=1e-9)
    oracle = make_pipeline(StandardScaler(), logistic).fit(X, y)
    model = FusionClassifier(class_weight="balanced").fit(X, y)
    assert_allclose(model.predict_proba(X), oracle.predict_proba(X), atol=1e-4)


@pytest.mark.parametrize("fusion_dim", [None, 2])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_sample_weight_is_repetition_and_zero_is_removal(fusion_dim, class_weight):
    X, Y = make_multilabel(n=80)
    X[:9, 6:] = np.nan
    weight = np.random.default_rng(0).integers(0, 4, len(X))
    params = {
        "fusion_dim": fusion_dim,
        "class_weight": class_weight,
        "modalities": {"a": 6, "b": 6},
        "tol": 1e-12,
    }
    weighted = FusionClassifier(**params).fit(X, Y, sample_weight=weight)
    rows = np.repeat(np.arange(len(X)), weight)
    repeated = FusionClassifier(**params).fit(X[rows], Y[rows])
    assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=1e-5)
    assert_allclose(weighted.scale_, repeated.scale_)


def problem(softmax=False, weighted=True, device=None, seed=0, missing=()):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(30, 6))
    X[list(missing), :3] = 0
    Y = (rng.uniform(size=(30, 4)) < 0.4).astype(np.uint8)
    if softmax:
        Y = np.eye(4, dtype=np.uint8)[rng.integers(0, 4, 30)]
    weight = rng.uniform(0.5, 2, 30)
    return LinearProblem(
        X,
        Y,
        C=0.7,
        sample_weight=weight,
        second_moments=weight @ X**2,
        label_weight=rng.uniform(1, 3, (2, 4)) if weighted and not softmax else None,
        softmax=softmax,
        device=device,
    )


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("rank", [None, 2])
def test_gradients_agree_with_finite_differences(softmax, rank):
    linear = problem(softmax)
    target = linear if rank is None else FactorizedProblem(linear, rank)
    size = 7 * 4 if rank is None else 6 * 2 + 2 * 4 + 4
    shape = (7, 4) if rank is None and not softmax else (size, 1)
    start = np.random.default_rng(1).normal(size=size)

    def value(theta):
        return target.evaluate(theta.reshape(shape), np.arange(4))[0].sum()

    def gradient(theta):
        return target.evaluate(theta.reshape(shape), np.arange(4))[1].ravel()

    assert check_grad(value, gradient, start) < 1e-4


def test_the_objective_does_not_depend_on_the_row_batches(monkeypatch):
    whole = problem()
    monkeypatch.setattr("sklearn_difffeat._fusion_solver._CHUNK_ENTRIES", 1)
    monkeypatch.setattr(
        "sklearn_difffeat._fusion_solver._row_chunks",
        lambda n, _: [slice(i, i + 7) for i in range(0, n, 7)],
    )
    theta = np.random.default_rng(0).normal(size=(7, 4))
    for a, b in zip(
        whole.evaluate(theta, np.arange(4)),
        problem().evaluate(theta, np.arange(4)),
        strict=True,
    ):
        assert_allclose(a, b)


@pytest.mark.parametrize("softmax", [False, True])
def test_torch_computes_the_same_objective(softmax):
    pytest.importorskip("torch")
    theta = np.random.default_rng(0).normal(size=(7, 4))
    theta = theta.reshape(-1, 1) if softmax else theta
    columns = np.arange(4)
    expected = problem(softmax).evaluate(theta, columns)
    found = problem(softmax, device="cpu").evaluate(theta, columns)
    assert_allclose(found[0], expected[0])
    assert_allclose(found[1], expected[1])


@pytest.mark.parametrize("fusion_dim", [None, 3])
def test_a_torch_device_fits_the_same_model(fusion_dim):
    pytest.importorskip("torch")
    X, Y = make_multilabel(dtype=np.float32)
    here = FusionClassifier(fusion_dim=fusion_dim).fit(X, Y)
    there = FusionClassifier(fusion_dim=fusion_dim, device="cpu").fit(X, Y)
    assert_allclose(here.predict_proba(X), there.predict_proba(X), atol=2e-3)


@pytest.mark.parametrize("shape", [(40, 9), (9, 40)])
def test_principal_axes_lose_no_row_and_diagonalise_the_moments(shape):
    rng = np.random.default_rng(0)
    X, weight = rng.normal(size=shape), rng.uniform(0.1, 2, shape[0])
    rotated, moments, axes = principal_axes(X.copy(), weight)
    assert_allclose(rotated @ axes.T, X, atol=1e-10)
    assert_allclose(axes.T @ axes, np.eye(axes.shape[1]), atol=1e-10)
    assert_allclose(rotated.T * weight @ rotated, np.diag(moments), atol=1e-9)


def test_too_many_columns_are_not_rotated_and_fit_the_same(monkeypatch):
    X, Y = make_multilabel(n=100)
    rotated = FusionClassifier().fit(X, Y)
    monkeypatch.setattr("sklearn_difffeat._fusion_solver._MAX_ROTATION", 3)
    plain = FusionClassifier().fit(X, Y)
    assert_allclose(plain.predict_proba(X), rotated.predict_proba(X), atol=1e-3)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_factorised_objective_is_never_above_its_start(rank):
    linear = problem()
    options = {"tol": 1e-10, "max_iter": 500, "precision": 1e-16}
    _, W, b, *_ = solve(linear, rank=None, **options)
    P, H, intercept, *_ = solve(linear, rank=rank, **options)
    target = FactorizedProblem(linear, rank)
    start = target.pack(*factors(linear.nearest(W, rank), rank), b)
    end = target.pack(P, H, intercept)
    value, gradient = target.evaluate(end, np.arange(4))
    assert value <= target.evaluate(start, np.arange(4))[0]
    assert np.abs(gradient).max() < 1e-3


def test_the_two_factors_share_the_trace_norm():
    X, Y = make_multilabel(L=8)
    model = FusionClassifier(fusion_dim=3, modalities={"a": 5, "b": 7}).fit(X, Y)
    P = np.vstack([model.projections_["a"], model.projections_["b"]])
    assert_allclose(P.T @ P, model.heads_ @ model.heads_.T, atol=1e-8)
    singular = np.linalg.svd(P @ model.heads_, compute_uv=False)
    assert_allclose((P**2).sum(), singular.sum())
    assert np.linalg.matrix_rank(model.coef_) == 3


def test_shared_directions_predict_better_when_labels_share_them():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 60))
    logits = X @ rng.normal(size=(60, 2)) @ rng.normal(size=(2, 30)) / 4
    Y = (logits + rng.logistic(size=logits.shape) > 0).astype(int)
    train, test = slice(0, 150), slice(150, None)
    full, shared = (
        FusionClassifier(fusion_dim=k, C=0.1).fit(X[train], Y[train]) for k in (None, 4)
    )

    def error(model):
        F = model.decision_function(X[test])
        return (np.logaddexp(0, F) - Y[test] * F).mean()

    assert error(shared) < error(full)


@pytest.mark.parametrize("fusion_dim", [None, 3, 20])
def test_the_parts_add_up_to_the_decision(fusion_dim):
    X, Y = make_multilabel()
    names = {"image": list(range(0, 12, 2)), "text": list(range(1, 12, 2))}
    model = FusionClassifier(modalities=names, fusion_dim=fusion_dim).fit(X, Y)
    logits = model.decision_function(X)
    shares = model.modality_contributions(X)
    assert list(shares) == ["image", "text"]
    assert_allclose(sum(shares.values()) + model.centered_intercept_, logits)
    assert_allclose(X @ model.coef_.T + model.intercept_, logits, atol=1e-8)
    fused = model.transform(X)
    assert fused.shape == (len(X), fusion_dim or Y.shape[1])
    heads = np.eye(5) if model.heads_ is None else model.heads_
    assert_allclose(fused @ heads + model.centered_intercept_, logits, atol=1e-8)
    Z = (X - model.mean_) / model.scale_
    assert_allclose(
        sum(Z[:, names[m]] @ model.projections_[m] for m in names), fused, atol=1e-8
    )
    assert len(model.get_feature_names_out()) == fused.shape[1]


@pytest.mark.parametrize("fusion_dim", [None, 2])
def test_an_absent_modality_contributes_nothing(fusion_dim):
    X, Y = make_multilabel()
    X[::3, 8:] = np.nan
    model = FusionClassifier(
        modalities={"image": 8, "text": 4}, fusion_dim=fusion_dim
    ).fit(X, Y)
    shares = model.modality_contributions(X)
    assert not shares["text"][::3].any()
    assert_allclose(
        model.decision_function(X)[::3],
        shares["image"][::3] + model.centered_intercept_,
    )
    present = np.flatnonzero(np.arange(len(X)) % 3)
    assert_allclose(model.mean_[8:], X[present, 8:].mean(axis=0))
    assert_allclose(model.scale_[8:], X[present, 8:].std(axis=0))
    assert_allclose(
        model.decision_function(np.full((1, 12), np.nan))[0], model.centered_intercept_
    )


def test_absent_rows_fit_like_rows_at_the_mean():
    X, Y = make_multilabel()
    X[::3, 8:] = np.nan
    filled = np.where(np.isnan(X), np.nanmean(X, axis=0), X)
    params = {"modalities": {"image": 8, "text": 4}, "standardize": False}
    model = FusionClassifier(**params).fit(X - np.nanmean(X, axis=0), Y)
    oracle = FusionClassifier(**params).fit(filled - np.nanmean(X, axis=0), Y)
    assert_allclose(model.coef_, oracle.coef_)


def test_massive_and_constant_columns_do_no_harm():
    X, Y = make_multilabel(dtype=np.float32)
    odd = np.hstack(
        [X, np.full((len(X), 2), 0.1, np.float32), 1e4 + X[:, :1] / X[:, 0].std()]
    )
    model, plain = (FusionClassifier().fit(A, Y) for A in (odd, X))
    assert_array_equal(model.scale_[12:14], 1)
    assert np.abs(model.predict_proba(odd) - plain.predict_proba(X)).max() < 0.05
    assert np.isfinite(model.coef_).all()


@pytest.mark.parametrize("fusion_dim", [None, 2])
def test_constant_labels_are_predicted_and_warned_about_once(fusion_dim):
    X, Y = make_multilabel()
    Y[:, 1], Y[:, 3] = 0, 1
    with pytest.warns(UserWarning, match="2 of the 5 labels are constant") as caught:
        model = FusionClassifier(fusion_dim=fusion_dim).fit(X, Y)
    assert len(caught) == 1
    assert_array_equal(model.predict(X)[:, [1, 3]], Y[:, [1, 3]])
    proba = model.predict_proba(X)
    assert proba[:, 1].max() < 0.01 < 0.99 < proba[:, 3].min() < 1
    rest = FusionClassifier(fusion_dim=fusion_dim).fit(X, Y[:, [0, 2, 4]])
    assert_allclose(proba[:, [0, 2, 4]], rest.predict_proba(X), atol=1e-6)


def test_labels_may_all_be_constant():
    X, Y = make_multilabel()
    with pytest.warns(UserWarning, match="5 of the 5"):
        model = FusionClassifier().fit(X, np.ones_like(Y))
    assert model.predict(X).all()


def test_a_sparse_indicator_gives_a_sparse_prediction():
    X, Y = make_multilabel()
    model = FusionClassifier().fit(X, sparse.csr_matrix(Y))
    assert sparse.issparse(model.predict(X))
    dense = FusionClassifier().fit(X, Y)
    assert_array_equal(model.predict(X).toarray(), dense.predict(X))
    assert_array_equal(model.classes_, np.arange(5))


def test_scorers_searches_clones_and_pickles_take_indicator_targets():
    X, Y = make_multilabel(n=120)
    model = FusionClassifier(modalities={"a": 6, "b": 6})
    search = GridSearchCV(
        model, {"C": [0.1, 1], "fusion_dim": [None, 2]}, scoring="average_precision"
    ).fit(X, Y)
    assert 0.5 < search.best_score_ <= 1
    scores = cross_validate(model, X, Y, scoring=["average_precision", "f1_macro"])
    assert np.isfinite(scores["test_average_precision"]).all()
    fitted = clone(model).fit(X, Y)
    again = pickle.loads(pickle.dumps(fitted))
    assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))


def test_sample_weight_is_routed_through_a_pipeline():
    X, Y = make_multilabel(n=60)
    weight = np.random.default_rng(0).uniform(0.1, 3, len(X))
    with config_context(enable_metadata_routing=True):
        head = FusionClassifier().set_fit_request(sample_weight=True)
        pipe = Pipeline([("scale", MinMaxScaler()), ("head", head)])
        pipe.set_params(head__C=0.5).fit(X, Y, sample_weight=weight)
    direct = FusionClassifier(C=0.5).fit(
        pipe["scale"].transform(X), Y, sample_weight=weight
    )
    assert_allclose(pipe["head"].coef_, direct.coef_)


def test_the_fit_is_deterministic():
    X, Y = make_multilabel()
    fits = [FusionClassifier(fusion_dim=2).fit(X, Y).coef_ for _ in range(2)]
    assert_array_equal(*fits)


def test_too_few_steps_warn():
    X, Y = make_multilabel()
    with pytest.warns(ConvergenceWarning, match="max_iter=2 steps; increase max_iter"):
        model = FusionClassifier(max_iter=2).fit(X, Y)
    assert model.n_iter_ == 2


def test_verbose_prints_a_line_per_step(capsys):
    X, Y = make_multilabel(n=50)
    model = FusionClassifier(verbose=True).fit(X, Y)
    assert capsys.readouterr().out.count("[FusionClassifier]") == model.n_iter_


def test_importing_the_module_does_not_import_torch():
    code = "import sys, sklearn_difffeat.fusion; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Embed(TransformerMixin, BaseEstimator):
    """Toy transformer: one column of numbers -> a labelled array of features."""

    def __init__(self, modality, width=3):
        self.modality = modality
        self.width = width

    def fit(self, X, y=None):
        self.n_features_in_ = 1
        return self

    def transform(self, X):
        cells = np.asarray(X, dtype=np.float32).reshape(-1, 1)
        features = np.hstack([cells**p for p in range(1, self.width + 1)])
        return ModalityArray.wrap(features, modality=self.modality)

    def get_feature_names_out(self, input_features=None):
        return np.array([f"f{i}" for i in range(self.width)], dtype=object)


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"picture": rng.normal(size=60), "caption": rng.normal(size=60)})
    Y = np.column_stack([X.sum(axis=1) > 0, X["picture"] > 1]).astype(int)
    return X, Y


def triples():
    return [
        ("image", Embed("image"), "picture"),
        ("text", Embed("text", width=2), "caption"),
    ]


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize("output", ["default", "pandas"])
def test_modalities_come_through_a_column_transformer(table, n_jobs, output):
    X, Y = table
    features = ColumnTransformer(triples(), n_jobs=n_jobs)
    if output == "pandas":
        features.set_output(transform=output)
    model = Pipeline([("features", features), ("classifier", FusionClassifier())])
    model.fit(X, Y)
    expected = {"image": slice(0, 3), "text": slice(3, 5)}
    assert model["classifier"].modalities_ == expected
    X.loc[::2, "caption"] = np.nan
    assert model.predict_proba(X).shape == (60, 2)
    search = GridSearchCV(
        model, {"features__image__width": [2, 3]}, scoring="average_precision", cv=3
    ).fit(X, Y)
    found = search.best_estimator_["classifier"].modalities_
    assert list(found) == ["image", "text"]


def test_make_fusion_pipeline_names_the_columns_of_any_transformer(table):
    X, Y = table
    model = make_fusion_pipeline(
        ("numbers", StandardScaler(), ["caption"]),
        ("image", Embed("picture"), "picture"),
        classifier=FusionClassifier(fusion_dim=1),
    ).fit(X, Y)
    assert model["classifier"].modalities_ == {
        "numbers": slice(0, 1),
        "image": slice(1, 4),
    }
    assert clone(model).set_params(features__image__width=2).fit(X, Y)
    assert model.predict(X).shape == Y.shape


def test_make_fusion_pipeline_takes_triples_only():
    with pytest.raises(ValueError, match="Transformer 0 of make_fusion_pipeline"):
        make_fusion_pipeline(("image", Embed("image")))


def test_modalities_in_another_order_than_in_fit_are_an_error():
    X, Y = make_multilabel()
    a, b = ModalityArray.wrap(X[:, :4], "a"), ModalityArray.wrap(X[:, 4:], "b")
    model = FusionClassifier().fit(np.hstack([a, b]), Y)
    with pytest.raises(ValueError, match="should match those of fit"):
        model.predict(np.hstack([b, a]))
    assert_array_equal(model.predict(X), model.predict(np.hstack([a, b])))


def test_asking_for_shares_without_modalities_warns():
    X, Y = make_multilabel()
    model = FusionClassifier().fit(X, Y)
    with pytest.warns(UserWarning, match="came to fit without modalities"):
        model.modality_contributions(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        declared = FusionClassifier(modalities={"all": 12}).fit(X, Y)
        declared.modality_contributions(X)


TWO = {"image": 8, "text": 4}


def broken(row=5, columns=slice(9, 10), value=np.nan):
    X, _ = make_multilabel()
    X[row, columns] = value
    return X


@pytest.mark.parametrize(
    "params, X, message",
    [
        (TWO, broken(), "NaN in row 5, column 9.*'text'.*make the whole modality NaN"),
        (TWO, broken(slice(None), slice(8, 12)), "'text' is NaN in every row"),
        (TWO, broken(value=np.inf), "Input X contains infinity"),
        (None, broken(7, slice(None)), "Input X contains NaN, first in row 7"),
        ({"image": 8, "text": 5}, broken(value=0), "sum to 13 but X has 12 columns"),
    ],
)
def test_bad_features_are_an_error_that_says_where(params, X, message):
    with pytest.raises(ValueError, match=message):
        FusionClassifier(modalities=params).fit(X, make_multilabel()[1])


def test_bad_features_are_an_error_in_prediction_too():
    X, Y = make_multilabel()
    model = FusionClassifier(modalities=TWO).fit(X, Y)
    with pytest.raises(ValueError, match="NaN in row 5, column 9"):
        model.predict(broken())


@pytest.mark.parametrize(
    "y, params, message",
    [
        (np.zeros(300), {}, "contains only one class"),
        (np.linspace(0, 1, 300), {}, "Unknown label type"),
        (np.arange(600).reshape(300, 2) % 3, {}, "Multioutput target data"),
        (2 * np.eye(300, 4, dtype=int), {}, "values other than 0 and 1"),
        (np.eye(300, 4, dtype=int), {"class_weight": [{1: 2}]}, "y has 4 labels"),
        (np.eye(300, 4, dtype=int), {"class_weight": {3: 2}}, "class 3 for label 0"),
        (np.eye(300, 4, dtype=int), {"fusion_dim": 0}, "'fusion_dim' parameter"),
    ],
)
def test_bad_targets_and_parameters_are_an_error(y, params, message):
    with pytest.raises(ValueError, match=message):
        FusionClassifier(**params).fit(make_multilabel()[0], y)


@pytest.mark.parametrize("standardize", [True, False])
def test_modality_weight_scales_the_columns_that_the_penalty_sees(standardize):
    X, Y = make_multilabel(n=200, d=10, L=3)
    scaled = StandardScaler().fit_transform(X) if standardize else X.copy()
    scaled[:, :6] *= 0.25
    expected = FusionClassifier(standardize=False).fit(scaled, Y)
    model = FusionClassifier(
        modalities={"image": 6, "text": 4},
        modality_weights={"image": 0.25},
        standardize=standardize,
    ).fit(X, Y)
    assert_allclose(model.predict_proba(X), expected.predict_proba(scaled), atol=1e-5)
    assert_allclose(
        X @ model.coef_.T + model.intercept_, model.decision_function(X), atol=1e-6
    )


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"sound": 1.0}, "names 'sound', but the modalities of X are"),
        ({"image": 0.0}, "is not a positive number"),
        ({"image": "much"}, "is not a positive number"),
    ],
)
def test_modality_weight_that_cannot_be_is_an_error(weights, message):
    X, Y = make_multilabel(n=50, d=10, L=3)
    model = FusionClassifier(
        modalities={"image": 6, "text": 4}, modality_weights=weights
    )
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y)
