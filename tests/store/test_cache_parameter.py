"""What the parameter ``cache`` may be, and what is refused in a sentence."""

import os
from pathlib import Path

import numpy as np
import pytest

from sklearn_difffeat import FeatureStore, TextDiffusionFeatureTransformer

TEXTS = ["a red apple", "two birds"]


def transformed(cache):
    transformer = TextDiffusionFeatureTransformer(cache=cache)
    return transformer.fit(TEXTS).transform(TEXTS)


@pytest.mark.parametrize("yes", [True, np.True_, np.bool_(1)])
def test_every_true_is_the_store_in_memory(yes, cache):
    transformed(yes)
    assert FeatureStore().describe()["rows"].tolist() == [2]


@pytest.mark.parametrize("no", [False, np.False_, None])
def test_every_false_is_no_store(no, cache):
    transformed(no)
    assert FeatureStore().describe().empty
    with pytest.raises(ValueError, match="names no cache to fill"):
        TextDiffusionFeatureTransformer(cache=no).precompute(TEXTS)


@pytest.mark.parametrize("name", ["True", "features.db", np.str_("other.db")])
def test_a_text_is_a_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    transformed(name)
    assert name in os.listdir(tmp_path)


def test_a_store_stands_for_its_path(tmp_path):
    store = FeatureStore(tmp_path / "features.db")
    expected = transformed(None)
    np.testing.assert_allclose(transformed(store), expected, rtol=1e-3, atol=1e-5)
    assert store.describe()["rows"].tolist() == [2]
    assert Path(store) == tmp_path / "features.db"


def test_the_store_in_memory_may_be_given_too(cache):
    transformed(FeatureStore())
    assert FeatureStore().describe()["rows"].tolist() == [2]
    with pytest.raises(TypeError, match="has no path; give cache=True"):
        os.fspath(FeatureStore())


def test_an_empty_path_is_an_error():
    with pytest.raises(ValueError, match="is empty; name a file"):
        transformed("")
    with pytest.raises(ValueError, match="is empty; name a file"):
        FeatureStore("")


@pytest.mark.parametrize(
    "wrong", [b"features.db", 1, 0, ["features.db"], np.array(True)]
)
def test_what_names_no_store_is_refused(wrong):
    with pytest.raises(ValueError, match="The 'cache' parameter"):
        transformed(wrong)


def test_a_store_of_bytes_is_refused():
    with pytest.raises(TypeError, match="is not a path; give a str or Path"):
        FeatureStore(b"features.db")
