import numpy as np
import pandas as pd
import pytest
from helpers.fusion_oracles import make_multilabel
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy import sparse

from sklearn_difffeat import FusionClassifier

TWO = {"image": 4, "text": 6}
FORMATS = [
    sparse.csr_matrix,
    sparse.csc_matrix,
    sparse.coo_matrix,
    sparse.csr_array,
    sparse.csc_array,
    sparse.dok_array,
]


def thinned(dtype=np.float64, n=60):
    X, Y = make_multilabel(n=n, d=10, L=3)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    X[np.abs(X) < 0.8] = 0
    return (9 * X).astype(dtype), Y


def assert_same_model(one, other, X, dense):
    for name in ("mean_", "scale_", "coef_", "intercept_"):
        assert_array_equal(getattr(one, name), getattr(other, name))
    for method in ("predict", "predict_proba", "decision_function", "transform"):
        assert_array_equal(getattr(one, method)(X), getattr(other, method)(dense))
    shares = one.modality_contributions(X)
    for name, share in other.modality_contributions(dense).items():
        assert_array_equal(shares[name], share)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8, bool])
@pytest.mark.parametrize("form", FORMATS)
def test_a_sparse_matrix_is_fitted_as_the_dense_one(form, dtype):
    dense, Y = thinned(dtype)
    X = form(dense)
    model = FusionClassifier(modalities=TWO, modality_weights={"image": 0.5})
    weight = np.arange(len(Y)) % 3
    fitted = model.fit(X, Y, sample_weight=weight)
    expected = FusionClassifier(modalities=TWO, modality_weights={"image": 0.5})
    expected.fit(dense, Y, sample_weight=weight)
    assert_same_model(fitted, expected, X, dense)


@given(
    absent=st.lists(st.sampled_from(["", "image", "text", "both"]), min_size=60,
                    max_size=60),
    columns=st.permutations(range(10)),
    fusion_dim=st.sampled_from([None, 2]),
)  # fmt: skip
def test_sparse_rows_may_lack_modalities(absent, columns, fusion_dim):
    dense, Y = thinned()
    spans = {"image": columns[:4], "text": columns[4:]}
    for row, lacks in enumerate(absent[2:], 2):
        for name in spans:
            if lacks in (name, "both"):
                dense[row, spans[name]] = np.nan
    X = sparse.csr_matrix(np.nan_to_num(dense, nan=7))
    X.data[X.data == 7] = np.nan
    model = FusionClassifier(modalities=spans, fusion_dim=fusion_dim)
    expected = FusionClassifier(modalities=spans, fusion_dim=fusion_dim).fit(dense, Y)
    assert_same_model(model.fit(X, Y), expected, X, dense)


def test_stored_zeros_and_entries_in_parts_mean_their_sums():
    dense, Y = thinned()
    rows, columns = np.indices(dense.shape)
    parts = np.stack([dense / 2, dense / 2]).ravel()
    where = (np.tile(rows.ravel(), 2), np.tile(columns.ravel(), 2))
    X = sparse.coo_matrix((parts, where), dense.shape)
    model = FusionClassifier(modalities=TWO).fit(X, Y)
    assert_same_model(model, FusionClassifier(modalities=TWO).fit(dense, Y), X, dense)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_array])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "NaN in row 41, column 7, but other columns of modality 'text'"),
        (np.inf, "infinity in row 41, column 7"),
        (-np.inf, "infinity in row 41, column 7"),
    ],
)
@pytest.mark.parametrize("beside", [0, np.nan])
def test_what_is_not_finite_is_an_error_that_names_row_and_column(
    form, value, message, beside
):
    dense, Y = thinned()
    model = FusionClassifier(modalities=TWO).fit(dense, Y)
    dense[50, :4] = beside
    dense[41, 7] = value
    for call in (lambda X: model.fit(X, Y), model.predict, model.transform):
        with pytest.raises(ValueError, match=f"Input X contains {message}"):
            call(form(dense))


def test_the_largest_finite_numbers_are_no_infinity():
    X = np.full((4, 1), np.finfo(np.float32).max, np.float32)
    assert FusionClassifier().fit(X, [0, 1, 0, 1]).predict(X).shape == (4,)


@pytest.mark.parametrize("fill", [0.0, np.nan, 1.0])
@pytest.mark.parametrize("mixed", [False, True])
def test_sparse_columns_of_pandas_are_fitted_as_dense_ones(fill, mixed):
    dense, Y = thinned()
    names = [f"{'image' if i < 4 else 'text'}__{i}" for i in range(10)]
    plain = pd.DataFrame(dense, columns=names)
    X = plain.astype(pd.SparseDtype(float, fill))
    if mixed:
        X[names[3]] = plain[names[3]]
    model = FusionClassifier().fit(X, Y)
    assert list(model.modalities_) == ["image", "text"]
    assert_same_model(model, FusionClassifier().fit(plain, Y), X, plain)


def test_a_dense_copy_larger_than_the_memory_is_refused_at_once():
    X = sparse.csr_matrix(([1.0], ([0], [0])), (10**5, 10**9))
    Y = np.arange(2 * 10**5).reshape(-1, 2) % 2
    with pytest.raises(
        MemoryError, match=r"745,058.1 GiB of the .* give fewer columns"
    ):
        FusionClassifier().fit(X, Y)


def test_dense_features_in_a_sparse_stack_are_warned_about():
    dense, Y = thinned()
    features = np.random.default_rng(0).normal(size=(60, 3))
    X = sparse.hstack([sparse.csr_matrix(dense), features])
    with pytest.warns(UserWarning, match="3 of the 13 columns.*sparse_threshold=0"):
        FusionClassifier().fit(X, Y)
    FusionClassifier(modalities={"words": 10, "text": 3}).fit(X, Y)
    FusionClassifier().fit(sparse.csr_matrix(dense), Y)
    FusionClassifier().fit(sparse.csr_matrix(features), Y)
