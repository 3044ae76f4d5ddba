import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
from helpers.fusion_oracles import log_loss_objective, make_multilabel, one_vs_rest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_difffeat import FusionClassifier


@parametrize_with_checks([FusionClassifier(), FusionClassifier(fusion_dim=8)])
def test_every_scikit_learn_check_passes(estimator, check):
    check(estimator)


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


@pytest.mark.parametrize("fusion_dim", [None, 3])
def test_a_torch_device_fits_the_same_model(fusion_dim):
    pytest.importorskip("torch")
    X, Y = make_multilabel(dtype=np.float32)
    here = FusionClassifier(fusion_dim=fusion_dim).fit(X, Y)
    there = FusionClassifier(fusion_dim=fusion_dim, device="cpu").fit(X, Y)
    assert_allclose(here.predict_proba(X), there.predict_proba(X), atol=2e-3)


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


@pytest.mark.parametrize("fusion_dim", [1, 5, 8])
def test_the_factorised_objective_matches_a_linear_network(fusion_dim):
    X, Y = make_multilabel(L=8)
    Z = StandardScaler().fit_transform(X)
    C, n = 0.5, len(X)
    network = MLPClassifier(
        (fusion_dim,), activation="identity", solver="lbfgs", alpha=1 / C,
        max_iter=5000, tol=1e-10, random_state=0,
    ).fit(Z, Y)  # fmt: skip
    model = FusionClassifier(fusion_dim=fusion_dim, C=C).fit(X, Y)
    F = model.decision_function(X)
    squares = sum((P**2).sum() for P in [*model.projections_.values(), model.heads_])
    found = (np.logaddexp(0, F) - Y * F).sum() + 0.5 * squares / C
    assert found <= n * network.loss_ * (1 + 1e-6)
    assert_allclose(model.predict_proba(X), network.predict_proba(Z), atol=5e-3)


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


def test_the_fit_is_deterministic():
    X, Y = make_multilabel()
    fits = [FusionClassifier(fusion_dim=2).fit(X, Y).coef_ for _ in range(2)]
    assert_array_equal(*fits)


def test_too_few_steps_warn():
    X, Y = make_multilabel()
    with pytest.warns(ConvergenceWarning, match="max_iter=2 steps; increase max_iter"):
        model = FusionClassifier(max_iter=2).fit(X, Y)
    assert model.n_iter_ == 2


def test_verbose_shows_how_many_labels_are_fitted(capsys):
    X, Y = make_multilabel(n=50)
    FusionClassifier(verbose=True, fusion_dim=2).fit(X, Y)
    shown = capsys.readouterr()
    assert not shown.out
    assert "FusionClassifier, convex: 100%" in shown.err
    assert "5/5" in shown.err and "step=" in shown.err
    assert "FusionClassifier, factorised: 100%" in shown.err


def test_importing_the_module_does_not_import_torch():
    code = "import sys, sklearn_difffeat.fusion; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_asking_for_shares_without_modalities_warns():
    X, Y = make_multilabel()
    model = FusionClassifier().fit(X, Y)
    with pytest.warns(UserWarning, match="had no modalities in fit"):
        model.modality_contributions(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        declared = FusionClassifier(modalities={"all": 12}).fit(X, Y)
        declared.modality_contributions(X)


def test_an_interrupted_fit_leaves_the_model_unfitted(monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("sklearn_difffeat.fusion._solver.minimize_lbfgs", interrupt)
    X, Y = make_multilabel()
    model = FusionClassifier()
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y)
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_a_failed_fit_leaves_an_earlier_one_as_it_was():
    X, Y = make_multilabel()
    model = FusionClassifier().fit(X, Y)
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match="infinity"):
        model.fit(np.where(X > 5, np.inf, X), Y)
    assert_array_equal(model.predict_proba(X), before)


def test_a_label_is_predicted_where_its_probability_is_at_least_a_half():
    X, Y = make_multilabel()
    model = FusionClassifier().fit(X, Y)
    model.coef_ *= 0
    model.centered_intercept_ = np.array([0.0, -0.0, -1e-17, 1e-17, -1e-3])
    assert_array_equal(model.predict(X), model.predict_proba(X) >= 0.5)
    assert_array_equal(model.predict(X[:1]), [[1, 1, 1, 1, 0]])
