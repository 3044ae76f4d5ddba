"""DiT: the constants of Meta's code, and of diffusers' class, held to the formula."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from conftest import save_dit
from diffusers import DiTTransformer2DModel
from helpers.folders import META, PICTURES, cached, edited_dit
from safetensors.torch import load_file
from torch.nn import functional

from sklearn_difffeat import ImageDiffusionFeatureTransformer, describe_backbone
from sklearn_difffeat.backbones import load_backbone, locate_backbone

CACHE_PATH = "/root/.cache/huggingface/hub/models--facebook--DiT-XL-2-512/snapshots/ab"
LEGACY = {"_class_name": "Transformer2DModel", "num_vector_embeds": None}


def block_by_hand(weights, number, tokens, timestep, *, shift, eps):
    """One block as DiT's paper and Meta's code have it, from the file's tensors."""

    def linear(name, x):
        name = f"transformer_blocks.{number}.{name}"
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    half = 128
    frequencies = torch.exp(-math.log(10000) * torch.arange(half) / (half - shift))
    angles = timestep * frequencies
    time = torch.cat([angles.cos(), angles.sin()])
    time = linear("norm1.emb.timestep_embedder.linear_1", time)
    time = linear("norm1.emb.timestep_embedder.linear_2", functional.silu(time))
    classes = f"transformer_blocks.{number}.norm1.emb.class_embedder.embedding_table"
    null_class = weights[f"{classes}.weight"][-1]
    parts = linear("norm1.linear", functional.silu(time + null_class)).chunk(6)
    shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = parts

    n_rows, n_tokens, width = tokens.shape
    normed = functional.layer_norm(tokens, (width,), eps=1e-6) * (1 + scale_1) + shift_1
    heads = [
        linear(f"attn1.to_{name}", normed)
        .reshape(n_rows, n_tokens, 2, width // 2)
        .transpose(1, 2)
        for name in "qkv"
    ]
    mixed = functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    tokens = tokens + gate_1 * linear("attn1.to_out.0", mixed)
    normed = functional.layer_norm(tokens, (width,), eps=eps) * (1 + scale_2) + shift_2
    inner = functional.gelu(linear("ff.net.0.proj", normed), approximate="tanh")
    return tokens + gate_2 * linear("ff.net.2", inner)


def spread(folder):
    """Make weights large enough that the time embedding is seen in every block."""
    model = DiTTransformer2DModel.from_pretrained(folder / "transformer")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder / "transformer")
    path = folder / "transformer" / "config.json"
    config = json.loads(path.read_text())
    config.pop("_name_or_path")
    path.write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory):
    """A DiT as diffusers' class initialises and saves it."""
    torch.manual_seed(1)
    return spread(save_dit(tmp_path_factory.mktemp("trained")))


@pytest.mark.parametrize("timestep", [1, 50, 500, 999])
@pytest.mark.parametrize(
    ("changes", "shift", "eps"),
    [(LEGACY, 0, 1e-6), ({"_name_or_path": META}, 0, 1e-6), ({}, 1, 1e-5)],
    ids=["legacy", "saved again", "trained"],
)
def test_blocks_are_those_of_the_formula(
    trained_folder, tmp_path, changes, shift, eps, timestep
):
    folder = edited_dit(trained_folder, tmp_path / "dit", **changes)
    options = {"timestep": timestep, "dtype": "float32"}
    blocks = ImageDiffusionFeatureTransformer(folder, block=[0, 1, 2, 3], **options)
    features = blocks.fit_transform(PICTURES).reshape(3, 4, 16)
    weights = load_file(
        trained_folder / "transformer/diffusion_pytorch_model.safetensors"
    )
    tokens = tokens_of(folder, timestep)
    np.testing.assert_allclose(features[:, 0], tokens.mean(1), rtol=1e-5, atol=1e-6)
    for number in range(3):
        tokens = block_by_hand(weights, number, tokens, timestep, shift=shift, eps=eps)
        np.testing.assert_allclose(
            features[:, number + 1], tokens.mean(1), rtol=1e-4, atol=1e-4
        )


