"""Where a backbone is read when nobody says: "auto", lists of poolings, the norm."""

import numpy as np
import pytest

from sklearn_difffeat import (
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
    describe_backbone,
)
from sklearn_difffeat.backbones import _readings
from sklearn_difffeat.backbones._readings import KNOWN, Reading, reading_of

PICTURES = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
TEXTS = ["a red apple", "two birds", "a small boat", ""]
KINDS = [
    (ImageDiffusionFeatureTransformer, "dit_folder", PICTURES),
    (TextDiffusionFeatureTransformer, "bert_folder", TEXTS),
]


@pytest.fixture(params=KINDS, ids=["image", "text"])
def made(request):
    kind, folder, X = request.param
    folder = request.getfixturevalue(folder)
    return lambda **options: kind(folder, dtype="float32", **options), X, folder


def test_an_unknown_backbone_is_read_by_the_papers_prior(made):
    make, X, folder = made
    info = describe_backbone(folder)
    fitted = make().fit(X)
    is_image = info.modality == "image"
    assert fitted.block_ == ((info.n_blocks + 1) // 2 if is_image else info.n_blocks)
    assert fitted.timestep_ == (info.n_timesteps // 2 if is_image else 0)
    assert fitted.pooling_ == "mean" and fitted.norm_ is None
    assert "2509.15553" in info.reading.source


def test_a_known_backbone_is_read_where_somebody_found_it_best(made, monkeypatch):
    make, X, folder = made
    known = Reading([0, 2], [1, 7], ["mean", "max"], "l2", "a study")
    monkeypatch.setitem(_readings.KNOWN, describe_backbone(folder).name, known)
    fitted = make().fit(X)
    assert (fitted.block_, fitted.timestep_) == ([0, 2], [1, 7])
    assert (fitted.pooling_, fitted.norm_) == (["mean", "max"], "l2")
    asked = make(block=[0, 2], timestep=[1, 7], pooling=["mean", "max"], norm="l2")
    np.testing.assert_array_equal(fitted.transform(X), asked.fit_transform(X))
    # What is said counts; what is not said is still found.
    mixed = make(block="last", norm=None).fit(X)
    assert mixed.block_ == mixed.n_blocks_ and mixed.timestep_ == [1, 7]


@pytest.mark.parametrize("name", list(KNOWN))
def test_known_readings_fit_their_models_and_name_a_source(name):
    reading = KNOWN[name]
    assert len(reading.source) > 20
    if name == "facebook/DiT-XL-2-256":
        assert reading.block == 12
    assert reading_of(name, "image") is reading


@pytest.mark.parametrize("name", ["dit-tiny", "mdlm-tiny"])
def test_embedded_readings_can_be_fitted(name):
    info = describe_backbone(name)
    image = info.modality == "image"
    kind = (
        ImageDiffusionFeatureTransformer if image else TextDiffusionFeatureTransformer
    )
    kind(name).fit(PICTURES if image else TEXTS)


def test_a_list_of_poolings_concatenates_within_block_and_timestep(made, pass_counter):
    make, X, _ = made
    both = make(block=[0, 1], timestep=[0, 9], pooling=["mean", "max"])
    found = both.fit_transform(X)
    assert pass_counter["rows"] == 2 * len(X)
    single = {
        one: make(block=[0, 1], timestep=[0, 9], pooling=one).fit_transform(X)
        for one in ("mean", "max")
    }
    shares = [np.split(single[one], 4, axis=1) for one in ("mean", "max")]
    expected = np.hstack(
        [share for pair in zip(*shares, strict=True) for share in pair]
    )
    np.testing.assert_array_equal(found, expected)
    names = both.get_feature_names_out()
    assert len(names) == found.shape[1] == len(set(names))


def test_grids_mix_with_other_poolings():
    make = lambda pooling: ImageDiffusionFeatureTransformer(  # noqa: E731
        "dit-tiny", pooling=pooling, norm=None, block=1, timestep=0, image_size=64
    )
    mixed = make([("grid", 1), "mean"]).fit(PICTURES)
    assert mixed.pooling_ == [("grid", 1), "mean"]
    assert make(("grid", 1)).fit(PICTURES).pooling_ == ("grid", 1)
    assert make(["grid", 1]).fit(PICTURES).pooling_ == ("grid", 1)


@pytest.mark.parametrize("pooling", [[], ["mean", "mean"], ["mean", "no"], [["mean"]]])
def test_a_list_that_is_no_list_of_poolings_is_an_error_of_fit(made, pooling):
    make, X, _ = made
    with pytest.raises(ValueError, match="pooling="):
        make(pooling=pooling).fit(X)


@pytest.mark.parametrize("n_draws", [1, 3])
@pytest.mark.parametrize("kept", [False, True])
def test_the_norm_scales_each_share_of_a_row(made, n_draws, kept, cache):
    make, X, _ = made
    options = {
        "block": [0, 1], "timestep": [0, 300], "pooling": ["mean", "max"],
        "n_draws": n_draws, "cache": cache if kept else None,
    }  # fmt: skip
    raw = make(**options, norm=None).fit_transform(X)
    found = make(**options, norm="l2").fit_transform(X)
    for share, scaled in zip(
        np.split(raw, 8, axis=1), np.split(found, 8, axis=1), strict=True
    ):
        length = np.linalg.norm(share, axis=1, keepdims=True)
        np.testing.assert_allclose(scaled, share / length, rtol=1e-5, atol=1e-7)


def test_the_norm_costs_no_pass_and_keeps_missing_rows(made, cache, pass_counter):
    make, X, _ = made
    make(cache=cache, norm=None).fit_transform(X)
    rows = pass_counter["rows"]
    cells = [*X, None]
    found = make(cache=cache, norm="l2", missing="nan").fit_transform(cells)
    assert pass_counter["rows"] == rows
    assert np.isnan(found[-1]).all() and np.isfinite(found[:-1]).all()


@pytest.mark.parametrize("norm", ["l1", True, 2])
def test_another_norm_is_an_error_of_fit(made, norm):
    make, X, _ = made
    with pytest.raises(ValueError, match="norm"):
        make(norm=norm).fit(X)
