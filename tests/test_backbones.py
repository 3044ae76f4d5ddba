"""Loading, describing and fingerprinting backbones."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from sklearn_difffeat import (
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
    describe_backbone,
    release_backbones,
)
from sklearn_difffeat.backbones import load_backbone, locate_backbone

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PICTURES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


def test_importing_the_package_imports_no_torch():
    code = (
        "import sys, sklearn_difffeat, sklearn_difffeat.datasets; "
        "heavy = {'torch', 'diffusers', 'transformers', 'matplotlib'}; "
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_describing_a_backbone_reads_no_weights(pass_counter):
    info = describe_backbone("dit-tiny")
    assert (info.modality, info.n_blocks, info.n_timesteps) == ("image", 8, 1000)
    assert describe_backbone("mdlm-tiny").modality == "text"
    assert pass_counter["loads"] == 0


@pytest.mark.parametrize("name", ["dit-tiny", "mdlm-tiny"])
def test_embedded_backbone_is_small_half_precision_and_has_a_card(name):
    source, info = locate_backbone(name)
    assert info.size_mb <= 25
    assert info.license
    card = source.find("README.md").read_text("utf-8")
    assert "loss.png" in card
    assert source.find("loss.png")
    from safetensors import safe_open

    for path in source.weight_files():
        with safe_open(path, "pt") as weights:
            kinds = {weights.get_tensor(key).dtype for key in weights.keys()}
        assert kinds == {torch.float16}


def test_latent_dit_folder_in_the_hubs_layout_is_described(dit_folder):
    info = describe_backbone(dit_folder)
    assert (info.n_blocks, info.width, info.input_size, info.input_step) == (
        3, 16, 32, 16,
    )  # fmt: skip


def test_latent_dit_features_equal_those_of_a_plain_pass_with_hooks(dit_folder):
    from diffusers import AutoencoderKL, DDIMScheduler, DiTTransformer2DModel

    from sklearn_difffeat.extraction._noise import gaussian_noise

    transformer = ImageDiffusionFeatureTransformer(
        dit_folder, block=2, timestep=300, dtype="float32"
    )
    features = transformer.fit_transform(PICTURES)

    model = DiTTransformer2DModel.from_pretrained(dit_folder / "transformer").eval()
    vae = AutoencoderKL.from_pretrained(dit_folder / "vae").eval()
    scheduler = DDIMScheduler.from_pretrained(dit_folder / "scheduler")
    caught = {}
    model.transformer_blocks[1].register_forward_hook(
        lambda module, args, output: caught.update(hidden=output)
    )
    with torch.no_grad():
        pixels = torch.from_numpy(PICTURES).permute(0, 3, 1, 2) / 127.5 - 1
        latents = vae.encode(pixels).latent_dist.mode() * 0.18215
        noise = gaussian_noise(0, 0, (4, 4, 4)).expand_as(latents)
        steps = torch.full((3,), 300)
        noisy = scheduler.add_noise(latents, noise, steps)
        model(noisy, timestep=steps, class_labels=torch.full((3,), 1000))
    np.testing.assert_allclose(features, caught["hidden"].mean(1), rtol=1e-4, atol=1e-5)


def test_old_checkpoints_with_the_legacy_class_name_and_bin_weights_load(
    dit_folder, legacy_dit_folder
):
    assert list(legacy_dit_folder.rglob("*.bin"))
    expected = ImageDiffusionFeatureTransformer(dit_folder).fit_transform(PICTURES)
    found = ImageDiffusionFeatureTransformer(legacy_dit_folder).fit_transform(PICTURES)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("block", [0, 1, 3])
def test_masked_lm_features_equal_those_of_a_plain_pass(masked_lm_folder, block):
    from transformers import AutoModelForMaskedLM

    texts = ["a red apple", "the boat"]
    transformer = TextDiffusionFeatureTransformer(masked_lm_folder, block=block)
    features = transformer.fit_transform(texts)
    assert features.shape == (2, 16)

    source, _ = locate_backbone(masked_lm_folder)
    backbone = load_backbone(source, device="cpu", dtype=torch.float32)
    model = AutoModelForMaskedLM.from_pretrained(masked_lm_folder).eval()
    for text, row in zip(texts, features, strict=True):
        tokens = backbone.tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            states = model(**tokens, output_hidden_states=True).hidden_states
        if block == 3 and model.config.model_type == "modernbert":
            continue  # its last hidden state is taken behind the final norm
        np.testing.assert_allclose(
            row, states[block][0, 1:-1].mean(0), rtol=1e-4, atol=1e-5
        )


def test_one_model_is_loaded_for_any_number_of_estimators(pass_counter):
    for block in (1, 2, 3):
        ImageDiffusionFeatureTransformer(block=block).fit_transform(PICTURES)
    assert pass_counter["loads"] == 1
    assert release_backbones() == 1
    ImageDiffusionFeatureTransformer().fit_transform(PICTURES)
    assert pass_counter["loads"] == 2


def test_loaded_models_are_bounded_and_the_one_used_last_is_kept(
    bert_folder, tmp_path, pass_counter
):
    from sklearn_difffeat.backbones import _registry

    for i in range(_registry.MAX_LOADED + 2):
        folder = tmp_path / str(i)
        shutil.copytree(bert_folder, folder)
        (folder / "note.txt").write_text(str(i))
        TextDiffusionFeatureTransformer(folder).fit_transform(["a bird"])
    assert release_backbones() == _registry.MAX_LOADED


def test_fingerprint_is_of_contents_not_of_place(dit_folder, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(dit_folder, moved)
    original = describe_backbone(dit_folder).fingerprint
    assert describe_backbone(moved).fingerprint == original
    weights = moved / "transformer" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert describe_backbone(moved).fingerprint != original


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dit-huge", "is unknown.*dit-tiny"),
        ("./no/such/folder", "no folder of that name"),
        ("", "is unknown"),
        ("./dit", "is unknown"),
        ("a--b/c", "is unknown"),
    ],
)
def test_unknown_name_is_an_error_that_lists_the_names(name, message):
    with pytest.raises(ValueError, match=message):
        describe_backbone(name)


def test_hub_id_without_network_says_what_to_do(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="cannot be reached; connect once"):
        describe_backbone("facebook/DiT-XL-2-256")
    with pytest.raises(OSError, match="pass a folder"):
        ImageDiffusionFeatureTransformer(
            "facebook/DiT-XL-2-256", local_files_only=True
        ).fit(PICTURES)


def test_hub_id_loads_from_the_local_cache_with_its_commit_pinned(dit_folder, tmp_path):
    cached(dit_folder, tmp_path, "small-dit")
    np.save(tmp_path / "pictures.npy", PICTURES)
    code = (
        "import numpy as np; "
        "from sklearn_difffeat import ImageDiffusionFeatureTransformer as Transformer; "
        "t = Transformer('someone/small-dit'); "
        "np.save('features.npy', t.fit_transform(np.load('pictures.npy'))); "
        "print(t.backbone_fingerprint_)"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == f"hub:someone/small-dit@{COMMIT}"
    expected = ImageDiffusionFeatureTransformer(dit_folder).fit_transform(PICTURES)
    np.testing.assert_allclose(
        np.load(tmp_path / "features.npy"), expected, rtol=1e-4, atol=1e-6
    )


def cached(folder, cache, name):
    """Put a folder into a hub cache as if its files had been downloaded."""
    repository = cache / f"models--someone--{name}"
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)


@pytest.mark.parametrize("kind", ["bert", "dit"])
def test_cached_model_is_described_offline_whatever_files_it_lacks(
    kind, bert_folder, dit_folder, tmp_path, monkeypatch
):
    cache = tmp_path / "snapshots" / "hub"
    cached(bert_folder if kind == "bert" else dit_folder, cache, kind)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    info = describe_backbone(f"someone/{kind}")
    assert info.fingerprint == f"hub:someone/{kind}@{COMMIT}"
    assert info.license is None
    with pytest.raises(OSError, match="cannot be reached"):
        describe_backbone("someone/else")


def test_weights_that_lack_tensors_are_refused(dit_folder, bert_folder, tmp_path):
    for name, original, file, key in (
        ("dit", dit_folder, "transformer/config.json", "num_layers"),
        ("bert", bert_folder, "config.json", "num_hidden_layers"),
    ):
        folder = tmp_path / name
        shutil.copytree(original, folder)
        config = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(config | {key: 4}))
        cells = PICTURES if name == "dit" else ["a bird"]
        kind = (
            ImageDiffusionFeatureTransformer
            if name == "dit"
            else TextDiffusionFeatureTransformer
        )
        with pytest.raises(ValueError, match=r"lacks \d+ of the tensors"):
            kind(folder).fit_transform(cells)


def test_damaged_weights_are_refused_with_the_backbones_name(bert_folder, tmp_path):
    folder = tmp_path / "bert"
    shutil.copytree(bert_folder, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"bert' has damaged weights"):
        TextDiffusionFeatureTransformer(folder).fit_transform(["a bird"])


def test_text_folder_without_tokenizer_is_refused_by_fit(bert_folder, tmp_path):
    folder = tmp_path / "bert"
    shutil.copytree(bert_folder, folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="holds no tokenizer"):
        TextDiffusionFeatureTransformer(folder).fit(["a bird"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_keeps_the_noise_of_low_timesteps(dtype):
    exact, half = (
        ImageDiffusionFeatureTransformer(block=0, timestep=5, dtype=kind)
        .fit_transform(PICTURES)
        .ravel()
        for kind in ("float32", dtype)
    )
    clean = ImageDiffusionFeatureTransformer(block=0, timestep=0).fit_transform(
        PICTURES
    )
    noise = exact - clean.ravel()
    assert np.corrcoef(noise, half - clean.ravel())[0, 1] > 0.3
    assert half @ exact / np.linalg.norm(half) / np.linalg.norm(exact) > 0.999


@pytest.mark.parametrize(
    ("card", "license"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\nlicense:\n- apache-2.0\n---\n", "apache-2.0"),
        ("---\ntags: []\n---\nlicense: see below\n", None),
        ("---\nlicense: other\nlicense_name: own-terms\n---\n", "own-terms"),
        ("---\nlicense: other\n---\n", "other"),
    ],
)
def test_license_is_read_from_the_cards_metadata(card, license, bert_folder, tmp_path):
    folder = tmp_path / "bert"
    shutil.copytree(bert_folder, folder)
    (folder / "README.md").write_text(card)
    assert describe_backbone(folder).license == license


@pytest.mark.parametrize(
    ("license", "forbids"),
    [
        ("cc-by-nc-4.0", True),
        ("cc-by-nc-sa-4.0", True),
        ("flux-1-dev-non-commercial-license", True),
        ("stabilityai-nc-research-community", True),
        ("apache-2.0", False),
        ("openrail++", False),
        ("creativeml-openrail-m", False),
        ("nvidia-open-model-license", False),
    ],
)
def test_licence_against_commercial_use_is_said_once(
    license, forbids, bert_folder, tmp_path
):
    folder = tmp_path / "bert"
    shutil.copytree(bert_folder, folder)
    (folder / "README.md").write_text(f"---\nlicense: {license}\n---\n")
    if forbids:
        with pytest.warns(UserWarning, match=f"{license}', which forbids commercial"):
            assert describe_backbone(folder).non_commercial
    assert describe_backbone(folder).non_commercial == forbids
    TextDiffusionFeatureTransformer(folder).fit(["a bird"])


def test_weights_too_large_for_memory_are_refused_before_loading(
    bert_folder, tmp_path, monkeypatch, pass_counter
):
    from sklearn_difffeat.backbones import _memory

    n_numbers = sum(
        np.prod(shape) for shape in shapes(bert_folder / "model.safetensors")
    )
    monkeypatch.setattr(_memory, "free_memory", lambda: 3 * int(n_numbers))
    transformer = TextDiffusionFeatureTransformer(bert_folder)
    message = (
        rf"takes {4 * n_numbers / 1e9:.3g} GB in float32 but only "
        rf"{3 * n_numbers / 1e9:.3g} GB of main memory are free; choose dtype='bfl"
    )
    with pytest.raises(MemoryError, match=message):
        transformer.fit_transform(["a bird"])
    assert pass_counter["loads"] == 0
    transformer.set_params(dtype="bfloat16").fit_transform(["a bird"])
    assert pass_counter["loads"] == 1


def shapes(path):
    from safetensors import safe_open

    with safe_open(path, "pt") as weights:
        return [tuple(weights.get_slice(key).get_shape()) for key in weights.keys()]


def test_weights_too_large_for_a_gpu_are_refused(dit_folder, monkeypatch):
    from sklearn_difffeat.backbones import _memory

    monkeypatch.setattr(_memory, "free_device_memory", lambda device: 1000)
    with pytest.raises(MemoryError, match="of the memory of 'cpu' are free"):
        ImageDiffusionFeatureTransformer(dit_folder).fit_transform(PICTURES)


def test_free_memory_is_asked_of_the_device_itself(monkeypatch):
    from sklearn_difffeat.backbones._memory import free_device_memory

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5, 8))
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 7)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 3)
    found = [free_device_memory(name) for name in ("cuda:1", "cuda", "mps", "cpu")]
    assert found == [5, 5, 4, None]


def test_size_of_pickled_weights_is_guessed_from_the_file(legacy_dit_folder):
    from sklearn_difffeat.backbones._weights import loaded_bytes, weight_files

    source, info = locate_backbone(legacy_dit_folder)
    files = weight_files(source)
    assert files == [
        "transformer/diffusion_pytorch_model.bin", "vae/diffusion_pytorch_model.bin",
    ]  # fmt: skip
    stored = sum((legacy_dit_folder / file).stat().st_size for file in files)
    assert info.size_mb == stored / 1e6
    assert loaded_bytes(source, 2) == pytest.approx(stored / 2, rel=0.01)


def test_text_encoders_count_apart_from_the_model_that_follows_them(
    dit_folder, tmp_path
):
    from safetensors.torch import save_file

    from sklearn_difffeat.backbones._weights import loaded_bytes

    folder = tmp_path / "dit"
    shutil.copytree(dit_folder, folder)
    alone = loaded_bytes(locate_backbone(folder)[0], 4)
    index = {"text_encoder": ["transformers", "T5EncoderModel"], "vae": ["diffusers"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    assert loaded_bytes(locate_backbone(folder)[0], 4) == alone
    (folder / "text_encoder").mkdir()
    (folder / "text_encoder" / "config.json").write_text("{}")
    with pytest.raises(OSError, match=r"1 of its 3 .*'text_encoder/model"):
        locate_backbone(folder)
    for count in (1, alone):
        tensor = {"weight": torch.zeros(count, dtype=torch.float16)}
        save_file(tensor, folder / "text_encoder" / "model.safetensors")
        source, info = locate_backbone(folder)
        assert loaded_bytes(source, 4) == max(alone, 4 * count)
        assert info.size_mb > (alone + 2 * count) / 1e6


def test_memory_of_a_container_is_what_its_limit_leaves(tmp_path):
    from sklearn_difffeat.backbones._memory import _cgroup_memory, free_memory

    assert free_memory() > 0
    assert _cgroup_memory(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 100\ninactive_file 300\n")
    assert _cgroup_memory(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert _cgroup_memory(tmp_path) == 600


class Malicious:
    """Leaves a file behind when its pickle is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", ["bert", "transformer", "vae"])
