"""What both transformers say of bad parameters and bad cells."""

import numpy as np
import pandas as pd
import polars
import pytest
from helpers.both import BOTH
from sklearn.exceptions import NotFittedError


@BOTH
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"block": 99}, "block=99 is outside blocks 0"),
        ({"block": -10}, "block=-10 is outside"),
        ({"block": 1.5}, "block=1.5 is outside"),
        ({"block": []}, "is an empty list"),
        ({"backbone": None}, "'backbone' parameter"),
        ({"block": "deepest"}, "block='deepest' is unknown"),
        ({"block": [2, 2]}, "asks for the same block twice"),
        ({"block": True}, "block=True"),
        ({"timestep": 1000}, "timestep=1000 is outside timesteps 0"),
        ({"timestep": -1}, "timestep=-1 is outside"),
        ({"backbone": "dit-huge"}, "backbone='dit-huge' is unknown"),
        ({"pooling": "median"}, "pooling='median' is unknown"),
        ({"n_draws": 0}, "'n_draws' parameter"),
        ({"batch_size": 0}, "'batch_size' parameter"),
        ({"dtype": "int8"}, "'dtype' parameter"),
        ({"missing": "drop"}, "'missing' parameter"),
        ({"random_state": -1}, "'random_state' parameter"),
    ],
)
def test_bad_parameter_is_named_and_leaves_no_partial_state(
    kind, column, parameters, message, clipart
):
    transformer = kind(**parameters)
    with pytest.raises(ValueError, match=message):
        transformer.fit(clipart[0][column][:2])
    assert not [name for name in vars(transformer) if name.endswith("_")]


@BOTH
def test_backbone_of_the_other_modality_is_an_error(kind, column, clipart):
    other = "mdlm-tiny" if column == "image" else "dit-tiny"
    with pytest.raises(ValueError, match="use the transformer for"):
        kind(backbone=other).fit(clipart[0][column][:2])


@BOTH
def test_every_container_gives_the_same_features(kind, column, clipart):
    cells = clipart[0][column][:3].tolist()
    expected = kind().fit_transform(cells)
    objects = np.empty(3, dtype=object)
    objects[:] = cells
    containers = [
        tuple(cells),
        objects,
        objects.reshape(3, 1),
        pd.Series(cells, index=[7, 7, 9]),
        pd.DataFrame({"c": cells}),
        polars.Series(cells),
        polars.DataFrame({"c": cells}),
    ]
    for container in containers:
        found = kind().fit_transform(container)
        np.testing.assert_array_equal(found, expected)


@BOTH
def test_missing_cells_are_an_error_that_names_the_row_or_rows_of_nan(
    kind, column, clipart
):
    cells = clipart[0][column][:5].tolist()
    for absent in (None, float("nan"), np.nan, pd.NA, pd.NaT):
        broken = [*cells[:3], absent, *cells[3:]]
        with pytest.raises(ValueError, match=r"row 3 of X: the cell is missing.*nan"):
            kind().fit(broken)
        features = kind(missing="nan").fit_transform(broken)
        assert np.isnan(features[3]).all()
        np.testing.assert_allclose(
            np.delete(features, 3, axis=0), kind().fit_transform(cells), rtol=1e-4
        )
    assert np.isnan(kind(missing="nan").fit_transform([None, None])).all()


@BOTH
@pytest.mark.parametrize("empty", [[], (), np.array([], dtype=object), pd.Series([])])
def test_empty_input_is_an_error(kind, column, empty):
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        kind().fit(empty)


@BOTH
def test_one_cell_instead_of_a_column_is_an_error(kind, column, clipart):
    with pytest.raises(TypeError, match="wrap it in a list"):
        kind().fit(clipart[0][column][0])
    with pytest.raises(TypeError, match="pass a list, tuple"):
        kind().fit(3)
    with pytest.raises(ValueError, match="2 columns"):
        kind().fit(clipart[0])


@BOTH
def test_transform_before_fit_is_an_error(kind, column, clipart):
    with pytest.raises(NotFittedError):
        kind().transform(clipart[0][column][:2])
