import copy
import pickle

import joblib
import numpy as np
import pytest

from sklearn_difffeat.modalities._array import ModalityArray


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
