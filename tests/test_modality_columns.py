import numpy as np
import pytest

from sklearn_difffeat._modality_columns import resolve_modalities


def test_the_prefix_of_the_column_names_comes_first():
    names = ["image__0", "text__0", "image__1", "age"]
    found = resolve_modalities(None, 4, names=names, layout=(("one", 4),))
    assert list(found) == ["image", "text", "other"]
    np.testing.assert_array_equal(found["image"], [0, 2])
    assert found["text"] == slice(1, 2)


def test_then_what_the_array_remembers_then_one_modality():
    found = resolve_modalities(
        None, 4, names=["a", "b", "c", "_d"], layout=(("x", 1), ("none", 0), ("y", 3))
    )
    assert found == {"x": slice(0, 1), "y": slice(1, 4)}
    assert resolve_modalities(None, 4) == {"all": slice(0, 4)}


@pytest.mark.parametrize(
    "spec",
    [
        {"image": 3, "text": np.int64(2)},
        {"text": slice(-2, None), "image": slice(None, 3)},
        {"image": ["a", "b", "c"], "text": ["d", "e"]},
        {"image": np.array([0, 1, 2]), "text": (3, -1)},
    ],
)
def test_widths_slices_names_and_positions_mean_the_same(spec):
    found = resolve_modalities(spec, 5, names=list("abcde"))
    assert found == {"image": slice(0, 3), "text": slice(3, 5)}


@pytest.mark.parametrize(
    "spec, message",
    [
        ({"a": slice(0, 9)}, r"modalities\['a'\] is slice\(0, 9, None\), outside X"),
        ({"a": slice(0, 3), "b": slice(2, 5)}, r"\['b'\] overlaps .*\['a'\].*column 2"),
        ({"a": [0, 1, 1], "b": [2, 3, 4]}, r"\['a'\] overlaps .*\['a'\] in column 1"),
        ({"a": 2, "b": 2}, "sum to 4 but X has 5 columns"),
        ({"a": 6, "b": -1}, "give positive widths"),
        ({"a": 2, "b": slice(2, 5)}, "mixes widths with slices"),
        ({"a": ["nope"]}, "names the column 'nope', which X does not have"),
        ({"a": [7]}, r"has the column 7, outside X"),
        ({"a": [True, False]}, r"has the column True, outside X"),
        ({"a": slice(0, 3)}, "2 of the 5 columns of X belong to no modality"),
        ({"a": slice(0, 5), "b": []}, r"modalities\['b'\] has no columns"),
        ({"a": "col"}, "is 'col'; give a slice, a list"),
        ({"a": 2.5}, "is 2.5; give a slice, a list"),
        ({0: slice(0, 5)}, "has the key 0, which is not a string"),
        ({}, "5 of the 5 columns of X belong to no modality"),
    ],
)
def test_columns_that_are_not_shared_out_are_an_error(spec, message):
    with pytest.raises(ValueError, match=message):
        resolve_modalities(spec, 5, names=list("vwxyz"))


def test_names_without_column_names_are_an_error():
    with pytest.raises(ValueError, match="'x' but X has no column names"):
        resolve_modalities({"a": ["x"]}, 5)
