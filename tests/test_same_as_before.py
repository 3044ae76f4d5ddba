"""Features and stored keys are those that ``helpers/recording.py`` once wrote down."""

import json

import numpy as np
import PIL
import pytest
from helpers.recording import CHECKPOINTS, RECORDED, measure

# Dream's code sets what newer versions of transformers name otherwise.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*rope_scaling:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning"),
    pytest.mark.usefixtures("remote_code"),
]

# Pillow 12 resizes by other rounding than 13, with which the features were recorded.
CLOSE = 1e-4 if int(PIL.__version__.split(".")[0]) >= 13 else 1e-2

KEYS = json.loads((RECORDED / "keys.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def recorded_features():
    with np.load(RECORDED / "features.npz") as file:
        return dict(file)


@pytest.fixture(scope="module", params=list(CHECKPOINTS))
def measured(request, tmp_path_factory):
    """The checkpoint's name, its features by case, and its stored keys."""
    name = request.param
    return name, *measure(name, tmp_path_factory.mktemp(name))


def test_every_checkpoint_was_recorded(recorded_features):
    assert KEYS.keys() == CHECKPOINTS.keys()
    assert {key.split("/")[0] for key in recorded_features} == set(CHECKPOINTS)


def test_features_are_those_recorded(measured, recorded_features):
    name, features, _ = measured
    recorded = {
        key.split("/")[1]: values
        for key, values in recorded_features.items()
        if key.startswith(f"{name}/")
    }
    assert list(features) == list(recorded)
    for case, values in features.items():
        # By block and timestep, whose sizes differ.
        for i, expected in enumerate(recorded[case]):
            np.testing.assert_allclose(
                values[i],
                expected,
                rtol=1e-3,
                atol=CLOSE * np.abs(expected).max(),
                err_msg=f"{case}, block and timestep number {i}",
            )
        assert values.shape == recorded[case].shape


def test_stored_keys_are_those_recorded(measured):
    name, _, keys = measured
    assert keys == KEYS[name]
