"""The contract that both transformers share, on real images and texts."""

import pickle

import numpy as np
import pytest
from helpers.both import BOTH
from sklearn.base import clone

from sklearn_difffeat import describe_backbone, release_backbones


@BOTH
@pytest.mark.parametrize("timestep", [0, 300])
def test_features_do_not_depend_on_batch_order_or_neighbours(
    kind, column, timestep, clipart
):
    cells = clipart[0][column][:24]
    whole = kind(timestep=timestep).fit_transform(cells)
    small = kind(timestep=timestep, batch_size=5).fit_transform(cells)
    np.testing.assert_allclose(small, whole, rtol=1e-3, atol=1e-5)
    order = np.random.default_rng(0).permutation(24)
    shuffled = kind(timestep=timestep).fit_transform(cells.iloc[order])
    np.testing.assert_allclose(shuffled, whole[order], rtol=1e-3, atol=1e-5)
    alone = kind(timestep=timestep).fit_transform(cells[7:8])
    np.testing.assert_allclose(alone, whole[7:8], rtol=1e-3, atol=1e-5)


@BOTH
def test_output_is_float32_of_the_announced_width_and_names(kind, column, clipart):
    transformer = kind(block=[2, "last"], timestep=[0, 10])
    features = transformer.fit_transform(clipart[0][column][:3])
    assert features.dtype == np.float32
    last = transformer.n_blocks_
    width = describe_backbone(transformer.backbone).width_of(last)
    assert features.shape == (3, transformer.n_features_out_) == (3, 4 * width)
    names = transformer.get_feature_names_out()
    assert names[0] == "b2_t0_0"
    assert names[width] == "b2_t10_0"
    assert names[-1] == f"b{last}_t10_{width - 1}"
    assert (transformer.block_, transformer.timestep_) == ([2, last], [0, 10])


@BOTH
def test_a_list_of_blocks_and_timesteps_concatenates_single_ones(kind, column, clipart):
    cells = clipart[0][column][:4]
    joint = kind(block=[0, 3], timestep=[0, 200]).fit_transform(cells)
    parts = [
        kind(block=block, timestep=timestep).fit_transform(cells)
        for block in (0, 3)
        for timestep in (0, 200)
    ]
    np.testing.assert_allclose(joint, np.hstack(parts), rtol=1e-4, atol=1e-5)


@BOTH
def test_negative_and_named_blocks_resolve_like_indices(kind, column, clipart):
    cells = clipart[0][column][:2]
    last = kind(block="last").fit(cells)
    assert last.block_ == kind(block=-1).fit(cells).block_ == last.n_blocks_
    assert kind(block=-last.n_blocks_ - 1).fit(cells).block_ == 0
    assert kind(block="middle").fit(cells).block_ == (last.n_blocks_ + 1) // 2
    assert kind(timestep="middle").fit(cells).timestep_ == last.n_timesteps_ // 2


@BOTH
def test_clone_keeps_parameters_and_no_state(kind, column, clipart):
    transformer = kind(block=[1, 2], timestep=5).fit(clipart[0][column][:2])
    copy = clone(transformer)
    assert copy.get_params() == transformer.get_params()
    assert not [name for name in vars(copy) if name.endswith("_")]


@BOTH
def test_set_output_gives_a_frame_with_names_and_the_index(kind, column, clipart):
    cells = clipart[0][column][10:13]
    frame = kind().set_output(transform="pandas").fit_transform(cells)
    assert list(frame.index) == list(cells.index)
    assert frame.columns[0].startswith("b")
    from_list = kind().set_output(transform="pandas").fit_transform(cells.tolist())
    np.testing.assert_array_equal(from_list, frame)
    polars = kind().set_output(transform="polars").fit_transform(cells)
    assert polars.shape == frame.shape


@BOTH
def test_pickle_holds_no_weights_and_gives_the_same_features(kind, column, clipart):
    cells = clipart[0][column][:3]
    transformer = kind().fit(cells)
    expected = transformer.transform(cells)
    content = pickle.dumps(transformer)
    assert len(content) < 100_000
    release_backbones()
    np.testing.assert_array_equal(pickle.loads(content).transform(cells), expected)


@BOTH
def test_random_state_and_draws_change_noisy_features_only(kind, column, clipart):
    cells = clipart[0][column][:3]

    def features(**parameters):
        return kind(**parameters).fit_transform(cells)

    noisy = features(timestep=400)
    np.testing.assert_array_equal(noisy, features(timestep=400))
    assert np.abs(noisy - features(timestep=400, random_state=1)).max() > 1e-3
    assert np.abs(noisy - features(timestep=400, n_draws=2)).max() > 1e-4
    np.testing.assert_array_equal(
        features(timestep=0), features(timestep=0, random_state=1, n_draws=2)
    )


@BOTH
def test_backbone_that_changed_since_fit_is_refused(
    kind, column, clipart, dit_folder, bert_folder, tmp_path
):
    import shutil

    folder = tmp_path / "backbone"
    shutil.copytree(dit_folder if column == "image" else bert_folder, folder)
    cells = clipart[0][column][:2]
    transformer = kind(folder).fit(cells)
    weights = next(folder.rglob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match="is not the one this transformer was fitted"):
        transformer.transform(cells)


@BOTH
def test_parameters_changed_after_fit_wait_for_the_next_fit(kind, column, clipart):
    cells = clipart[0][column][:3]
    transformer = kind(block=2).fit(cells)
    expected = transformer.transform(cells)
    transformer.set_params(block=99, pooling="max")
    np.testing.assert_array_equal(transformer.transform(cells), expected)
    with pytest.raises(ValueError, match="block=99"):
        transformer.fit(cells)
    np.testing.assert_array_equal(transformer.transform(cells), expected)
