"""Values beyond a precision: computed again in float32, or refused by row."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sklearn_difffeat import (
    FeatureStore,
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
)

TEXTS = ["a red bird", "the blue boat", "a flag", "a small house"]


def rescaled(folder, target, factors):
    """Copy a model with some of its tensors multiplied."""
    target.mkdir()
    for path in folder.rglob("*"):
        to = target / path.relative_to(folder)
        to.mkdir(exist_ok=True) if path.is_dir() else to.write_bytes(path.read_bytes())
    changed = 0
    for path in target.rglob("*.safetensors"):
        tensors = load_file(path)
        for name, tensor in tensors.items():
            for part, factor in factors.items():
                if part in name:
                    tensors[name] = tensor * factor
                    changed += 1
        save_file(tensors, path, {"format": "pt"})
    assert changed
    return target


@pytest.fixture
def wide_bert(bert_folder, tmp_path):
    """A BERT that holds one word's embedding beyond float16."""
    folder = rescaled(bert_folder, tmp_path / "wide", {"layer.1.output.dense": 1e6})
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    name = next(
        key for key in tensors if key.endswith("layer.1.output.LayerNorm.weight")
    )
    tensors[name] = tensors[name] * 5e4
    save_file(tensors, weights, {"format": "pt"})
    return folder


@pytest.mark.parametrize("where", ["none", "memory", "file"])
@pytest.mark.parametrize("block", [1, 2, 3, [1, 3]])
def test_rows_beyond_float16_are_computed_in_float32_and_counted(
    wide_bert, where, block, cache
):
    cache = None if where == "none" else cache
    options = {"block": block, "timestep": [0, 300]}
    precise = TextDiffusionFeatureTransformer(wide_bert, **options)
    expected = precise.fit_transform(TEXTS)
    half = TextDiffusionFeatureTransformer(
        wide_bert, dtype="float16", cache=cache, **options
    ).fit(TEXTS)
    if block == 1 and cache is None:
        found = half.transform(TEXTS)
    else:
        with pytest.warns(UserWarning, match="4 of 4 rows exceed the range of"):
            found = half.transform(TEXTS)
    np.testing.assert_allclose(found, expected, rtol=2e-2, atol=2e-2)
    if cache is not None:
        # What was kept is right: nothing is computed, and nothing to be warned of.
        np.testing.assert_allclose(half.transform(TEXTS), found, rtol=1e-3)


def test_only_the_rows_that_overflow_are_computed_again(
    bert_folder, tmp_path, monkeypatch
):
    folder = rescaled(bert_folder, tmp_path / "word", {"word_embeddings": 1})
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    tensors["bert.embeddings.word_embeddings.weight"][vocabulary["boat"]] = 6e4
    save_file(tensors, weights, {"format": "pt"})
    # The norm behind the embeddings holds them; as a stage of its own it would not.
    from sklearn_difffeat.extraction import _model

    forward, seen = _model.forward, []

    def overflowing(backbone, inputs, plan, timestep, draw, blocks):
        values = forward(backbone, inputs, plan, timestep, draw, blocks)
        seen.append((backbone.dtype, len(inputs.ids)))
        if backbone.dtype == torch.float16:
            boats = (inputs.ids == vocabulary["boat"]).any(dim=1).numpy()
            for block in values:
                values[block][boats] = np.inf
        return values

    monkeypatch.setattr(_model, "forward", overflowing)
    half = TextDiffusionFeatureTransformer(folder, dtype="float16").fit(TEXTS)
    with pytest.warns(UserWarning, match="1 of 4 rows exceed the range of float16"):
        found = half.transform(TEXTS)
    assert seen == [(torch.float16, 4), (torch.float32, 1)]
    assert np.isfinite(found).all()
    precise = TextDiffusionFeatureTransformer(folder).fit_transform(TEXTS)
    np.testing.assert_allclose(found, precise, rtol=5e-2, atol=5e-2)


def test_a_row_that_float32_cannot_hold_either_is_refused_and_not_kept(
    bert_folder, tmp_path, cache
):
    folder = rescaled(
        bert_folder, tmp_path / "broken", {"layer.2.output.dense": np.nan}
    )
    for dtype in ("float32", "bfloat16", "float16"):
        transformer = TextDiffusionFeatureTransformer(
            folder, dtype=dtype, cache=cache, missing="nan", unreadable="nan"
        )
        with pytest.raises(ValueError, match=r"row 1 of X: backbone .* not finite"):
            transformer.fit_transform([None, *TEXTS])
    assert not len(FeatureStore(cache).describe())
    # A block before the broken one is fine, where nothing else is kept.
    shallow = TextDiffusionFeatureTransformer(folder, block=2)
    assert np.isfinite(shallow.fit_transform(TEXTS)).all()


def test_latents_beyond_float16_are_encoded_in_float32(
    dit_folder, tmp_path, clipart, cache
):
    folder = rescaled(dit_folder, tmp_path / "wide", {"quant_conv.weight": 1e7})
    cells = list(clipart[0]["image"][:3])
    options = {"timestep": 0, "block": 1}
    expected = ImageDiffusionFeatureTransformer(
        folder, dtype="float32", **options
    ).fit_transform(cells)
    half = ImageDiffusionFeatureTransformer(
        folder, dtype="float16", cache=cache, **options
    )
    with pytest.warns(UserWarning, match="3 of 3 rows exceed the range of float16"):
        found = half.fit_transform(cells)
    np.testing.assert_allclose(found, expected, rtol=5e-2, atol=5e-2)


def test_a_token_at_the_end_of_float16_is_not_hidden_by_pooling():
    from sklearn_difffeat.extraction._forward import _is_saturated

    hidden = torch.zeros(3, 5, 4, dtype=torch.float16)
    hidden[1, 2, 3] = 65504
    hidden[2, 4, 0] = torch.nan
    assert _is_saturated(hidden).flatten().tolist() == [False, True, True]
