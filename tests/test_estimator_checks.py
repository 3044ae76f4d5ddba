"""scikit-learn's own checks of estimators, on both transformers.

scikit-learn runs nearly none of them on an estimator whose X is not 2-D. So each is
named here: it runs as it is, or on cells made of the rows of numbers that it gives, or
a twin with the same idea stands in for it, whose docstring tells why.
"""

import numpy as np
import pandas as pd
import polars
import pytest
from helpers.rows_as_cells import RowsOfPictures, RowsOfTexts, pictures, texts
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.utils._testing import create_memmap_backed_data
from sklearn.utils.estimator_checks import estimator_checks_generator

from sklearn_difffeat import (
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
)

# They give no X to the methods that the transformers have, or before fit only.
AS_IT_IS = {
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_sparse_array",
    "check_estimator_sparse_matrix",
    "check_estimator_sparse_tag",
    "check_estimator_tags_renamed",
    "check_estimators_unfitted",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_transformer_n_iter",
    "check_transformers_unfitted",
    "check_valid_tag_types",
}
# They give rows of numbers; a picture is drawn or a text is written from each.
ON_ROWS_AS_CELLS = {
    "check_dict_unchanged",
    "check_dont_overwrite_parameters",
    "check_estimators_fit_returns_self",
    "check_estimators_overwrite_params",
    "check_estimators_pickle",
    "check_fit2d_1feature",
    "check_fit2d_1sample",
    "check_fit_check_is_fitted",
    "check_fit_idempotent",
    "check_fit_score_takes_y",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_pipeline_consistency",
    "check_positive_only_tag_during_fit",
    "check_transformer_general",
}
NUMBERS = np.random.default_rng(0).normal(size=(4, 3))


def check_array_api_input(transformer, cells):
    """scikit-learn skips its own unless the environment asks; X is no matrix here."""
    assert not transformer.__sklearn_tags__().array_api_support


def check_readonly_memmap_input(transformer, cells):
    """Instead of a mapped matrix: mapped pictures, and mapped fixed-width texts."""
    mapped = create_memmap_backed_data(np.asarray(cells))
    assert not mapped.flags.writeable
    expected = transformer.fit_transform(cells)
    assert_array_equal(transformer.fit_transform(mapped), expected)


def check_f_contiguous_array_estimator(transformer, cells):
    """Instead of a matrix: pictures, and a column of texts, in Fortran's order."""
    array = np.asarray(cells)
    array = np.stack([array, array], axis=1)
    expected = transformer.fit_transform(cells)
    found = transformer.fit_transform(np.asfortranarray(array)[:, 0])
    assert_array_equal(found, expected)


def check_estimators_dtypes(transformer, cells):
    """Instead of number types: an array's type says its range, and a text its width."""
    cells = np.asarray(cells)
    if cells.ndim == 1:
        alike = [cells.astype(object), cells.astype(np.dtypes.StringDType())]
    else:
        alike = [cells.astype(np.int32), cells.astype(np.int64)]
        alike += [(cells / 255).astype(dtype) for dtype in (np.float32, np.float64)]
        alike += [cells.astype(np.uint16) * 257]
    expected = transformer.fit_transform(cells)
    assert expected.dtype == np.float32
    for array in alike:
        found = transformer.fit_transform(array)
        assert found.dtype == np.float32
        assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def check_complex_data(transformer, cells):
    """Instead of a complex matrix: cells of complex numbers are of no known kind."""
    for X in (np.ones((3, 8, 8, 3), dtype=complex), [1 + 1j, 2j], NUMBERS + 1j):
        with pytest.raises((TypeError, ValueError), match=r"pass|use"):
            transformer.fit_transform(X)


def check_dtype_object(transformer, cells):
    """Instead of numbers as objects: cells as objects, and one that is no cell."""
    objects = np.empty(len(cells), dtype=object)
    objects[:] = list(cells)
    expected = transformer.fit_transform(cells)
    assert_array_equal(transformer.fit_transform(objects), expected)
    objects[2] = {"foo": "bar"}
    for method in (transformer.fit, transformer.transform):
        with pytest.raises((TypeError, ValueError), match="row 2 of X"):
            method(objects)


def check_estimators_empty_data_messages(transformer, cells):
    """Instead of matrices without rows or columns: columns and frames without them."""
    transformer.fit(cells)
    for empty in (cells[:0], np.asarray(cells)[:0], pd.Series([], dtype=object)):
        for method in (transformer.fit, transformer.transform):
            with pytest.raises(ValueError, match=r"0 sample\(s\)"):
                method(empty)
    with pytest.raises(ValueError, match="0 columns"):
        transformer.fit(pd.DataFrame(index=range(4)))


