"""One contract for every family of image backbones.

The features are held against the family's own pipeline of diffusers: it encodes the
prompt, names the timestep, and calls the model, whose modules are hooked.
"""

import gc
import inspect
import json
import pickle
import re
import shutil
import subprocess
import sys
import types
import weakref
from importlib import import_module
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from image_checkpoints import FAMILIES, save_pipeline

from sklearn_difffeat import (
    ImageDiffusionFeatureTransformer,
    describe_backbone,
    release_backbones,
)
from sklearn_difffeat.backbones import (
    _prompt,
    _registry,
    load_backbone,
    locate_backbone,
)
from sklearn_difffeat.backbones._latents import LatentCodec
from sklearn_difffeat.backbones._prompt import PromptedBackbone
from sklearn_difffeat.extraction._noise import gaussian_noise

SIDE, TIMESTEP = 32, 300
PICTURES = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
BLOCKS = {
    "dit": ["pos_embed", "transformer_blocks"],
    "pixart-alpha": ["pos_embed", "transformer_blocks"],
    "pixart-sigma": ["pos_embed", "transformer_blocks"],
    "sd3": ["pos_embed", "transformer_blocks"],
    "sd3-without-t5": ["pos_embed", "transformer_blocks"],
    "sd3.5": ["pos_embed", "transformer_blocks"],
    "flux-schnell": ["x_embedder", "transformer_blocks", "single_transformer_blocks"],
    "flux-dev": ["x_embedder", "transformer_blocks", "single_transformer_blocks"],
    "sana": ["patch_embed", "transformer_blocks"],
    "auraflow": ["pos_embed", "joint_transformer_blocks", "single_transformer_blocks"],
    "lumina2": ["x_embedder", "noise_refiner", "layers"],
    "sd1.5": ["conv_in", "down_blocks", "mid_block", "up_blocks"],
    "sdxl": ["conv_in", "down_blocks", "mid_block", "up_blocks"],
}
FLOW = {
    "sd3",
    "sd3-without-t5",
    "sd3.5",
    "flux-schnell",
    "flux-dev",
    "sana",
    "lumina2",
    "auraflow",
}
SD3_MEDIUM = {"num_layers": 24, "num_attention_heads": 24, "pos_embed_max_size": 192}
SDXL = {"block_out_channels": (320, 640, 1280), "sample_size": 128}


@pytest.fixture(scope="module", autouse=True)
def family_of_the_documentation():
    """Add the family whose code the documentation shows, as a reader would."""
    page = Path(__file__).parents[1] / "docs" / "families.md"
    code = re.search(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)[1]
    assert code.count("\n") < 60
    module = types.ModuleType("sklearn_difffeat.backbones.auraflow")
    exec(compile(code, page.name, "exec"), module.__dict__)
    entry = re.search(
        r'^ +"(AuraFlow\w+)": \("(\w+)", "(\w+)"\),$', page.read_text(), re.M
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)
        patch.setitem(_registry.FAMILIES, entry[1], (entry[2], entry[3]))
        yield


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Small pipelines in the hub's layout, saved when they are first asked for."""
    saved = {}

    def checkpoint(family):
        if family not in saved:
            folder = tmp_path_factory.mktemp(family)
            saved[family] = save_pipeline(family, folder)
        return saved[family]

    return checkpoint


@pytest.fixture(params=list(FAMILIES))
def family(request):
    return request.param


@pytest.fixture
def folder(family, checkpoints):
    return checkpoints(family)


def transformer(folder, **options):
    options = {"image_size": SIDE, "dtype": "float32", "timestep": TIMESTEP} | options
    return ImageDiffusionFeatureTransformer(folder, **options)


def all_blocks(folder):
    return list(range(describe_backbone(folder).n_blocks + 1))


def noisy_latents(pipeline, flow):
    """Encode the pictures and bring them to the timestep, by the papers' formulas."""
    pixels = torch.from_numpy(PICTURES).permute(0, 3, 1, 2) / 127.5 - 1
    encoded, config = pipeline.vae.encode(pixels), pipeline.vae.config
    if isinstance(pipeline.vae, diffusers.AutoencoderDC):
        latents = encoded.latent * config.scaling_factor
    else:
        mode = encoded.latent_dist.mode()
        latents = (mode - (config.shift_factor or 0)) * config.scaling_factor
    noise = gaussian_noise(0, 0, tuple(latents.shape[1:])).expand_as(latents)
    if flow:
        sigma = TIMESTEP / 1000
        return (1 - sigma) * latents + sigma * noise
    kept = pipeline.scheduler.alphas_cumprod[TIMESTEP]
    return kept.sqrt() * latents + (1 - kept).sqrt() * noise


