"""Loading, describing and fingerprinting backbones."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers.folders import COMMIT, META, PICTURES, cached, edited_dit

from sklearn_difffeat import (
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
    describe_backbone,
    release_backbones,
)
from sklearn_difffeat.backbones import load_backbone, locate_backbone
from sklearn_difffeat.checkpoints._weights import weight_files


def test_importing_the_package_imports_no_torch():
    code = (
        "import sys, sklearn_difffeat, sklearn_difffeat.datasets; "
        "heavy = {'torch', 'diffusers', 'transformers', 'matplotlib'}; "
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_describing_a_backbone_reads_no_weights(pass_counter):
    info = describe_backbone("dit-tiny")
    assert (info.modality, info.n_blocks, info.n_timesteps) == ("image", 4, 1000)
    assert describe_backbone("mdlm-tiny").modality == "text"
    assert pass_counter["loads"] == 0


@pytest.mark.parametrize("name", ["dit-tiny", "mdlm-tiny"])
def test_embedded_backbone_is_small_half_precision_and_has_a_card(name):
    source, info = locate_backbone(name)
    assert info.size_mb <= 48
    assert info.license
    card = source.find("README.md").read_text("utf-8")
    assert "loss.png" in card
    for beside in ("loss.png", "LICENSE", "NOTICE", "digests.npy"):
        assert source.find(beside)
    from safetensors import safe_open

    for file in weight_files(source):
        with safe_open(source.at_hand(file), "pt") as weights:
            kinds = {weights.get_tensor(key).dtype for key in weights.keys()}
        assert kinds == {torch.float16}


def test_latent_dit_folder_in_the_hubs_layout_is_described(dit_folder):
    info = describe_backbone(dit_folder)
    assert (info.n_blocks, info.width, info.input_size, info.input_step) == (
        3, 16, 32, 16,
    )  # fmt: skip


def test_latent_dit_features_equal_those_of_a_plain_pass_with_hooks(dit_folder):
    from diffusers import AutoencoderKL, DDIMScheduler, DiTTransformer2DModel

    from sklearn_difffeat.backbones._noise import gaussian_noise

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
    dit_folder, legacy_dit_folder, tmp_path
):
    assert list(legacy_dit_folder.rglob("*.bin"))
    # Its class name says that it was converted from Meta's release.
    converted = edited_dit(dit_folder, tmp_path / "dit", _name_or_path=META)
    expected = ImageDiffusionFeatureTransformer(converted).fit_transform(PICTURES)
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
        ("---\nlicense: [mit, apache-2.0]\n---\n", "mit, apache-2.0"),
        ("---\nlicense: 'mit\n\t: [\n---\n", None),
        ("---\n- license: mit\n---\n", None),
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
def test_license_against_commercial_use_is_said_once(
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
