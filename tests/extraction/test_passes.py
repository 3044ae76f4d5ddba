"""What both transformers run of a model, and what stops them."""

import joblib
import numpy as np
import pytest
from helpers.both import BOTH

from sklearn_difffeat import ImageDiffusionFeatureTransformer


@BOTH
def test_all_blocks_of_a_timestep_come_from_one_pass(
    kind, column, clipart, pass_counter
):
    cells = clipart[0][column].drop_duplicates()[:10]
    kind(block=[1, 2, 3, 4], timestep=[0, 100], n_draws=3).fit_transform(cells)
    assert pass_counter["rows"] == 10 * (1 + 3)
    assert pass_counter["encoded"] in (0, 10)


@BOTH
def test_early_exit_gives_the_features_of_a_full_pass(kind, column, clipart):
    cells = clipart[0][column][:4]
    early = kind(block=2, timestep=100).fit_transform(cells)
    full = kind(block=[2, "last"], timestep=100).fit_transform(cells)
    np.testing.assert_allclose(early, full[:, : early.shape[1]], rtol=1e-4, atol=1e-5)


def test_blocks_behind_the_deepest_one_do_not_run(clipart, monkeypatch):
    import torch

    from sklearn_difffeat.backbones import load_backbone, locate_backbone
    from sklearn_difffeat.extraction._devices import native_dtype, usable_device

    transformer = ImageDiffusionFeatureTransformer(block=3).fit(clipart[0]["image"][:2])
    source, _ = locate_backbone("dit-tiny")
    device = usable_device(None)
    dtype = getattr(torch, native_dtype(device))
    backbone = load_backbone(source, device=device, dtype=dtype)
    ran = []
    hooks = [
        stage.register_forward_hook(lambda *call, k=k: ran.append(k))
        for k, stage in enumerate(backbone.stages)
    ]
    transformer.transform(clipart[0]["image"][:2])
    for hook in hooks:
        hook.remove()
    assert max(ran) <= 3


@BOTH
def test_fit_loads_no_weights(kind, column, clipart, pass_counter):
    kind().fit(clipart[0][column])
    assert pass_counter == {"rows": 0, "loads": 0, "encoded": 0}


@BOTH
def test_batch_that_does_not_fit_in_memory_is_halved_not_lost(
    kind, column, clipart, monkeypatch
):
    import torch

    from sklearn_difffeat.extraction import _model

    cells = clipart[0][column].drop_duplicates()[:11]
    expected = kind(dtype="float32", timestep=[0, 9]).fit_transform(cells)
    forward, sizes = _model.forward, []

    def starved(backbone, inputs, plan, timestep, *rest):
        sizes.append(len(getattr(inputs, "ids", inputs)))
        if sizes[-1] > 3 and timestep:
            torch.empty(1 << 50)  # what the CPU's allocator says
        return forward(backbone, inputs, plan, timestep, *rest)

    monkeypatch.setattr(_model, "forward", starved)
    transformer = kind(dtype="float32", timestep=[0, 9], batch_size=8)
    found = transformer.fit_transform(cells)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    # The pass that did fit is not run again, and no later batch is as large.
    assert sizes == [8, 8, 4, 2, 2, 4, 2, 2, 3, 3]

    def hopeless(*args):
        raise MemoryError

    monkeypatch.setattr(_model, "forward", hopeless)
    with pytest.raises(MemoryError, match=r"row \d+ of X does not fit"):
        kind().fit_transform(cells)


@BOTH
def test_device_that_is_not_there_falls_back_with_a_warning(kind, column, clipart):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    cells = clipart[0][column][:2]
    with pytest.warns(UserWarning, match="device='cuda' is not available here"):
        features = kind(device="cuda").fit_transform(cells)
    np.testing.assert_array_equal(features, kind().fit_transform(cells))
    with pytest.raises(ValueError, match="device='gpu' is not a torch device"):
        kind(device="gpu").fit_transform(cells)


@BOTH
def test_a_pass_that_is_interrupted_leaves_the_shared_model_whole(
    kind, column, clipart, monkeypatch
):
    from sklearn_difffeat.backbones.dit import DiTBackbone
    from sklearn_difffeat.backbones.masked_lm import MaskedLMBackbone

    cells = clipart[0][column][:3]
    expected = kind(block=[1, 2]).fit_transform(cells)
    backbone = DiTBackbone if column == "image" else MaskedLMBackbone

    def interrupted(self, *args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(backbone, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            kind().fit_transform(cells)
    np.testing.assert_array_equal(kind(block=[1, 2]).fit_transform(cells), expected)


@BOTH
def test_threads_share_one_model_and_get_their_own_features(kind, column, clipart):
    cells = clipart[0][column][:4]
    expected = [kind(block=b, timestep=100).fit_transform(cells) for b in range(5)]
    found = joblib.Parallel(n_jobs=3, backend="threading")(
        joblib.delayed(kind(block=b, timestep=100).fit_transform)(cells)
        for b in range(5)
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@BOTH
def test_progress_bar_counts_rows_when_verbose(kind, column, clipart, capsys):
    kind(verbose=True).fit_transform(clipart[0][column][:3])
    assert "3/3" in capsys.readouterr().err
    kind().fit_transform(clipart[0][column][:3])
    assert capsys.readouterr().err == ""
