import copy
import pickle

import joblib
import numpy as np
import pytest

from sklearn_difffeat._modalities import ModalityArray, resolve_modalities


@pytest.fixture
def image():
    return ModalityArray.wrap(np.arange(12.0).reshape(4, 3), modality="image")


@pytest.fixture
def text():
    return ModalityArray.wrap(np.ones((4, 2)), modality="text")


def spans(array):
    return {name: (c.start, c.stop) for name, c in array.modalities.items()}


def is_plain(value):
    return getattr(value, "modalities", None) is None


@pytest.mark.parametrize(
    "stack",
    [np.hstack, lambda a: np.concatenate(a, axis=1), lambda a: np.concatenate(a, 1)],
)
def test_stacking_columns_keeps_the_modalities(stack, image, text):
    both = stack([image, text])
    assert spans(both) == {"image": (0, 3), "text": (3, 5)}
    np.testing.assert_array_equal(np.asarray(both)[:, :3], np.asarray(image))


def test_a_repeated_name_gets_a_number(image):
    stacked = np.hstack([image, image, image])
    assert list(stacked.modalities) == ["image", "image_2", "image_3"]


def test_plain_columns_become_the_modality_other(image):
    stacked = np.hstack([np.zeros((4, 2)), image])
    assert spans(stacked) == {"other": (0, 2), "image": (2, 5)}


def test_stacking_rows_keeps_equal_modalities_only(image, text):
    assert spans(np.vstack([image, image])) == {"image": (0, 3)}
    assert spans(np.concatenate([image, image])) == {"image": (0, 3)}
    assert is_plain(np.vstack([image, np.zeros((1, 3))]))


@pytest.mark.parametrize(
    "rows",
    [
        slice(1, 3),
        [0, 2],
        np.array([True, False, True, False]),
        (np.array([0, 2]), Ellipsis),
        (slice(None, None, -1), slice(None)),
    ],
)
def test_selecting_rows_keeps_the_modalities(rows, image):
    assert spans(image[rows]) == {"image": (0, 3)}
    np.testing.assert_array_equal(image[rows], np.asarray(image)[rows])


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a[:, ::-1],
        lambda a: a[:, [0, 1, 2]],
        lambda a: a[0],
        lambda a: a[:, 0],
        lambda a: a[None],
        lambda a: a > 2,
        lambda a: a + 1,
        lambda a: np.sqrt(a),
        lambda a: np.add.reduce(a),
        lambda a: a[:3].T,
        lambda a: a.reshape(3, 4),
        lambda a: np.flip(a, axis=1),
        lambda a: np.take(a, [1, 0, 2], axis=1),
        lambda a: np.column_stack([a, a]),
        lambda a: np.asarray(a),
        lambda a: a.mean(axis=0),
    ],
)
def test_anything_else_forgets_the_modalities(change, image):
    assert is_plain(change(image))


def test_writing_a_result_into_the_array_forgets_the_modalities(image):
    image += 1
    assert is_plain(image)


def test_copies_and_casts_keep_the_modalities(image):
    assert spans(image.copy()) == {"image": (0, 3)}
    assert spans(image.astype(np.float32)) == {"image": (0, 3)}


@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_pickles_keep_the_modalities(protocol, image, text, tmp_path):
    both = np.hstack([image, text])
    again = pickle.loads(pickle.dumps(both, protocol=protocol))
    assert again.modalities == both.modalities
    np.testing.assert_array_equal(again, both)
    joblib.dump(both, tmp_path / "both.joblib")
    assert joblib.load(tmp_path / "both.joblib").modalities == both.modalities


def test_deepcopy_never_gives_wrong_modalities(image):
    assert copy.deepcopy(image).modalities in (None, image.modalities)


def test_wrap_keeps_floats_and_converts_the_rest():
    assert ModalityArray.wrap(np.zeros((2, 2)), "a").dtype == np.float64
    assert ModalityArray.wrap(np.zeros((2, 2), np.float32), "a").dtype == np.float32
    assert ModalityArray.wrap([[1, 2]], "a").dtype == np.float32


def test_wrap_refuses_what_is_not_two_dimensional():
    with pytest.raises(ValueError, match="2-D array of features, got 1 dim"):
        ModalityArray.wrap(np.zeros(3), "image")


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