def check_estimators_nan_inf(transformer, cells):
    """Instead of NaN and inf in a matrix: a missing cell, and pictures with them."""
    broken = [[*cells[:2], absent] for absent in (None, np.nan, pd.NA)]
    if not isinstance(cells, list):
        for value in (np.nan, np.inf):
            picture = np.full((8, 8, 3), value)
            broken.append([*cells[:2], picture])
    transformer.fit(cells)
    for X in broken:
        with pytest.raises(ValueError, match="row 2"):
            transformer.transform(X)
        with pytest.raises(ValueError, match="row 2"):
            transformer.fit_transform(X)


def check_transformer_data_not_an_array(transformer, cells):
    """Instead of a matrix in disguise: the containers that hold a column of cells."""
    transformer.fit(cells)
    expected, plain = transformer.transform(cells), list(cells)
    series = pd.Series(plain, index=[7, 7, 9, 1])
    held = [tuple(plain), series, series.to_frame("cell")]
    if isinstance(cells, list):
        held += [polars.Series(plain), polars.DataFrame({"cell": plain})]
    for X in held:
        assert_array_equal(transformer.transform(X), expected)


def check_n_features(transformer, cells):
    """X is one column, whose cells have no count of features: none is remembered."""
    frame = pd.DataFrame({"one": list(cells), "other": list(cells)})
    transformer.fit(frame[["one"]])
    assert not hasattr(transformer, "n_features_in_")
    for method in (transformer.fit, transformer.transform):
        with pytest.raises(ValueError, match="2 columns"):
            method(frame)


def check_fit1d(transformer, cells):
    """A 1-D X is what the transformers take; of numbers, its cells are refused."""
    for X in (NUMBERS[0], list(NUMBERS[0])):
        with pytest.raises(TypeError, match="row 0 of X"):
            transformer.fit(X)


def check_fit2d_predict1d(transformer, cells):
    """A row is a cell here, so that the advice is another than to reshape."""
    transformer.fit(cells)
    with pytest.raises((TypeError, ValueError), match=r"pass|wrap"):
        transformer.transform(cells[0])


TWINS = {
    "check_array_api_input": check_array_api_input,
    "check_complex_data": check_complex_data,
    "check_dtype_object": check_dtype_object,
    "check_estimators_dtypes": check_estimators_dtypes,
    "check_estimators_empty_data_messages": check_estimators_empty_data_messages,
    "check_estimators_nan_inf": check_estimators_nan_inf,
    "check_f_contiguous_array_estimator": check_f_contiguous_array_estimator,
    "check_fit1d": check_fit1d,
    "check_fit2d_predict1d": check_fit2d_predict1d,
    "check_n_features_in": check_n_features,
    "check_n_features_in_after_fitting": check_n_features,
    "check_readonly_memmap_input": check_readonly_memmap_input,
    "check_transformer_data_not_an_array": check_transformer_data_not_an_array,
}


def checks_of(kind):
    """What scikit-learn would run on a transformer if its X were 2-D, by name."""

    class Flat(kind):
        def __sklearn_tags__(self):
            tags = super().__sklearn_tags__()
            tags.input_tags.two_d_array = True
            return tags

    checks = {}
    for _, check in estimator_checks_generator(Flat(), legacy=True):
        checks.setdefault(check.func.__name__, []).append(check)
    return checks


CHECKS = checks_of(ImageDiffusionFeatureTransformer)


def test_each_check_of_the_installed_scikit_learn_is_named_once():
    named = [*AS_IT_IS, *ON_ROWS_AS_CELLS, *TWINS]
    assert len(named) == len(set(named))
    for kind in (ImageDiffusionFeatureTransformer, TextDiffusionFeatureTransformer):
        assert not set(checks_of(kind)) - set(named)


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("modality", ["image", "text"])
def test_scikit_learns_check_holds(modality, name, request, pass_counter):
    plain, rows, cells, folder = {
        "image": (ImageDiffusionFeatureTransformer, RowsOfPictures, pictures, "dit"),
        "text": (TextDiffusionFeatureTransformer, RowsOfTexts, texts, "bert"),
    }[modality]
    folder = str(request.getfixturevalue(f"{folder}_folder"))
    if name in TWINS:
        TWINS[name](plain(folder), cells(NUMBERS))
    else:
        kind = plain if name in AS_IT_IS else rows
        for check in CHECKS[name]:
            check(kind(folder))
    n_rows_max = 0 if name in AS_IT_IS else 200
    assert pass_counter["rows"] <= n_rows_max
