import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklearn_difffeat.modalities._columns import names_modalities, resolve_modalities


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


def test_modalities_of_one_name_are_all_numbered():
    layout = (("text", 2), ("image", 1), ("text", 1), ("text_1", 1))
    assert resolve_modalities(None, 5, layout=layout) == {
        "text_2": slice(0, 2),
        "image": slice(2, 3),
        "text_3": slice(3, 4),
        "text_1": slice(4, 5),
    }


BLOCK_NAMES = st.text("abt_019 .é", min_size=1, max_size=5).filter(
    lambda name: "__" not in name and not name.endswith("_")
)
FEATURES = st.sampled_from(
    ["b6_t0_0", "b6_t0_1", "0", "age", "_x", "inner__0", "__index__", "is__"]
)


@given(
    blocks=st.dictionaries(
        BLOCK_NAMES, st.lists(FEATURES, min_size=1, max_size=3, unique=True), min_size=2
    ),
    suffix=st.sampled_from(["", "__skrub_dbf7acb9__", "__skrub_0__"]),
    shuffle=st.randoms(use_true_random=False),
)
def test_the_prefix_is_the_modality_whatever_follows(blocks, suffix, shuffle):
    owners = [(name, f) for name, features in blocks.items() for f in features]
    shuffle.shuffle(owners)
    names = [f"{owner}__{feature}{suffix}" for owner, feature in owners]
    found = resolve_modalities(None, len(names), names=names)
    for modality, columns in found.items():
        assert {owners[i][0] for i in np.arange(len(names))[columns]} == {modality}
    assert found.keys() == blocks.keys()


@pytest.mark.parametrize(
    "names",
    [
        ["b6_t0_44__skrub_dbf7acb9__", "b6_t0_45__skrub_dbf7acb9__"],
        ["b6_t0_44__right", "b12_t100_3__right"],
        ["__index__", "__level_0__", "_private"],
        ["is__", "x__"],
        ["age__skrub_00ff__", "size"],
    ],
)
def test_what_is_no_prefix_is_no_modality(names):
    assert not names_modalities(names, None)
    found = resolve_modalities(None, len(names), names=names)
    assert found == {"all": slice(0, len(names))}


def test_columns_without_a_prefix_never_join_a_modality_that_is_called_other():
    found = resolve_modalities(None, 3, names=["other__0", "age", "other__1"])
    assert list(found) == ["other", "other_2"]
    assert found["other_2"] == slice(1, 2)


def test_one_prefix_over_several_is_warned_about():
    names = ["features__image__0", "features__text__0", "features__text__1"]
    with pytest.warns(UserWarning, match=r"start with 'features'.*fuse 'image', 'text"):
        found = resolve_modalities(None, 3, names=names)
    assert found == {"features": slice(0, 3)}


@pytest.mark.parametrize("suffix", ["", "__skrub_dbf7acb9__"])
def test_features_of_several_transformers_without_prefixes_are_warned_about(suffix):
    names = ["b6_t0_0", "b6_t0_1", f"b6_t0_0{suffix}", f"b6_t0_1{suffix}"]
    with pytest.warns(UserWarning, match="2 columns of X come from several transf"):
        assert resolve_modalities(None, 4, names=names) == {"all": slice(0, 4)}


def test_a_name_that_several_columns_have_is_an_error():
    with pytest.raises(ValueError, match="'x', which X has 2 times; give positions"):
        resolve_modalities({"a": ["x"], "b": [1]}, 2, names=["x", "x"])
