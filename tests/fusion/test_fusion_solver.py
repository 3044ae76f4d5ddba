import numpy as np
import pytest
from helpers.fusion_oracles import make_multilabel
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import check_grad

from sklearn_difffeat import FusionClassifier
from sklearn_difffeat.fusion._loss import LabelledRows
from sklearn_difffeat.fusion._principal_axes import PrincipalAxes, row_space
from sklearn_difffeat.fusion._problems import FactorizedProblem, LinearProblem
from sklearn_difffeat.fusion._solver import (
    factors,
    fit_factorized,
    fit_linear,
    nearest,
)

OPTIONS = {"tol": 1e-12, "max_iter": 500, "precision": 1e-16, "verbose": False}


def labelled_rows(softmax=False, device=None, shape=(30, 6, 4), seed=0):
    rng = np.random.default_rng(seed)
    n, d, L = shape
    X = rng.normal(size=(n, d))
    Y = (rng.uniform(size=(n, L)) < 0.4).astype(np.uint8)
    if softmax:
        Y = np.eye(L, dtype=np.uint8)[rng.integers(0, L, n)]
    weight = rng.uniform(0.5, 2, n)
    return LabelledRows(
        X,
        Y,
        C=0.7,
        sample_weight=weight,
        label_weight=None if softmax else rng.uniform(1, 3, (2, L)),
        softmax=softmax,
        device=device,
    )


def problem(rows, rank):
    """A problem at random parameters."""
    rng = np.random.default_rng(1)
    if rank is not None:
        shapes = (rows.n_features, rank), (rank, rows.n_labels), (rows.n_labels,)
        return FactorizedProblem(rows, *(rng.normal(size=s) for s in shapes))
    result = LinearProblem(rows)
    result.start()
    result.aim(rng.normal(size=result.theta.shape))
    result.move(np.ones(result.theta.shape[1]))
    return result


def along(found, step, size):
    """Objective and gradient of a problem, away from its point."""
    found.aim(step.reshape(found.theta.shape))
    return found.evaluate(np.full(found.theta.shape[1], size), slice(None))


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("rank", [None, 2])
def test_gradients_agree_with_finite_differences(softmax, rank):
    found = problem(labelled_rows(softmax), rank)
    start = np.random.default_rng(2).normal(size=found.theta.size)
    error = check_grad(
        lambda step: along(found, step, 1.0)[0].sum(),
        lambda step: along(found, step, 1.0)[1].ravel(),
        start,
    )
    assert error < 1e-4


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("rank", [None, 2])
def test_a_step_ends_where_it_was_evaluated(softmax, rank):
    found = problem(labelled_rows(softmax), rank)
    step = np.random.default_rng(2).normal(size=found.theta.shape)
    value, gradient = along(found, step, 0.3)
    size = np.full(found.theta.shape[1], 0.3)
    assert_allclose(found.value(size, np.arange(len(size))), value)
    found.move(size)
    assert_allclose(along(found, step, 0.0)[0], value)
    assert_allclose(along(found, step, 0.0)[1], gradient)


def test_closed_labels_leave_the_others_as_they_are():
    found = problem(labelled_rows(), None)
    step = np.random.default_rng(2).normal(size=found.theta.shape)
    value, gradient = along(found, step, 1.0)
    found.keep(np.array([1, 3]))
    again, by_weights = along(found, step[:, [1, 3]], 1.0)
    assert_allclose(again, value[[1, 3]])
    assert_allclose(by_weights, gradient[:, [1, 3]])


@pytest.mark.parametrize("rank", [None, 2])
def test_the_objective_does_not_depend_on_the_row_batches(rank):
    whole, batches = labelled_rows(), labelled_rows()
    batches.chunks = [slice(i, i + 7) for i in range(0, 30, 7)]
    step = np.random.default_rng(0).normal(size=problem(whole, rank).theta.size)
    for a, b in zip(
        along(problem(whole, rank), step, 1.0),
        along(problem(batches, rank), step, 1.0),
        strict=True,
    ):
        assert_allclose(a, b)


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("rank", [None, 2])
def test_torch_computes_the_same_objective(softmax, rank):
    pytest.importorskip("torch")
    here, there = (problem(labelled_rows(softmax, d), rank) for d in (None, "cpu"))
    step = np.random.default_rng(0).normal(size=here.theta.size)
    for a, b in zip(along(here, step, 1.0), along(there, step, 1.0), strict=True):
        assert_allclose(a, b)


