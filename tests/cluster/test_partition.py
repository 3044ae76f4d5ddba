"""One partition of a cluster's work, without a cluster."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from sklearn_difffeat import (
    FeatureStore,
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
)
from sklearn_difffeat.cluster import fill_store

TEXTS = ["a red apple", "two birds", "a house"]


def test_the_same_partition_once_more_costs_nothing(tmp_path, pass_counter):
    transformer = TextDiffusionFeatureTransformer()
    first = fill_store(transformer, TEXTS, tmp_path / "stores", timesteps=[0, 100])
    assert pass_counter["rows"] == 6
    again = fill_store(transformer, TEXTS, tmp_path / "stores", timesteps=[0, 100])
    assert (first, pass_counter["rows"]) == (again, 6)
    more = fill_store(transformer, TEXTS, tmp_path / "stores", timesteps=[0, 300])
    assert (first, pass_counter["rows"]) == (more, 9)
    assert FeatureStore(first).describe()["timestep"].tolist() == [0, 100, 300]
    assert transformer.cache is None


def test_a_store_arrives_whole_and_alone(tmp_path):
    path = fill_store(TextDiffusionFeatureTransformer(), pd.Series(TEXTS), tmp_path)
    assert [str(one) for one in tmp_path.iterdir()] == [path]
    store = FeatureStore(tmp_path / "all.db").merge(path)
    transformer = TextDiffusionFeatureTransformer()
    np.testing.assert_allclose(
        transformer.fit_transform(TEXTS),
        TextDiffusionFeatureTransformer(cache=store).fit_transform(TEXTS),
        rtol=1e-5,
        atol=1e-5,
    )


def test_partitions_without_rows_have_no_store(tmp_path):
    transformer = TextDiffusionFeatureTransformer()
    assert fill_store(transformer, [], tmp_path) is None
    assert fill_store(transformer, pd.Series([], dtype=object), tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_what_was_computed_before_an_error_is_kept(cells, tmp_path, pass_counter):
    X = [*cells("image", 20), b"no picture"]
    transformer = ImageDiffusionFeatureTransformer(batch_size=8)
    with pytest.raises(ValueError, match="row 20 of X"):
        fill_store(transformer, X, tmp_path)
    passed = pass_counter["rows"]
    assert passed
    (path,) = tmp_path.glob("*.db")
    with pytest.raises(ValueError, match="row 20 of X"):
        fill_store(transformer, X, tmp_path)
    assert pass_counter["rows"] - passed < 20
    transformer.set_params(unreadable="nan")
    with pytest.warns(UserWarning, match="1 of 21 images could not be read"):
        assert fill_store(transformer, X, tmp_path) == str(path)
    assert pass_counter["rows"] == 20
    assert list(tmp_path.iterdir()) == [path]


TABLE = {"text": TEXTS, "label": [0, 1, 0]}


@pytest.mark.parametrize(
    "partition",
    [
        pd.DataFrame(TABLE),
        pl.DataFrame(TABLE),
        pa.table(TABLE),
        {name: np.array(column) for name, column in TABLE.items()},
    ],
    ids=["pandas", "polars", "pyarrow", "mapping"],
)
def test_a_column_of_a_partition(partition, tmp_path):
    transformer = TextDiffusionFeatureTransformer()
    path = fill_store(transformer, partition, tmp_path, column="text")
    assert path == fill_store(transformer, TEXTS, tmp_path)
    assert fill_store(transformer, partition, tmp_path / "b", column="text")
    empty = {name: column[:0] for name, column in TABLE.items()}
    assert fill_store(transformer, empty, tmp_path, column="text") is None
    with pytest.raises(ValueError, match="no column 'image'; it has 'text', 'label'"):
        fill_store(transformer, partition, tmp_path, column="image")


def test_columns_have_to_be_named_where_there_are_several(tmp_path):
    transformer = TextDiffusionFeatureTransformer()
    with pytest.raises(ValueError, match="with 2 columns"):
        fill_store(transformer, pd.DataFrame(TABLE), tmp_path)
    with pytest.raises(TypeError, match="is a list, which has no columns"):
        fill_store(transformer, TEXTS, tmp_path, column="text")