def tokens_of(folder, timestep):
    """Return the embedded tokens of the pictures, all four of each."""
    grid = ImageDiffusionFeatureTransformer(
        folder, block=0, timestep=timestep, dtype="float32", pooling=("grid", 2)
    )
    cells = grid.fit_transform(PICTURES)
    first = torch.from_numpy(np.asarray(cells))
    for tokens in (first.reshape(3, 4, 16), first.reshape(3, 16, 4).mT):
        mean = ImageDiffusionFeatureTransformer(
            folder, block=0, timestep=timestep, dtype="float32"
        ).fit_transform(PICTURES)
        if np.allclose(tokens.mean(1), mean, atol=1e-6):
            return tokens
    raise AssertionError("the cells of a grid are not the tokens")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "diffusers"),
        (LEGACY, "original"),
        ({"_class_name": "Transformer2DModel"}, "original"),
        (LEGACY | {"out_channels": 4}, "diffusers"),
        (LEGACY | {"out_channels": None}, "diffusers"),
        # Loaded with the class of today, and saved again.
        ({"num_vector_embeds": None}, "original"),
        ({"num_vector_embeds": None, "out_channels": 4}, "diffusers"),
        ({"_name_or_path": META}, "original"),
        ({"_name_or_path": f"{META}/transformer"}, "original"),
        ({"_name_or_path": CACHE_PATH + "/transformer"}, "original"),
        ({"_name_or_path": r"C:\\hub\\models--facebook--DiT-XL-2-256\\x"}, "original"),
        ({"_name_or_path": "someone/DiT-trained"}, "diffusers"),
        ({"_name_or_path": "notfacebook/DiT-XL-2-256"}, "diffusers"),
        ({"_name_or_path": "facebook/DiT-XL-2-256-mine"}, "diffusers"),
    ],
)
def test_origin_is_told_by_the_configuration(dit_folder, tmp_path, changes, expected):
    folder = edited_dit(dit_folder, tmp_path / "dit", **changes)
    info = describe_backbone(folder)
    assert info.time_embedding == expected
    if "out_channels" not in changes:  # which the weights would have to follow
        shifts, epsilons = constants(folder)
        assert shifts == {0 if expected == "original" else 1}
        assert epsilons == {1e-6 if expected == "original" else 1e-5}
    if changes:
        assert info.fingerprint != describe_backbone(dit_folder).fingerprint


def constants(folder):
    source, _ = locate_backbone(folder)
    model = load_backbone(source, device="cpu", dtype=torch.float32).model
    blocks = model.transformer_blocks
    return (
        {block.norm1.emb.time_proj.downscale_freq_shift for block in blocks},
        {block.norm3.eps for block in blocks},
    )


def test_origin_is_told_by_the_pipelines_index_as_well(dit_folder, tmp_path):
    folder = tmp_path / "dit"
    shutil.copytree(dit_folder, folder)
    index = {"_class_name": "DiTPipeline", "_name_or_path": "facebook/DiT-XL-2-512"}
    (folder / "model_index.json").write_text(json.dumps(index))
    assert describe_backbone(folder).time_embedding == "original"
    assert constants(folder)[0] == {0}


def test_origin_is_told_after_todays_class_saved_a_legacy_checkpoint(
    legacy_dit_folder, tmp_path
):
    folder = tmp_path / "again"
    shutil.copytree(legacy_dit_folder, folder)
    model = DiTTransformer2DModel.from_pretrained(folder / "transformer")
    shutil.rmtree(folder / "transformer")
    model.save_pretrained(folder / "transformer")
    config = json.loads((folder / "transformer" / "config.json").read_text())
    assert config["_class_name"] == "DiTTransformer2DModel"
    expected = ImageDiffusionFeatureTransformer(legacy_dit_folder)
    found = ImageDiffusionFeatureTransformer(folder).fit_transform(PICTURES)
    np.testing.assert_allclose(
        found, expected.fit_transform(PICTURES), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [("facebook/DiT-XL-2-256", "original"), ("someone/DiT-XL-2-256", "diffusers")],
)
def test_origin_is_told_by_the_hub_id(
    dit_folder, tmp_path, monkeypatch, name, expected
):
    cached(dit_folder, tmp_path, "DiT-XL-2-256", owner=name.partition("/")[0])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert describe_backbone(name).time_embedding == expected
    assert constants(name)[0] == {0 if expected == "original" else 1}


def test_name_of_a_folder_tells_nothing(dit_folder, tmp_path):
    folder = tmp_path / "facebook" / "DiT-XL-2-256"
    shutil.copytree(dit_folder, folder)
    info = describe_backbone(folder)
    assert info.time_embedding == "diffusers"
    assert info.fingerprint == describe_backbone(dit_folder).fingerprint


def test_embedded_backbone_is_run_as_it_was_trained():
    assert describe_backbone("dit-tiny").time_embedding == "diffusers"
    assert constants("dit-tiny")[0] == {1}


def test_other_families_say_nothing_of_a_time_embedding(checkpoints):
    assert describe_backbone(checkpoints("pixart-sigma")).time_embedding is None
    assert describe_backbone("mdlm-tiny").time_embedding is None
