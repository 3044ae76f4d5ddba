"""The columns that the transformers take, and what is missing in them."""

import numpy as np
import pyarrow as pa
import pytest
from helpers.both import BOTH

from sklearn_difffeat import (
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
)
from sklearn_difffeat.inputs._cells import is_missing


class Lazy:
    """Makes a cell when it is asked for, as the columns of ``datasets`` do."""

    def __init__(self, cells):
        self.cells = cells
        self.asked = 0

    def __len__(self):
        return len(self.cells)

    def __getitem__(self, row):
        assert isinstance(row, int)
        self.asked += 1
        return self.cells[row]


class Table:
    """A table of the library ``datasets``: named columns, some of them lazy."""

    def __init__(self, **columns):
        self.columns = columns
        self.column_names = list(columns)

    def __getitem__(self, name):
        return Lazy(self.columns[name])


@BOTH
def test_columns_of_arrow_and_of_datasets_are_taken(kind, column, cells):
    X = list(cells(column, 5))
    transformer = kind(dtype="float32")
    expected = transformer.fit_transform(X)
    for other in (
        pa.array(X),
        pa.chunked_array([X[:2], X[2:]]),
        pa.table({"c": X}),
        pa.RecordBatch.from_pydict({"c": X}),
        Lazy(X),
        Table(c=X),
    ):
        found = transformer.fit_transform(other)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@BOTH
def test_a_table_of_several_columns_is_refused_by_their_names(kind, column, cells):
    X = list(cells(column, 2))
    for table in (pa.table({"a": X, "b": X}), Table(a=X, b=X)):
        with pytest.raises(ValueError, match=r"2 columns \['a', 'b'\]"):
            kind().fit(table)


def test_struct_columns_of_parquet_are_pictures_and_some_of_them_missing(
    cells, tmp_path
):
    first, second = cells("image", 2)
    (tmp_path / "a.png").write_bytes(second)
    structs = pa.array(
        [
            {"bytes": first, "path": "a.png"},
            {"bytes": None, "path": str(tmp_path / "a.png")},
            {"bytes": None, "path": None},
            None,
        ]
    )
    with pytest.raises(ValueError, match=r"row 2 of X: the cell is missing .* 2 of 4"):
        ImageDiffusionFeatureTransformer().fit(structs)
    transformer = ImageDiffusionFeatureTransformer(missing="nan", dtype="float32")
    found = transformer.fit_transform(structs)
    assert np.isnan(found).all(axis=1).tolist() == [False, False, True, True]
    expected = transformer.transform([first, second])
    np.testing.assert_allclose(found[:2], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("cell", "missing"),
    [
        ({"bytes": None, "path": None}, True),
        ({"path": np.nan, "bytes": None}, True),
        ({"bytes": None}, False),
        ({"path": None}, False),
        ({"bytes": b"", "path": None}, False),
        ({}, False),
        (b"", False),
        ("", False),
        (0.0, False),
        (np.float32("nan"), True),
    ],
)
def test_what_is_missing(cell, missing):
    assert is_missing(cell) == missing


def test_lazy_columns_are_asked_for_a_cell_a_few_times_only(cells):
    X = Lazy(list(cells("image", 20)))
    transformer = ImageDiffusionFeatureTransformer(missing="nan").fit(X)
    X.asked = 0
    transformer.transform(X)
    assert X.asked <= 4 * 20


@BOTH
@pytest.mark.parametrize(
    "X", [{"a": 1}, range(3), bytearray(b"ab"), iter(["a"]), {"a", "b"}, object()]
)
def test_what_is_no_column_is_refused(kind, column, X):
    with pytest.raises(TypeError, match="X is "):
        kind().fit(X)


def test_missing_texts_of_arrow_are_rows_of_nan():
    X = pa.chunked_array([["a bird", None], ["a boat"]])
    found = TextDiffusionFeatureTransformer(missing="nan").fit_transform(X)
    assert np.isnan(found).all(axis=1).tolist() == [False, True, False]
