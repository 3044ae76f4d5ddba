"""Through the transformers: every pass once, and the same features as without."""

import numpy as np
import pytest
from helpers.both import BOTH
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from sklearn_difffeat import (
    FeatureStore,
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
)
from sklearn_difffeat.extraction import _extraction, _model

EITHER_STORE = pytest.mark.parametrize("where", ["memory", "file"])


@BOTH
@EITHER_STORE
def test_cached_features_equal_those_without_cache(kind, column, where, cells, cache):
    chosen = cells(column, 9)
    options = {"block": [2, -1], "timestep": [0, 100], "n_draws": 2}
    expected = kind(dtype="float32", **options).fit_transform(chosen)
    cached = kind(dtype="float32", cache=cache, **options)
    first = cached.fit_transform(chosen)
    np.testing.assert_allclose(first, expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(cached.transform(chosen), first)
    np.testing.assert_array_equal(cached.transform(chosen[::-1]), first[::-1])


@EITHER_STORE
def test_half_precision_features_are_the_same_when_computed_and_when_read(
    where, cells, cache
):
    chosen = cells("image", 5)
    transformer = ImageDiffusionFeatureTransformer(dtype="bfloat16", cache=cache)
    first = transformer.fit_transform(chosen)
    np.testing.assert_array_equal(transformer.transform(chosen), first)
    plain = ImageDiffusionFeatureTransformer(dtype="bfloat16").fit_transform(chosen)
    np.testing.assert_allclose(first, plain, rtol=1e-3, atol=1e-3)


@BOTH
@EITHER_STORE
def test_a_grid_costs_one_pass_for_each_row_and_timestep(
    kind, column, where, cells, cache, pass_counter
):
    chosen = list(cells(column, 30))
    y = np.arange(30) % 2
    model = Pipeline([("z", kind(cache=cache)), ("head", RidgeClassifier())])
    search = GridSearchCV(
        model,
        {
            "z__block": [2, 4, -1],
            "z__timestep": [50, 200],
            "head__alpha": [1, 10, 100],
        },
        cv=5,
    )
    search.fit(chosen, y)
    assert pass_counter["rows"] == 30 * 2
    assert pass_counter["loads"] == 1
    search.fit(chosen, y)
    assert pass_counter["rows"] == 30 * 2


@BOTH
def test_duplicates_are_computed_once(kind, column, cells, pass_counter):
    three = list(cells(column, 3))
    transformer = kind(timestep=0).fit(three)
    found = transformer.transform(three * 4)
    assert pass_counter["rows"] == 3
    np.testing.assert_allclose(found, np.tile(found[:3], (4, 1)))
    np.testing.assert_allclose(found[:3], transformer.transform(three), rtol=1e-3)


def test_a_path_its_bytes_and_another_path_to_the_same_bytes_are_one_row(
    cells, tmp_path, pass_counter
):
    content = cells("image", 1).iloc[0]
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(content)
    X = [content, tmp_path / "a.png", str(tmp_path / "b.png"), {"bytes": content}]
    ImageDiffusionFeatureTransformer().fit_transform(X)
    assert pass_counter["rows"] == 1


def test_a_file_whose_content_changes_is_computed_anew(
    cells, cache, tmp_path, pass_counter
):
    first, second = cells("image", 2)
    path = tmp_path / "picture.png"
    transformer = ImageDiffusionFeatureTransformer(cache=cache).fit([path])
    found = []
    for content in (first, second, first):
        path.write_bytes(content)
        found.append(transformer.transform([path]))
    assert pass_counter["rows"] == 2
    assert np.abs(found[0] - found[1]).max() > 0.01
    np.testing.assert_array_equal(found[0], found[2])


def test_a_file_that_changes_while_it_is_read_is_kept_as_what_was_read(
    cells, cache, tmp_path, monkeypatch
):
    first, second = cells("image", 2)
    path = tmp_path / "picture.png"
    path.write_bytes(first)
    transformer = ImageDiffusionFeatureTransformer(cache=cache).fit([path])
    prepare = _model.Model.prepare

    def late(self, batch):
        path.write_bytes(second)
        return prepare(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(_model.Model, "prepare", late)
        found = transformer.transform([path])
    np.testing.assert_array_equal(found, transformer.transform([first]))
    assert np.abs(found - transformer.transform([path])).max() > 0.01


def test_a_file_that_changes_while_another_worker_has_it_is_not_kept_as_the_old_one(
    cells, cache, tmp_path, monkeypatch, pass_counter
):
    first, second = cells("image", 2)
    path = tmp_path / "picture.png"
    path.write_bytes(first)
    transformer = ImageDiffusionFeatureTransformer(cache=cache).fit([path])
    take = _extraction.Claims.take

    def refuse_once(self, digests, needed):
        monkeypatch.setattr(_extraction.Claims, "take", take)
        path.write_bytes(second)
        nobody = np.zeros(len(digests), dtype=bool)
        return nobody, nobody, np.full(len(digests), -1)

    monkeypatch.setattr(_extraction.Claims, "take", refuse_once)
    found = transformer.transform([path])
    np.testing.assert_array_equal(found, transformer.transform([second]))
    assert pass_counter["rows"] == 1
    assert np.abs(found - transformer.transform([first])).max() > 0.01
    assert pass_counter["rows"] == 2


def test_latents_are_encoded_once_for_all_timesteps_and_runs(
    dit_folder, cells, cache, pass_counter
):
    X = list(cells("image", 6))
    for timesteps in (10, [20, 30], [10, 40]):
        transformer = ImageDiffusionFeatureTransformer(
            dit_folder, timestep=timesteps, cache=cache
        )
        transformer.fit_transform(X)
    assert pass_counter["encoded"] == 6
    assert pass_counter["rows"] == 6 * 4
    alone = ImageDiffusionFeatureTransformer(dit_folder, timestep=[10, 40])
    np.testing.assert_allclose(
        transformer.transform(X), alone.fit_transform(X), rtol=1e-3, atol=1e-3
    )


def test_more_draws_add_to_those_that_are_kept(cells, cache, pass_counter):
    X = cells("text", 4)
    options = {"timestep": 300, "cache": cache}
    TextDiffusionFeatureTransformer(n_draws=2, **options).fit_transform(X)
    found = TextDiffusionFeatureTransformer(n_draws=3, **options).fit_transform(X)
    assert pass_counter["rows"] == 4 * 3
    alone = TextDiffusionFeatureTransformer(timestep=300, n_draws=3).fit_transform(X)
    np.testing.assert_allclose(found, alone, rtol=1e-3, atol=1e-5)


def test_one_store_serves_two_backbones_and_several_settings(
    bert_folder, cells, cache, pass_counter
):
    X = cells("text", 4)
    settings = [
        {},
        {"backbone": bert_folder},
        {"max_length": 5},
        {"pooling": "max"},
        {"random_state": 1, "timestep": 500},
        {"dtype": "bfloat16"},
    ]
    for changes in settings * 2:
        changes = {"timestep": 0, **changes}
        with pytest.MonkeyPatch.context() as patch:
            if "max_length" in changes:
                patch.setattr("warnings.warn", lambda *args, **kwargs: None)
            found = TextDiffusionFeatureTransformer(
                **changes, cache=cache
            ).fit_transform(X)
            alone = TextDiffusionFeatureTransformer(**changes).fit_transform(X)
        tolerance = 0.02 if "dtype" in changes else 1e-3
        np.testing.assert_allclose(found, alone, rtol=tolerance, atol=tolerance / 10)
    assert pass_counter["rows"] == 4 * (len(settings) + 2 * len(settings))


@BOTH
@EITHER_STORE
def test_precompute_leaves_nothing_to_pass(
    kind, column, where, cells, cache, pass_counter
):
    X = list(cells(column, 7))
    kind(cache=cache).precompute(X, timesteps=[0, 100])
    assert pass_counter["rows"] == 14
    for block in (0, 2, "last"):
        kind(block=block, timestep=[0, 100], cache=cache).fit_transform(X)
    assert pass_counter["rows"] == 14


def test_precompute_stops_at_the_deepest_block_named(cells, cache, pass_counter):
    X = list(cells("image", 3))
    transformer = ImageDiffusionFeatureTransformer(cache=cache, timestep=50)
    transformer.precompute(X, blocks=[1, 2])
    kept = FeatureStore(cache).describe().set_index("kind")
    assert kept["blocks"]["features"] == 3
    transformer.set_params(block=1).fit_transform(X)
    assert pass_counter["rows"] == 3
    transformer.set_params(block=3).fit_transform(X)
    assert pass_counter["rows"] == 6


def test_precompute_without_a_cache_is_an_error():
    with pytest.raises(ValueError, match="cache=None names no cache to fill"):
        TextDiffusionFeatureTransformer().precompute(["a"])


def test_an_interrupted_call_goes_on_where_it_stopped(cells, cache, pass_counter):
    X = list(cells("text", 12))
    transformer = TextDiffusionFeatureTransformer(cache=cache, batch_size=4)
    forward, calls = _model.forward, []

    def interrupted(*args):
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return forward(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_model, "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            transformer.precompute(X)
    assert FeatureStore(cache).describe()["rows"].item() == 8
    transformer.precompute(X)
    assert pass_counter["rows"] == 12


def test_a_bad_file_costs_none_of_what_was_computed(cells, cache, pass_counter):
    X = [*cells("image", 8), b"no picture"]
    transformer = ImageDiffusionFeatureTransformer(cache=cache, batch_size=4)
    with pytest.raises(ValueError, match="row 8 of X"):
        transformer.fit_transform(X)
    transformer.transform(X[:8])
    assert pass_counter["rows"] == 8


def test_cut_texts_are_counted_from_the_store_too(cells, cache):
    X = ["a small red bird " * 20, "a bird", "a small red bird " * 20]
    transformer = TextDiffusionFeatureTransformer(max_length=8, cache=cache).fit(X)
    for _ in range(2):
        with pytest.warns(UserWarning, match="2 of 3 texts are longer than the 8"):
            transformer.transform(X)


@EITHER_STORE
def test_missing_rows_stay_nan_beside_cached_ones(where, cells, cache):
    X = [*cells("image", 2), None]
    transformer = ImageDiffusionFeatureTransformer(missing="nan", cache=cache).fit(X)
    for _ in range(2):
        assert np.isnan(transformer.transform(X)).any(axis=1).tolist() == [0, 0, 1]


def test_a_bounded_store_gives_right_features_whatever_it_forgets(cells, tmp_path):
    X = list(cells("image", 40))
    store = FeatureStore(tmp_path / "small.db")
    store = FeatureStore(store, max_size=store.size + 300_000)
    options = {"timestep": [0, 10, 20], "dtype": "float32", "batch_size": 4}
    expected = ImageDiffusionFeatureTransformer(**options).fit_transform(X)
    cached = ImageDiffusionFeatureTransformer(cache=store, **options).fit(X)
    for _ in range(2):
        found = cached.transform(X)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert store.describe()["rows"].sum() < 120


def test_one_store_takes_two_passes_of_a_row_when_only_the_first_was_shallow(
    cells, cache, pass_counter
):
    X = list(cells("text", 3))
    transformer = TextDiffusionFeatureTransformer(cache=cache)
    transformer.precompute(X, blocks=2)
    for _ in range(2):
        transformer.fit_transform(X)
    assert pass_counter["rows"] == 6


def test_precompute_warns_of_cut_texts_without_a_fit(tmp_path):
    transformer = TextDiffusionFeatureTransformer(cache=tmp_path / "f.db", max_length=4)
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than the 4 tokens"):
        transformer.precompute(["a bird", "a large bird on a very small boat"])