def test_label_batches_find_the_same_minimum(monkeypatch):
    rows = labelled_rows()
    whole = fit_linear(rows, **OPTIONS)
    monkeypatch.setattr("sklearn_difffeat.fusion._solver._LOGIT_BYTES", 3 * 2 * 8 * 30)
    assert_allclose(fit_linear(rows, **OPTIONS).heads, whole.heads, atol=1e-5)


def test_the_axes_invert_the_quadratic_model():
    rng = np.random.default_rng(0)
    X, weight = rng.normal(size=(40, 9)), rng.uniform(0.1, 2, 40)
    gradient, curvature = rng.normal(size=(9, 3)), rng.uniform(1, 9, 3)
    step = PrincipalAxes(X, weight).solve(gradient, curvature)
    moments = X.T * weight @ X / weight.sum()
    for label in range(3):
        model = np.eye(9) + curvature[label] * moments
        assert_allclose(model @ step[:, label], gradient[:, label], rtol=1e-4)


def test_few_rows_are_seen_in_their_own_space():
    X = np.random.default_rng(0).normal(size=(9, 40))
    seen, axes = row_space(X)
    assert seen.shape == (9, 9)
    assert_allclose(seen @ axes.T, X, atol=1e-10)
    assert_allclose(axes.T @ axes, np.eye(9), atol=1e-10)
    assert row_space(X.T)[1] is None


@pytest.mark.parametrize("fusion_dim", [None, 2])
def test_many_columns_fit_the_same_from_leading_axes(monkeypatch, fusion_dim):
    X, Y = make_multilabel(n=100, d=20)
    full = FusionClassifier(fusion_dim=fusion_dim).fit(X, Y)
    monkeypatch.setattr("sklearn_difffeat.fusion._principal_axes._MAX_FULL", 19)
    monkeypatch.setattr("sklearn_difffeat.fusion._principal_axes._N_LEADING", 5)
    params = {"fusion_dim": fusion_dim, "random_state": 0}
    fits = [FusionClassifier(**params).fit(X, Y).predict_proba(X) for _ in range(2)]
    assert_allclose(fits[0], full.predict_proba(X), atol=1e-3)
    assert np.array_equal(*fits)


@settings(deadline=None, max_examples=25)
@given(
    n=st.integers(2, 60),
    d=st.integers(1, 30),
    L=st.integers(1, 12),
    rank=st.integers(1, 15),
    softmax=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_factorised_objective_is_never_above_its_start(
    n, d, L, rank, softmax, seed
):
    rows = labelled_rows(softmax, shape=(n, d, L + softmax), seed=seed)
    convex = fit_linear(rows, **OPTIONS)
    found = fit_factorized(rows, convex, rank, **OPTIONS)
    used = min(rank, *convex.heads.shape)
    near = nearest(rows, convex.heads, convex.intercept, used)
    start = FactorizedProblem(rows, *factors(near, used), convex.intercept)
    P, H = found.projection[:, :used], found.heads[:used]
    end = FactorizedProblem(rows, P, H, found.intercept)
    value, gradient = end.start()
    assert value <= start.start()[0] * (1 + 1e-9)
    assert np.abs(gradient).max() < 1e-2


def test_the_factorised_objective_falls_for_many_rows_too():
    rows = labelled_rows(shape=(6000, 40, 20))
    convex = fit_linear(rows, **OPTIONS)
    found = fit_factorized(rows, convex, 5, **OPTIONS)
    near = nearest(rows, convex.heads, convex.intercept, 5)
    start = FactorizedProblem(rows, *factors(near, 5), convex.intercept)
    end = FactorizedProblem(rows, found.projection, found.heads, found.intercept)
    assert end.start()[0] < start.start()[0]
