"""DiTs over the feature map of a frozen encoder: representation autoencoders."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers.image_checkpoints import FAMILIES, save_on_representation
from helpers.image_oracle import PICTURES as SMALL
from helpers.image_oracle import pipeline_features, transformer
from helpers.representation import ENCODERS, save

from sklearn_difffeat import ImageDiffusionFeatureTransformer, describe_backbone

PICTURES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
PIXELS = torch.from_numpy(PICTURES).permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.fixture(scope="module", params=list(ENCODERS))
def saved(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, *save(request.param, folder)


def latents_of(kind, encoder):
    # Representation autoencoders take pixels from 0 to 1.
    return encoder.encode(PIXELS if kind == "lite" else PIXELS / 2 + 0.5).latent


def read(folder, **options):
    options = {"timestep": 0, "dtype": "float32"} | options
    return ImageDiffusionFeatureTransformer(folder, **options).fit_transform(PICTURES)


@torch.inference_mode()
def test_block_0_is_the_encoders_own_map_at_its_full_width(saved):
    kind, folder, encoder, _ = saved
    latents = latents_of(kind, encoder)
    own = encoder.features(latents) if kind == "lite" else latents
    info = describe_backbone(folder)
    assert info.width_of(0) == own.shape[1]
    assert [info.width_of(block) for block in (1, 2, 3)] == [16] * 3
    expected = own.flatten(2)
    np.testing.assert_allclose(
        read(folder, block=0, pooling="mean"), expected.mean(2), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        read(folder, block=0, pooling="max"), expected.amax(2), rtol=1e-4, atol=1e-5
    )


@torch.inference_mode()
def test_deeper_blocks_are_those_of_the_model_on_the_latents(saved):
    kind, folder, encoder, model = saved
    caught = []
    model.transformer_blocks[1].register_forward_hook(
        lambda module, args, output: caught.append(output.mean(dim=1))
    )
    classes, steps = torch.ones(5, dtype=torch.long), torch.zeros(5)
    model(latents_of(kind, encoder), timestep=steps, class_labels=classes)
    found = read(folder, block=2, pooling="mean")
    np.testing.assert_allclose(found, caught[0], rtol=1e-3, atol=1e-4)


def test_blocks_and_timesteps_come_from_one_pass_each_and_one_encoding(
    saved, cache, pass_counter
):
    _, folder, _, _ = saved
    options = {"block": [0, 2], "timestep": [0, 9], "cache": cache}
    first = read(folder, **options)
    assert first.shape[1] == 2 * (describe_backbone(folder).width_of(0) + 16)
    assert pass_counter["rows"] == 10 and pass_counter["encoded"] == 5
    np.testing.assert_array_equal(read(folder, **options), first)
    read(folder, block=3, timestep=20, cache=cache)
    # Latents were kept, so that a new timestep encodes nothing.
    assert pass_counter["rows"] == 15 and pass_counter["encoded"] == 5


def test_noise_reaches_the_map_that_block_0_reads(saved):
    _, folder, _, _ = saved
    clean, noisy = read(folder, block=0), read(folder, block=0, timestep=500)
    assert np.abs(clean - noisy).max() > 0.05


def test_sizes_follow_the_encoder(saved):
    kind, folder, _, _ = saved
    info = describe_backbone(folder)
    assert info.input_size == 32
    if kind == "lite":
        assert info.input_step == 4 and info.max_input_size is None
        assert read(folder, block=1, image_size=48).shape == (5, 16)
    else:
        assert info.max_input_size == 32
        with pytest.raises(ValueError, match="image_size=48 exceeds the 32 pixels"):
            read(folder, image_size=48)


def test_half_precision_and_a_grid_read_the_same_map(saved):
    _, folder, _, _ = saved
    exact = read(folder, block=[0, 1], pooling=("grid", 2))
    half = read(folder, block=[0, 1], pooling=("grid", 2), dtype="bfloat16")
    np.testing.assert_allclose(half, exact, rtol=0.1, atol=0.1)


def test_a_model_that_takes_other_latents_is_an_error_of_fit(saved, tmp_path):
    kind, folder, _, _ = saved
    copy = tmp_path / kind
    shutil.copytree(folder, copy)
    path = copy / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"in_channels": 7}))
    with pytest.raises(ValueError, match="takes 7 latent channels but its vae/ makes"):
        read(copy)


# DDPM has no latents; klein's pipeline ends with the norm of its own VAE.
LATENT = sorted({*FAMILIES} - {"ddpm", "flux2-klein"})


@pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")
@pytest.mark.parametrize("family", LATENT)
def test_every_family_of_latents_runs_on_a_representation(family, tmp_path):
    encoder = save_on_representation(family, tmp_path)
    info = describe_backbone(tmp_path)
    assert info.input_size == info.max_input_size == 32
    blocks = list(range(family == "dit", info.n_blocks + 1))
    prompt = "" if family == "dit" else "a cat"
    found = transformer(
        tmp_path, block=blocks, prompt=prompt, image_size=None
    ).fit_transform(SMALL)
    expected = pipeline_features(tmp_path, family, prompt, encoder)
    if family == "dit":
        # Block 0 is the encoder's own map there.
        expected = expected[:, info.width_of(1) :]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
