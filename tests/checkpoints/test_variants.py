"""Weight files with a variant in their name, such as ``model.fp16.safetensors``."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers.fake_hub import serving
from safetensors.torch import load_file, save_file

from sklearn_difffeat import (
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
    describe_backbone,
    release_backbones,
)
from sklearn_difffeat.backbones import locate_backbone
from sklearn_difffeat.checkpoints._source import locate
from sklearn_difffeat.checkpoints._weights import (
    find_weights,
    loaded_bytes,
    weight_files,
)

TEXTS = ["a red apple", "the boat"]
PICTURES = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
PIXART = ("transformer", "vae", "text_encoder")


def stem_of(folder):
    return next(
        stem
        for stem in ("diffusion_pytorch_model", "model")
        if (folder / f"{stem}.safetensors").exists()
    )


def make_variant(folder, variant, *, n_shards=1, keep=False, to="safetensors"):
    """Replace a part's weights by those of a variant, in half precision."""
    stem = stem_of(folder)
    plain = folder / f"{stem}.safetensors"
    tensors = {key: value.half() for key, value in load_file(plain).items()}
    if to == "bin":
        name = "pytorch_model" if stem == "model" else stem
        torch.save(tensors, folder / f"{name}.{variant}.bin")
    elif n_shards == 1:
        path = folder / f"{stem}.{variant}.safetensors"
        save_file(tensors, path, metadata={"format": "pt"})
    else:
        places = {}
        for number in range(n_shards):
            part = dict(sorted(tensors.items())[number::n_shards])
            name = f"{stem}.{variant}-{number + 1:05}-of-{n_shards:05}.safetensors"
            save_file(part, folder / name, metadata={"format": "pt"})
            places |= dict.fromkeys(part, name)
        index = {"metadata": {"total_size": 1}, "weight_map": places}
        path = folder / f"{stem}.safetensors.index.{variant}.json"
        path.write_text(json.dumps(index))
    if not keep:
        plain.unlink()


def features(folder, **options):
    release_backbones()
    if (folder / "model_index.json").exists() or (folder / "transformer").exists():
        options = {"image_size": 32, "dtype": "float32", **options}
        kind, cells = ImageDiffusionFeatureTransformer, PICTURES
    else:
        kind, cells = TextDiffusionFeatureTransformer, TEXTS
    return kind(folder, **options).fit_transform(cells)


@pytest.fixture
def pixart(checkpoints, tmp_path):
    folder = tmp_path / "pixart"
    shutil.copytree(checkpoints("pixart-sigma"), folder)
    return folder


@pytest.mark.parametrize("n_shards", [1, 2])
@pytest.mark.parametrize(
    "parts", [PIXART, ("transformer",), ("vae",), ("text_encoder",)], ids="+".join
)
def test_parts_that_are_there_in_half_precision_alone_load(pixart, parts, n_shards):
    expected = features(pixart, prompt="a cat")
    for part in parts:
        make_variant(pixart / part, "fp16", n_shards=n_shards)
    found = features(pixart, prompt="a cat")
    np.testing.assert_allclose(found, expected, rtol=2e-2, atol=2e-2)
    source, info = locate_backbone(pixart)
    files = weight_files(source)
    assert len(files) == 3 + len(parts) * (n_shards - 1)
    stored = sum((pixart / file).stat().st_size for file in files)
    assert info.size_mb == stored / 1e6
    for part in PIXART:
        variant = "fp16" if part in parts else None
        assert find_weights(source, f"{part}/").variant == variant


@pytest.mark.parametrize("n_shards", [1, 2])
def test_text_model_that_is_there_in_half_precision_alone_loads(
    bert_folder, tmp_path, n_shards
):
    folder = tmp_path / "bert"
    shutil.copytree(bert_folder, folder)
    expected, needed = features(folder), loaded_bytes(locate(folder), 4)
    make_variant(folder, "fp16", n_shards=n_shards)
    np.testing.assert_allclose(features(folder), expected, rtol=2e-2, atol=2e-2)
    # Numbers are counted, not bytes.
    assert loaded_bytes(locate(folder), 4) == needed