def test_pickled_weights_cannot_run_code(
    zipped, kind, bert_folder, legacy_dit_folder, tmp_path
):
    folder, trap = tmp_path / "model", tmp_path / "trap"
    if kind == "bert":
        shutil.copytree(bert_folder, folder)
        (folder / "model.safetensors").unlink()
        path = folder / "pytorch_model.bin"
        transformer, cells = TextDiffusionFeatureTransformer(folder), ["a bird"]
    else:
        shutil.copytree(legacy_dit_folder, folder)
        path = folder / kind / "diffusion_pytorch_model.bin"
        transformer, cells = ImageDiffusionFeatureTransformer(folder), PICTURES
    content = {"weight": Malicious(trap)}
    torch.save(content, path) if zipped else path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match="holds more than tensors, which is not loade"):
        transformer.fit_transform(cells)
    assert not trap.exists()
    if zipped:
        # The trap works where pickles are loaded as they come.
        torch.load(path, weights_only=False)
        assert trap.exists()


def test_memory_of_every_kind_of_device_is_handed_back(monkeypatch):
    from sklearn_difffeat.backbones._memory import release_device_memory

    emptied = []
    for kind, library in (("cuda", torch.cuda), ("mps", torch.backends.mps)):
        monkeypatch.setattr(library, "is_available", lambda: True)
        monkeypatch.setattr(
            getattr(torch, kind), "empty_cache", lambda kind=kind: emptied.append(kind)
        )
    release_device_memory()
    assert emptied == ["cuda", "mps"]


def test_folder_that_is_no_known_model_is_an_error_that_lists_families(tmp_path):
    with pytest.raises(ValueError, match="no model of a known layout"):
        describe_backbone(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="of family 'gpt2'"):
        describe_backbone(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        describe_backbone(tmp_path)


@pytest.mark.parametrize("part", ["scheduler", "vae"])
def test_dit_folder_that_lacks_a_part_is_an_error_that_names_it(
    dit_folder, tmp_path, part
):
    folder = tmp_path / "dit"
    shutil.copytree(dit_folder, folder)
    shutil.rmtree(folder / part)
    with pytest.raises(ValueError, match=part):
        describe_backbone(folder)


def test_flow_matching_scheduler_under_a_dit_is_an_error(dit_folder, tmp_path):
    from diffusers import FlowMatchEulerDiscreteScheduler

    folder = tmp_path / "dit"
    shutil.copytree(dit_folder, folder)
    (folder / "scheduler" / "scheduler_config.json").unlink()
    FlowMatchEulerDiscreteScheduler().save_pretrained(folder / "scheduler")
    with pytest.raises(ValueError, match="not of the DDPM type"):
        ImageDiffusionFeatureTransformer(folder).fit_transform(PICTURES)