def one_step(pipeline, family, latents, prompt):
    """Have a pipeline take one step from the latents, at the timestep."""
    n_rows, channels, *sides = latents.shape
    if family == "dit":
        # Its pipeline takes no latents; it calls the model like this.
        steps, null_class = (torch.full((n_rows,), n) for n in (TIMESTEP, 1000))
        pipeline.transformer(latents, timestep=steps, class_labels=null_class)
        return
    options = {"height": SIDE, "width": SIDE, "output_type": "latent"}
    if family in FLOW:
        pipeline.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
        options["sigmas"] = [TIMESTEP / 1000]
    else:
        config = pipeline.scheduler.config
        pipeline.scheduler = diffusers.DDPMScheduler.from_config(config)
        options["timesteps"] = [TIMESTEP]
    if family.startswith(("pixart", "sana")):
        options["use_resolution_binning"] = False
    if family == "sana":
        options["complex_human_instruction"] = None
    if family.startswith("flux"):
        latents = pipeline._pack_latents(latents, n_rows, channels, *sides)
    pipeline(prompt, latents=latents, num_images_per_prompt=n_rows, **options)


@torch.no_grad()
def pipeline_features(folder, family, prompt):
    """Return the mean token of every block, in a pass of the family's pipeline.

    Without a prompt it is the pass that guidance calls unconditional.
    """
    absent = ["text_encoder_3", "tokenizer_3"] if family == "sd3-without-t5" else []
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        folder, **dict.fromkeys(absent)
    )
    pipeline.set_progress_bar_config(disable=True)
    latents = noisy_latents(pipeline, family in FLOW)
    model = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
    model.eval()
    modules = []
    for name in BLOCKS[family]:
        module = getattr(model, name)
        is_list = isinstance(module, torch.nn.ModuleList)
        modules += list(module) if is_list else [module]
    caught = [[] for _ in modules]
    for outputs, module in zip(caught, modules, strict=True):
        module.register_forward_hook(
            lambda module, args, output, outputs=outputs: outputs.append(output)
        )
    one_step(pipeline, family, latents, prompt)
    means = []
    for outputs in caught:
        # Guidance is a second call, or a first half of the batch.
        output = outputs[0] if prompt else outputs[-1]
        if hasattr(model, "up_blocks"):
            maps = output[0] if isinstance(output, tuple) else output
            tokens = maps.flatten(2).transpose(1, 2)
        else:
            tokens = output[1] if isinstance(output, tuple) else output
        n_rows = len(PICTURES)
        tokens = tokens[-n_rows:] if prompt else tokens[:n_rows]
        if family in ("lumina2", "auraflow"):
            # The text stands before the picture, which has 2 x 2 tokens.
            tokens = tokens[:, -4:]
        means.append(tokens.mean(dim=1))
    return torch.cat(means, dim=1).numpy()


@pytest.mark.parametrize("prompt", ["", "a cat"])
def test_features_equal_those_of_the_familys_own_pipeline(family, folder, prompt):
    if prompt and family == "dit":
        with pytest.raises(ValueError, match="is not conditioned on a text"):
            transformer(folder, prompt=prompt).fit(PICTURES)
        return
    blocks = all_blocks(folder)
    features = transformer(folder, block=blocks, prompt=prompt).fit_transform(PICTURES)
    expected = pipeline_features(folder, family, prompt)
    assert features.shape == expected.shape
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_early_exit_gives_what_the_full_pass_gives(folder):
    blocks = all_blocks(folder)
    together = transformer(folder, block=blocks).fit(PICTURES)
    features = together.transform(PICTURES)
    names = together.get_feature_names_out()
    assert len(names) == features.shape[1] == together.n_features_out_
    for block in blocks:
        alone = transformer(folder, block=block).fit_transform(PICTURES)
        columns = [name.startswith(f"b{block}_") for name in names]
        np.testing.assert_allclose(alone, features[:, columns], rtol=1e-5, atol=1e-6)


def test_features_do_not_depend_on_the_batch(folder):
    options = {"block": "last", "timestep": [0, TIMESTEP]}
    together = transformer(folder, **options).fit_transform(PICTURES)
    alone = transformer(folder, **options, batch_size=1).fit_transform(PICTURES[1:2])
    np.testing.assert_allclose(alone[0], together[1], rtol=1e-3, atol=1e-5)
    assert np.isfinite(together).all()
    assert (np.ptp(together, axis=0) > 0).any()


