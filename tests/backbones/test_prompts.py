"""Prompts of text-conditioned image models: encoded once, kept apart in a store."""

import gc
import json
import shutil
import weakref

import numpy as np
import pytest
from helpers.image_oracle import PICTURES, TIMESTEP, transformer

from sklearn_difffeat import describe_backbone, release_backbones
from sklearn_difffeat.backbones import _prompt
from sklearn_difffeat.backbones._latents import LatentCodec
from sklearn_difffeat.backbones._prompt import PromptedBackbone


@pytest.fixture
def counted(monkeypatch):
    """Count prompts and pictures encoded; watch the text encoders."""
    counts = {"prompts": [], "pictures": 0, "encoders": []}
    encode_prompt = PromptedBackbone.encode_prompt.__func__
    encode, load = LatentCodec.encode, _prompt._load_text_part

    def counted_prompt(cls, source, prompt, *args):
        counts["prompts"].append(prompt)
        return encode_prompt(cls, source, prompt, *args)

    def counted_encode(self, pixels):
        counts["pictures"] += len(pixels)
        return encode(self, pixels)

    def watched_load(source, name, *args):
        part = load(source, name, *args)
        if not name.startswith("tokenizer"):
            counts["encoders"].append(weakref.ref(part))
        return part

    monkeypatch.setattr(PromptedBackbone, "encode_prompt", classmethod(counted_prompt))
    monkeypatch.setattr(LatentCodec, "encode", counted_encode)
    monkeypatch.setattr(_prompt, "_load_text_part", watched_load)
    release_backbones()
    yield counts
    release_backbones()


def test_a_prompt_is_encoded_once_and_its_encoders_are_let_go(checkpoints, counted):
    for block in (1, 2):
        for timestep in (0, TIMESTEP):
            transformer(
                checkpoints("sd3"), block=block, timestep=timestep, prompt="a cat"
            ).fit_transform(PICTURES)
    assert counted["prompts"] == ["a cat"]
    gc.collect()
    assert len(counted["encoders"]) == 3
    assert not any(encoder() for encoder in counted["encoders"])
    transformer(checkpoints("sd3")).fit_transform(PICTURES)
    assert counted["prompts"] == ["a cat", ""]


def test_a_store_keeps_prompts_apart_and_latents_together(
    checkpoints, counted, tmp_path
):
    cache = tmp_path / "features.db"
    prompts = ["", "a cat", "", "a cat"]
    features = [
        transformer(checkpoints("sd3"), prompt=prompt, cache=cache).fit_transform(
            PICTURES
        )
        for prompt in prompts
    ]
    assert counted["pictures"] == len(PICTURES)
    np.testing.assert_array_equal(features[0], features[2])
    np.testing.assert_array_equal(features[1], features[3])
    assert not np.allclose(features[0], features[1], rtol=1e-4)


@pytest.mark.parametrize(
    ("family", "part", "kind"),
    [
        ("flux2-dev", "tokenizer", "PixtralProcessor"),
        ("qwen-image-2.1", "processor", "Qwen3VLProcessor"),
    ],
)
def test_of_a_processor_of_pictures_and_texts_the_tokenizer_is_read(
    checkpoints, tmp_path, family, part, kind
):
    plain = checkpoints(family)
    folder = tmp_path / family
    shutil.copytree(plain, folder)
    path = folder / "model_index.json"
    # As published; the class itself takes torchvision.
    index = json.loads(path.read_text()) | {part: ["transformers", kind]}
    path.write_text(json.dumps(index))
    found, expected = (
        transformer(place, prompt="a cat").fit_transform(PICTURES)
        for place in (folder, plain)
    )
    np.testing.assert_array_equal(found, expected)
    (folder / part / "tokenizer_config.json").unlink()
    release_backbones()
    with pytest.raises(ValueError, match=f"lacks {part}/tokenizer_config.json"):
        transformer(folder, prompt="a cat").fit_transform(PICTURES)


def test_pipelines_that_need_a_picture_beside_the_prompt_are_refused_by_name(
    checkpoints, tmp_path
):
    shutil.copytree(checkpoints("qwen-image"), tmp_path / "layered")
    path = tmp_path / "layered" / "model_index.json"
    index = json.loads(path.read_text())
    for name in ("QwenImageLayeredPipeline", "QwenImageEditPlusPipeline"):
        path.write_text(json.dumps(index | {"_class_name": name}))
        with pytest.raises(ValueError, match=f"is a '{name}', whose model needs more"):
            describe_backbone(tmp_path / "layered")


def test_no_text_encoder_is_loaded_where_the_empty_prompt_is_zeros(
    checkpoints, tmp_path
):
    whole = checkpoints("sdxl")
    expected = transformer(whole).fit_transform(PICTURES)
    folder = tmp_path / "sdxl"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "text_encoder_2")
    found = transformer(folder).fit_transform(PICTURES)
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="lacks text_encoder_2"):
        transformer(folder, prompt="a cat").fit_transform(PICTURES)