def test_pickled_weights_of_a_variant_load(dit_folder, bert_folder, tmp_path):
    for original, parts in ((dit_folder, ("transformer", "vae")), (bert_folder, ("",))):
        folder = tmp_path / original.name
        shutil.copytree(original, folder)
        expected = features(folder)
        for part in parts:
            make_variant(folder / part, "fp16", to="bin")
        np.testing.assert_allclose(features(folder), expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("variant", ["fp16", "non_ema", "bf16"])
def test_plain_file_is_used_where_there_is_one(pixart, bert_folder, tmp_path, variant):
    text = tmp_path / "bert"
    shutil.copytree(bert_folder, text)
    for folder, parts in ((pixart, PIXART), (text, ("",))):
        expected = features(folder)
        size = describe_backbone(folder).size_mb
        for part in parts:
            make_variant(folder / part, variant, keep=True)
        np.testing.assert_array_equal(features(folder), expected)
        assert describe_backbone(folder).size_mb == size


def test_full_precision_in_a_pickle_comes_before_half_precision(legacy_dit_folder):
    source = locate(legacy_dit_folder)
    assert find_weights(source, "vae/").files == ["vae/diffusion_pytorch_model.bin"]


@pytest.mark.parametrize(
    ("variants", "chosen"),
    [
        (["bf16"], "bf16"),
        (["ema"], "ema"),
        (["non_ema"], "non_ema"),
        (["fp16", "bf16"], "fp16"),
        (["ema", "fp16", "fp32"], "fp32"),
        (["ema", "non_ema"], "ema"),
        (["fp16", "mine", "other"], "fp16"),
        (["fp16.ema"], "fp16.ema"),
    ],
)
def test_variant_that_is_there_is_taken(pixart, variants, chosen):
    for variant in variants:
        make_variant(pixart / "transformer", variant, keep=True)
    (pixart / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    weights = find_weights(locate(pixart), "transformer/")
    assert weights.variant == chosen
    assert weights.files == [
        f"transformer/diffusion_pytorch_model.{chosen}.safetensors"
    ]
    assert np.isfinite(features(pixart)).all()


def test_variants_of_unknown_meaning_are_an_error_that_names_them(pixart):
    for variant in ("mine", "other"):
        make_variant(pixart / "transformer", variant, keep=True)
    (pixart / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    message = r"transformer/ weights in the variants \['mine', 'other'\] alone.*rename"
    with pytest.raises(ValueError, match=message):
        ImageDiffusionFeatureTransformer(pixart).fit(PICTURES)


def test_shard_of_a_variant_that_is_missing_is_named(pixart):
    make_variant(pixart / "vae", "fp16", n_shards=2)
    missing = "diffusion_pytorch_model.fp16-00002-of-00002.safetensors"
    (pixart / "vae" / missing).unlink()
    with pytest.raises(FileNotFoundError, match=f"1 of its 4 .*'vae/{missing}'"):
        ImageDiffusionFeatureTransformer(pixart).fit(PICTURES)


def test_variant_of_a_hub_id_is_fetched_and_counted(pixart, tmp_path, monkeypatch):
    expected = features(pixart, prompt="a cat")
    for part in PIXART:
        make_variant(pixart / part, "fp16", n_shards=1 + (part == "transformer"))
    cache = tmp_path / "cache"
    with serving(monkeypatch, cache) as hub:
        hub.add("someone/pixart", pixart)
        info = describe_backbone("someone/pixart")
        files = weight_files(locate_backbone("someone/pixart")[0])
        stored = sum((pixart / file).stat().st_size for file in files)
        assert len(files) == 4 and info.size_mb == stored / 1e6
        options = {"image_size": 32, "dtype": "float32", "prompt": "a cat"}
        found = ImageDiffusionFeatureTransformer(
            "someone/pixart", **options
        ).fit_transform(PICTURES)
        np.testing.assert_allclose(found, expected, rtol=2e-2, atol=2e-2)
    # What was downloaded is enough without the hub.
    release_backbones()
    again = ImageDiffusionFeatureTransformer(
        "someone/pixart", local_files_only=True, **options
    ).fit_transform(PICTURES)
    np.testing.assert_array_equal(again, found)
