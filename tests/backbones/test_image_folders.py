"""Folders of diffusion pipelines that lack something, or hold something else."""

import json
import shutil

import numpy as np
import pytest
from helpers.image_oracle import PICTURES, transformer
from safetensors.torch import load_file, save_file

from sklearn_difffeat.backbones import _prompt


@pytest.mark.parametrize(
    ("family", "part", "message"),
    [
        ("flux-dev", "transformer", "without a transformer/ or unet/ sub-folder"),
        ("sd1.5", "unet", "without a transformer/ or unet/ sub-folder"),
        ("sana", "scheduler", "lacks scheduler/scheduler_config.json"),
        ("sana", "vae", "takes 4 latent channels but has no vae/"),
        ("sd3", "text_encoder_3", "lacks text_encoder_3/config.json"),
        ("sd3", "tokenizer_2", "lacks tokenizer_2/tokenizer_config.json"),
        ("lumina2", "model_index.json", "lacks model_index.json"),
    ],
)
def test_missing_part_is_an_error_that_names_it(
    checkpoints, tmp_path, family, part, message
):
    folder = tmp_path / family
    shutil.copytree(checkpoints(family), folder)
    if part.endswith(".json"):
        (folder / part).unlink()
    else:
        shutil.rmtree(folder / part)
    with pytest.raises(ValueError, match=f"backbone='.*{family}'.*{message}"):
        transformer(folder).fit_transform(PICTURES)


@pytest.mark.parametrize(
    ("family", "other", "kind"),
    [("sd3", "sd1.5", "flow-matching"), ("sdxl", "flux-dev", "DDPM")],
)
def test_scheduler_of_another_kind_is_an_error_of_fit(
    checkpoints, tmp_path, family, other, kind
):
    folder = tmp_path / family
    shutil.copytree(checkpoints(family), folder)
    shutil.rmtree(folder / "scheduler")
    shutil.copytree(checkpoints(other) / "scheduler", folder / "scheduler")
    with pytest.raises(ValueError, match=f"not of the {kind} type"):
        transformer(folder).fit(PICTURES)


def edited(folder, target, file, **changes):
    shutil.copytree(folder, target)
    config = json.loads((target / file).read_text()) | changes
    (target / file).write_text(json.dumps(config))
    return target


def test_pipeline_of_another_task_is_an_error_of_fit(checkpoints, tmp_path):
    sd = checkpoints("sd1.5")
    name = "StableDiffusionControlNetPipeline"
    folder = edited(sd, tmp_path / "one", "model_index.json", _class_name=name)
    with pytest.raises(ValueError, match=f"is a '{name}'.*use one of"):
        transformer(folder).fit(PICTURES)
    folder = edited(sd, tmp_path / "two", "unet/config.json", in_channels=9)
    with pytest.raises(ValueError, match="takes 9 latent channels but its vae/ makes"):
        transformer(folder).fit(PICTURES)
    name = "AsymmetricAutoencoderKL"
    folder = edited(sd, tmp_path / "three", "vae/config.json", _class_name=name)
    with pytest.raises(ValueError, match="has a VAE of class 'Asymmetric"):
        transformer(folder).fit(PICTURES)


@pytest.mark.parametrize(("family", "largest"), [("sd3", 96), ("lumina2", 64)])
def test_picture_larger_than_the_positions_is_an_error_of_fit(
    checkpoints, family, largest
):
    folder = checkpoints(family)
    features = transformer(folder, image_size=largest).fit_transform(PICTURES[:1])
    assert np.isfinite(features).all()
    with pytest.raises(ValueError, match=f"exceeds the {largest} pixels"):
        transformer(folder, image_size=largest + 16).fit(PICTURES)


def test_old_pixart_checkpoints_with_the_legacy_class_name_load(checkpoints, tmp_path):
    sigma = checkpoints("pixart-sigma")
    legacy = edited(
        sigma, tmp_path / "a", "transformer/config.json",
        _class_name="Transformer2DModel", num_vector_embeds=None,
    )  # fmt: skip
    expected = transformer(sigma).fit_transform(PICTURES)
    found = transformer(legacy).fit_transform(PICTURES)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_sentencepiece_that_is_not_installed_is_named(
    checkpoints, tmp_path, monkeypatch
):
    folder = tmp_path / "pixart"
    shutil.copytree(checkpoints("pixart-sigma"), folder)
    (folder / "tokenizer" / "tokenizer.json").rename(folder / "tokenizer/spiece.model")
    monkeypatch.setattr(_prompt, "is_sentencepiece_available", lambda: False)
    with pytest.raises(ImportError, match="pip install sentencepiece protobuf"):
        transformer(folder).fit_transform(PICTURES)


def test_a_unet_without_folders_is_read_as_one_with_them(checkpoints, tmp_path):
    folder = checkpoints("ddpm")
    flat = tmp_path / "flat"
    flat.mkdir()
    shutil.copy(folder / "model_index.json", flat)
    for part in ("unet", "scheduler"):
        for file in (folder / part).iterdir():
            shutil.copy(file, flat)
    expected = transformer(folder).fit_transform(PICTURES)
    np.testing.assert_array_equal(transformer(flat).fit_transform(PICTURES), expected)
    (flat / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="only half downloaded"):
        transformer(flat).fit(PICTURES)


def test_a_unet_that_needs_more_than_a_picture_is_an_error_of_fit(
    checkpoints, tmp_path
):
    ddpm = checkpoints("ddpm")
    folder = edited(ddpm, tmp_path / "a", "unet/config.json", num_class_embeds=10)
    with pytest.raises(ValueError, match="U-Net that takes a class"):
        transformer(folder).fit(PICTURES)
    folder = edited(ddpm, tmp_path / "b", "model_index.json", _class_name="LDMPipeline")
    with pytest.raises(ValueError, match="belongs to a 'LDMPipeline'"):
        transformer(folder).fit(PICTURES)


def test_words_in_quotation_marks_reach_hunyuan_image(checkpoints):
    drawn, other = (
        transformer(
            checkpoints("hunyuan-image"), block="last", prompt=f'a sign, "{word}"'
        ).fit_transform(PICTURES)
        for word in ("cat", "tac")
    )
    assert np.isfinite(drawn).all()
    assert not np.allclose(drawn, other, rtol=1e-4)


def test_an_encoder_that_float16_cannot_hold_runs_in_float32(checkpoints, tmp_path):
    folder = tmp_path / "sd"
    shutil.copytree(checkpoints("sd1.5"), folder)
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    # Norms that follow undo the factor.
    tensors["encoder.conv_in.weight"] *= 3e5
    save_file(tensors, path, {"format": "pt"})
    pictures = np.concatenate([PICTURES, np.full_like(PICTURES[:1], 127)])
    exact, half = (
        transformer(folder, dtype=dtype).fit_transform(pictures)
        for dtype in ("float32", "float16")
    )
    np.testing.assert_allclose(half, exact, rtol=0.05, atol=0.02)


def test_a_quantised_part_is_refused_by_the_name_of_its_method(checkpoints, tmp_path):
    flux, method = checkpoints("flux-schnell"), {"quant_method": "bitsandbytes"}
    for part in ("transformer", "text_encoder_2"):
        file = f"{part}/config.json"
        folder = edited(flux, tmp_path / part, file, quantization_config=method)
        with pytest.raises(ValueError, match=f"quantised by bitsandbytes .{file}"):
            transformer(folder).fit(PICTURES)
