"""One contract for every family of image backbones."""

import inspect
import pickle
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.image_checkpoints import FAMILIES
from helpers.image_oracle import PICTURES, TIMESTEP, pipeline_features, transformer

import sklearn_difffeat
from sklearn_difffeat import describe_backbone
from sklearn_difffeat.backbones import _families, load_backbone, locate_backbone

# As diffusers builds Chroma.
pytestmark = pytest.mark.filterwarnings("ignore:.*FluxPosEmbed:FutureWarning")

NEWER = (
    "chroma", "cogview4", "ddpm", "flux2-klein", "hunyuan-dit", "hunyuan-image",
    "qwen-image", "qwen-image-2.1", "z-image",
)  # fmt: skip
SD3_MEDIUM = {"num_layers": 24, "num_attention_heads": 24, "pos_embed_max_size": 192}
COGVIEW4 = {"num_layers": 28, "num_attention_heads": 32, "attention_head_dim": 128}
KLEIN_4B = {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24}
HUNYUAN_DIT = {"num_layers": 40, "patch_size": 2, "in_channels": 4, "sample_size": 128}
DDPM_CAT = {"block_out_channels": (128, 128, 256, 256, 512, 512), "sample_size": 256}
# Pixels to the side of a latent, where it is not 8.
FACTORS = {
    "Flux2Transformer2DModel": 16,
    "HunyuanImageTransformer2DModel": 32,
    "QwenImage21Transformer2DModel": 16,
    "SanaTransformer2DModel": 32,
    "UNet2DModel": 1,
}
SDXL = {"block_out_channels": (320, 640, 1280), "sample_size": 128}


@pytest.fixture(params=list(FAMILIES))
def family(request):
    return request.param


@pytest.fixture
def folder(family, checkpoints):
    return checkpoints(family)


def all_blocks(folder):
    return list(range(describe_backbone(folder).n_blocks + 1))


@pytest.mark.parametrize("prompt", ["", "a cat"])
def test_features_equal_those_of_the_familys_own_pipeline(family, folder, prompt):
    if prompt and family in ("dit", "ddpm"):
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
    assert not backbone.has_encoder or not [*backbone.codec.model.decoder.parameters()]


def loaded(folder, dtype=torch.float32):
    source, _ = locate_backbone(folder)
    return load_backbone(source, device="cpu", dtype=dtype)


def test_the_documentation_shows_the_code_of_a_family():
    root = Path(sklearn_difffeat.__file__).parent
    page = (root.parent / "docs" / "contributing.md").read_text("utf-8")
    code = re.search(r"^```python\n(.*?)^```", page, re.M | re.S)[1]
    assert code == (root / "backbones" / "auraflow.py").read_text("utf-8")
    assert '    "AuraFlowTransformer2DModel": ("auraflow", "AuraFlowBackbone"),' in page


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


def test_a_step_of_two_tokens_has_a_grid_of_two_cells(checkpoints):
    folder = checkpoints("qwen-image-2.1")
    grid = transformer(folder, block=1, pooling=("grid", 2)).fit(PICTURES)
    features = grid.transform(PICTURES)
    cells = features.reshape(3, 4, grid.n_features_out_ // 4)
    assert (np.ptp(cells, axis=1) > 0).any()
    whole = transformer(folder, block=1).fit_transform(PICTURES)
    np.testing.assert_allclose(cells.mean(axis=1), whole, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="the 2 x 2 tokens of a picture"):
        transformer(folder, pooling=("grid", 3)).fit(PICTURES)
    with pytest.raises(ValueError, match="side in pixels of 2 tokens of backbone"):
        transformer(folder, image_size=48).fit(PICTURES)


def test_fitted_transformers_are_pickled_to_another_process(checkpoints, tmp_path):
    expected = {}
    for family in ("sd1.5", *NEWER):
        options = {} if family == "ddpm" else {"prompt": "a cat"}
        fitted = transformer(checkpoints(family), block=[2, "last"], **options)
        expected[family] = fitted.fit_transform(PICTURES)
        content = pickle.dumps(fitted)
        assert len(content) < 100_000
        (tmp_path / f"{family}.pickle").write_bytes(content)
    np.save(tmp_path / "pictures.npy", PICTURES)
    code = (
        "import pathlib, pickle, numpy as np\n"
        "pictures = np.load('pictures.npy')\n"
        "for path in pathlib.Path().glob('*.pickle'):\n"
        "    fitted = pickle.loads(path.read_bytes())\n"
        "    np.save(path.with_suffix('.npy'), fitted.transform(pictures))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    for family, features in expected.items():
        found = np.load(tmp_path / f"{family}.npy")
        np.testing.assert_allclose(found, features, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "n_blocks", "width", "input_size", "changes"),
    [
        ("AuraFlowTransformer2DModel", 36, 3072, 512, {}),
        ("ChromaTransformer2DModel", 57, 3072, 1024, {}),
        ("CogView4Transformer2DModel", 28, 4096, 1024, COGVIEW4),
        ("Flux2Transformer2DModel", 56, 6144, 1024, {}),
        ("Flux2Transformer2DModel", 25, 3072, 1024, KLEIN_4B),
        ("FluxTransformer2DModel", 57, 3072, 1024, {}),
        ("HunyuanDiT2DModel", 40, 1408, 1024, HUNYUAN_DIT),
        ("HunyuanImageTransformer2DModel", 60, 3584, 2048, {}),
        ("Lumina2Transformer2DModel", 28, 2304, 1024, {}),
        ("PixArtTransformer2DModel", 28, 1152, 512, {"sample_size": 64}),
        ("QwenImageTransformer2DModel", 60, 3072, 1024, {}),
        ("QwenImage21Transformer2DModel", 32, 4096, 1024, {}),
        ("SanaTransformer2DModel", 20, 2240, 1024, {}),
        ("SD3Transformer2DModel", 24, 1536, 1024, SD3_MEDIUM),
        ("UNet2DConditionModel", 9, 1280, 512, {"sample_size": 64}),
        ("UNet2DConditionModel", 7, 1280, 1024, SDXL),
        ("UNet2DModel", 13, 512, 256, DDPM_CAT),
        ("ZImageTransformer2DModel", 32, 3840, 1024, {}),
    ],
)
def test_sizes_of_published_configurations_are_those_documented(
    name, n_blocks, width, input_size, changes
):
    module, kind = _families.FAMILIES[name]
    family = getattr(import_module(f"sklearn_difffeat.backbones.{module}"), kind)
    parameters = inspect.signature(family.model_class.__init__).parameters
    config = {key: value.default for key, value in parameters.items()} | changes
    shape = family.shape(config)
    factor = FACTORS.get(name, 8)
    assert len(shape.widths) - 1 == n_blocks
    assert max(shape.widths) == width
    assert shape.sample_size * factor == input_size
