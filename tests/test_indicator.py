import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

from sklearn_difffeat._indicator import check_indicator

Y = np.array([[0, 1], [1, 1], [0, 0]])


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
@pytest.mark.parametrize(
    "form", [np.array, sparse.csr_array, sparse.coo_matrix, pd.DataFrame]
)
def test_indicators_are_dense_in_their_own_dtype(form, dtype):
    found = check_indicator(form(Y.astype(dtype)), "y")
    assert isinstance(found, np.ndarray) and found.dtype == dtype
    assert_array_equal(found, Y)


@pytest.mark.parametrize("value", [2, -1, 0.5])
@pytest.mark.parametrize("form", [np.array, sparse.csr_array])
def test_another_value_is_an_error_that_names_its_row(form, value):
    wrong = np.where(np.arange(3)[:, None] == 1, value, Y)
    message = f"y holds values other than 0 and 1, first {value} in row 1; give 1"
    with pytest.raises(ValueError, match=message):
        check_indicator(form(wrong), "y")


def test_missing_values_and_columns_are_errors_unless_asked_for():
    with pytest.raises(ValueError, match="Input y contains NaN"):
        check_indicator([[0, np.nan]], "y")
    with pytest.raises(ValueError, match="Expected 2D array"):
        check_indicator([0, 1], "y")
    assert_array_equal(check_indicator([0, 1], "label", ensure_2d=False), [0, 1])
