import numpy as np
import pytest
from helpers.fusion_oracles import make_multilabel, one_vs_rest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_difffeat import FusionClassifier

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
        (np.zeros(299), {}, "inconsistent numbers of samples"),
        (np.eye(300, 4, dtype=int) * 2 - 1, {}, "values other than 0 and 1"),
        (np.full((300, 2), 0.5), {}, "Unknown label type"),
        (np.eye(300, 4, dtype=int), {"class_weight": {1: -2}}, "class_weight holds -2"),
        (np.arange(300) % 3, {"class_weight": {1: np.nan}}, "class_weight holds nan"),
        (np.eye(300, 4, dtype=int), {"C": 0}, "'C' parameter.*must be a float"),
        (np.eye(300, 4, dtype=int), {"C": -1.0}, "'C' parameter.*must be a float"),
        (np.eye(300, 4, dtype=int), {"C": np.nan}, "'C' parameter.*must be a float"),
        (
            np.eye(300, 4, dtype=int),
            {"modalities": {"a": slice(0, 13)}},
            "outside X, which has 12 columns",
        ),
        (
            np.eye(300, 4, dtype=int),
            {"modalities": {"a": slice(0, 7), "b": slice(6, 12)}},
            "overlaps modalities",
        ),
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
        ({"image": -0.5}, "is not a number of at least 0"),
        ({"image": "much"}, "is not a number of at least 0"),
        ({"image": 0, "text": 0}, "leaves out every modality"),
    ],
)
def test_modality_weight_that_cannot_be_is_an_error(weights, message):
    X, Y = make_multilabel(n=50, d=10, L=3)
    model = FusionClassifier(
        modalities={"image": 6, "text": 4}, modality_weights=weights
    )
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y)


@pytest.mark.parametrize("class_weight", ["balanced", {0: 1, 1: 7}])
def test_class_weight_matches_one_vs_rest_logistic_regression(class_weight):
    X, Y = make_multilabel()
    model = FusionClassifier(class_weight=class_weight).fit(X, Y)
    oracle = one_vs_rest(X, Y, class_weight=class_weight)
    assert_allclose(model.predict_proba(X), oracle.predict_proba(X), atol=1e-4)


def test_class_weights_know_their_labels_beside_constant_ones():
    X, Y = make_multilabel(L=3)
    Y[:, 1] = 1
    weights = [{1: 5}, {1: 2}, {0: 3}]
    for class_weight in ("balanced", weights):
        with pytest.warns(UserWarning, match="1 of the 3 labels are constant"):
            model = FusionClassifier(class_weight=class_weight).fit(X, Y)
        others = [0, 2]
        if class_weight != "balanced":
            class_weight = [weights[label] for label in others]
        alone = FusionClassifier(class_weight=class_weight).fit(X, Y[:, others])
        assert_allclose(
            model.predict_proba(X)[:, others], alone.predict_proba(X), atol=1e-6
        )


def test_a_list_of_class_weights_holds_one_dict_per_label():
    X, Y = make_multilabel(L=2)
    model = FusionClassifier(class_weight=[{1: 5}, {0: 2, 1: 1}], tol=1e-10).fit(X, Y)
    for label, weights in enumerate([{0: 1, 1: 5}, {0: 2, 1: 1}]):
        alone = FusionClassifier(class_weight=weights, tol=1e-10).fit(X, Y[:, label])
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


def test_one_row_is_one_class_or_constant_labels():
    with pytest.raises(ValueError, match="at least 2 classes"):
        FusionClassifier().fit([[1.0, 2.0]], [1])
    with pytest.warns(UserWarning, match="2 of the 2 labels are constant"):
        model = FusionClassifier().fit([[1.0, 2.0]], [[0, 1]])
    assert_array_equal(model.predict([[0.0, 9.0]]), [[0, 1]])


@pytest.mark.parametrize("X", [np.empty((0, 3)), np.empty((4, 0))])
def test_no_rows_or_no_columns_are_an_error(X):
    with pytest.raises(ValueError, match=r"Found array with 0 (sample|feature)\(s\)"):
        FusionClassifier().fit(X, np.zeros((len(X), 2)))


@pytest.mark.parametrize("dtype", [np.float16, np.int32, np.uint8])
def test_other_dtypes_are_computed_in_double_precision(dtype):
    X, Y = make_multilabel()
    X = X.clip(0, 100).astype(dtype)
    model = FusionClassifier().fit(X, Y)
    double = FusionClassifier().fit(X.astype(np.float64), Y)
    assert_array_equal(model.coef_, double.coef_)


def test_the_memory_layout_of_the_features_does_not_matter():
    X, Y = make_multilabel()
    plain = FusionClassifier().fit(X, Y)
    odd = FusionClassifier().fit(np.asfortranarray(X), np.asfortranarray(Y))
    strided = FusionClassifier().fit(np.repeat(X, 2, axis=1)[:, ::2], Y)
    assert_array_equal(plain.coef_, odd.coef_)
    assert_array_equal(plain.coef_, strided.coef_)


def test_frames_of_labels_are_taken():
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    X, Y = make_multilabel()
    plain = FusionClassifier().fit(X, Y)
    for frame in (pandas.DataFrame(Y), polars.DataFrame(Y)):
        assert_array_equal(FusionClassifier().fit(X, frame).coef_, plain.coef_)