def test_clean_features_differ_from_those_of_a_timestep(folder):
    clean, noisy = (
        transformer(folder, block="last", timestep=timestep).fit_transform(PICTURES)
        for timestep in (0, TIMESTEP)
    )
    assert not np.allclose(clean, noisy, rtol=1e-2)


def test_block_and_timestep_that_do_not_exist_are_errors(family, folder):
    n_blocks = describe_backbone(folder).n_blocks
    with pytest.raises(ValueError, match=f"blocks 0 .* to {n_blocks} of backbone"):
        transformer(folder, block=n_blocks + 1).fit(PICTURES)
    with pytest.raises(ValueError, match=r"timesteps 0 \(noise-free\) to 999"):
        transformer(folder, timestep=1000).fit(PICTURES)
    step = describe_backbone(folder).input_step
    with pytest.raises(ValueError, match=f"not a multiple of {step}"):
        transformer(folder, image_size=step + 1).fit(PICTURES)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_gives_nearly_the_same_features(folder, dtype):
    exact, half = (
        transformer(folder, block="last", dtype=kind).fit_transform(PICTURES).ravel()
        for kind in ("float32", dtype)
    )
    assert half @ exact / np.linalg.norm(half) / np.linalg.norm(exact) > 0.99


def test_weights_are_held_in_the_precision_asked_for(folder):
    backbone = loaded(folder, torch.bfloat16)
    assert {p.dtype for p in backbone.model.parameters()} == {torch.bfloat16}
    assert backbone.codec.model.decoder is None


def loaded(folder, dtype=torch.float32):
    source, _ = locate_backbone(folder)
    return load_backbone(source, device="cpu", dtype=dtype)


def test_blocks_of_a_unet_have_their_own_widths_and_grids(checkpoints):
    folder = checkpoints("sd1.5")
    info = describe_backbone(folder)
    assert info.widths == (8, 8, 16, 16, 16, 8)
    assert info.width == 16
    grid = transformer(
        folder, block=[0, 3, 5], timestep=[0, TIMESTEP], pooling=("grid", 2), n_draws=2
    ).fit(PICTURES)
    features = grid.transform(PICTURES)
    assert features.shape == (3, 4 * 2 * (8 + 16 + 8)) == (3, grid.n_features_out_)
    one = transformer(folder, block=3, pooling=("grid", 2), n_draws=2)
    columns = [n.startswith(f"b3_t{TIMESTEP}_") for n in grid.get_feature_names_out()]
    np.testing.assert_allclose(
        features[:, columns], one.fit_transform(PICTURES), rtol=1e-4, atol=1e-5
    )


def test_fitted_transformer_is_pickled_to_another_process(checkpoints, tmp_path):
    fitted = transformer(checkpoints("sd1.5"), block=[2, "last"], prompt="a cat")
    expected = fitted.fit_transform(PICTURES)
    content = pickle.dumps(fitted)
    assert len(content) < 100_000
    (tmp_path / "fitted.pickle").write_bytes(content)
    np.save(tmp_path / "pictures.npy", PICTURES)
    code = (
        "import pickle, numpy as np; "
        "fitted = pickle.load(open('fitted.pickle', 'rb')); "
        "np.save('features.npy', fitted.transform(np.load('pictures.npy')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    found = np.load(tmp_path / "features.npy")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


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


@pytest.mark.parametrize(
    ("name", "n_blocks", "width", "input_size", "changes"),
    [
        ("FluxTransformer2DModel", 57, 3072, 1024, {}),
        ("Lumina2Transformer2DModel", 28, 2304, 1024, {}),
        ("PixArtTransformer2DModel", 28, 1152, 512, {"sample_size": 64}),
        ("SanaTransformer2DModel", 20, 2240, 1024, {}),
        ("SD3Transformer2DModel", 24, 1536, 1024, SD3_MEDIUM),
        ("UNet2DConditionModel", 9, 1280, 512, {"sample_size": 64}),
        ("UNet2DConditionModel", 7, 1280, 1024, SDXL),
    ],
)
def test_sizes_of_published_configurations_are_those_documented(
    name, n_blocks, width, input_size, changes
):
    module, kind = _registry.FAMILIES[name]
    family = getattr(import_module(f"sklearn_difffeat.backbones.{module}"), kind)
    parameters = inspect.signature(family.model_class.__init__).parameters
    config = {key: value.default for key, value in parameters.items()} | changes
    shape = family.shape(config)
    factor = 32 if name.startswith("Sana") else 8
    assert len(shape.widths) - 1 == n_blocks
    assert max(shape.widths) == width
    assert shape.sample_size * factor == input_size
