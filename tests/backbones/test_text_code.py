"""Checkpoints of texts that carry code: when it is run, and which weights it gets."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.text_checkpoints import REMOTE, TEXTS, TIED, save_tied, transformer_of

from sklearn_difffeat import TextDiffusionFeatureTransformer, describe_backbone
from sklearn_difffeat.backbones import locate_backbone

# Dream's code sets what newer versions of transformers name otherwise.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*rope_scaling:FutureWarning"),
    pytest.mark.usefixtures("remote_code"),
]

NAMES = (
    "MDLM",
    "LLaDAModelLM",
    "LLaDAMoEModelLM",
    "LLaDA2MoeModelLM",
    "DreamModel",
    "BD3LM",
    "SDARForCausalLM",
)


@pytest.mark.parametrize("family", REMOTE)
def test_describing_runs_no_code_and_reads_no_weights(
    family, text_checkpoints, tmp_path
):
    folder = tmp_path / "model"
    shutil.copytree(text_checkpoints(family)[0], folder)
    for file in folder.glob("*.py"):
        file.write_text("raise SystemExit('code was run')")
    (folder / "model.safetensors").write_bytes(b"")
    info = describe_backbone(folder)
    assert (info.n_blocks, info.width, info.input_size) == (3, 16, 24)
    assert (info.modality, info.n_timesteps, info.carries_code) == ("text", 1000, True)
    assert info.family in NAMES
    with pytest.raises(ValueError, match="carries code of its own") as error:
        TextDiffusionFeatureTransformer(folder).fit(TEXTS)
    assert "set trust_remote_code=True" in str(error.value)


def test_a_known_family_whose_checkpoint_carries_code_is_refused_too(
    text_checkpoints, tmp_path
):
    folder = tmp_path / "model"
    shutil.copytree(text_checkpoints("bert")[0], folder)
    assert not describe_backbone(folder).carries_code
    for file in ("config.json", "tokenizer_config.json"):
        content = json.loads((folder / file).read_text())
        changed = content | {"auto_map": {"AutoModel": "evil.Model"}}
        (folder / file).write_text(json.dumps(changed))
        with pytest.raises(ValueError, match="carries code of its own"):
            TextDiffusionFeatureTransformer(folder).fit(TEXTS)
        (folder / file).write_text(json.dumps(content))
    TextDiffusionFeatureTransformer(folder).fit(TEXTS)


def test_a_checkpoint_that_lost_its_code_is_an_error_that_says_so(
    text_checkpoints, tmp_path
):
    folder = tmp_path / "model"
    shutil.copytree(text_checkpoints("llada")[0], folder)
    config = json.loads((folder / "config.json").read_text())
    del config["auto_map"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="'llada', whose code has to come with it"):
        transformer_of(folder).fit(TEXTS).transform(TEXTS)
    del config["n_layers"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config.json lacks 'n_layers'"):
        describe_backbone(folder)


def test_code_is_not_imported_untrusted_by_any_way(text_checkpoints):
    from sklearn_difffeat.backbones.llada import LLaDABackbone

    source, _ = locate_backbone(text_checkpoints("llada")[0], trust_remote_code=True)
    with pytest.raises(ValueError, match="set trust_remote_code=True"):
        LLaDABackbone.load(
            replace(source, trust_remote_code=False), "cpu", torch.float32
        )


@pytest.mark.parametrize("family", ["mdlm", "sdar"])
def test_a_pickle_of_a_model_with_code_works_in_a_new_process(
    family, text_checkpoints, tmp_path
):
    folder, _ = text_checkpoints(family)
    transformer = transformer_of(folder, timestep=200).fit(TEXTS)
    (tmp_path / "fitted.pickle").write_bytes(pickle.dumps(transformer))
    code = (
        "import pickle, numpy as np; "
        "fitted = pickle.load(open('fitted.pickle', 'rb')); "
        f"np.save('features.npy', fitted.transform({TEXTS!r}))"
    )
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules")}
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment
    )
    np.testing.assert_allclose(
        np.load(tmp_path / "features.npy"), transformer.transform(TEXTS), rtol=1e-5
    )


@pytest.mark.parametrize("stored", [["embedding"], ["head"], ["embedding", "head"]])
@pytest.mark.parametrize("family", REMOTE)
def test_a_head_tied_to_the_embedding_loads_by_whichever_name_it_is_stored(
    family, stored, text_checkpoints, tmp_path
):
    save_tied(family, tmp_path, stored)
    at = {"block": [0, 3], "timestep": [0, 400]}
    features = transformer_of(tmp_path, **at).fit_transform(TEXTS)
    untied = transformer_of(text_checkpoints(family)[0], **at).fit_transform(TEXTS)
    np.testing.assert_allclose(features, untied, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("family", REMOTE)
def test_a_flag_that_ties_does_not_overwrite_an_embedding_that_is_stored(
    family, text_checkpoints, tmp_path
):
    folder = tmp_path / "model"
    shutil.copytree(text_checkpoints(family)[0], folder)
    config = json.loads((folder / "config.json").read_text())
    config[TIED[family][0]] = True
    (folder / "config.json").write_text(json.dumps(config))
    features = transformer_of(folder, block=[0, 3]).fit_transform(TEXTS)
    expected = transformer_of(text_checkpoints(family)[0], block=[0, 3])
    np.testing.assert_allclose(features, expected.fit_transform(TEXTS), rtol=1e-5)


@pytest.mark.parametrize("family", REMOTE)
def test_a_tensor_that_nothing_ties_may_not_be_missing(family, tmp_path):
    for stored in (["embedding"], ["head"], []):
        save_tied(family, tmp_path, stored)
        path = tmp_path / "config.json"
        config = json.loads(path.read_text()) | {TIED[family][0]: not stored}
        path.write_text(json.dumps(config))
        with pytest.raises(ValueError, match=r"lacks [12] of the tensors"):
            transformer_of(tmp_path).fit(TEXTS).transform(TEXTS)


def test_changed_code_is_another_backbone(text_checkpoints, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(text_checkpoints("llada")[0], folder)
    before = describe_backbone(folder).fingerprint
    with open(folder / "modeling_llada.py", "a") as file:
        file.write("\n# changed\n")
    assert describe_backbone(folder).fingerprint != before


def test_code_that_needs_a_missing_package_names_it(text_checkpoints, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(text_checkpoints("mdlm")[0], folder)
    path = folder / "modeling_mdlm.py"
    path.write_text("import flash_attn_of_old\n" + path.read_text())
    with pytest.raises(ImportError, match=r"cannot be imported .*flash_attn_of_old"):
        transformer_of(folder).fit(TEXTS).transform(TEXTS)


def test_models_with_code_load_from_safetensors_without_gaps_only(
    text_checkpoints, tmp_path
):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(text_checkpoints("llada")[0], folder)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    lost = tensors.pop("model.transformer.blocks.1.q_proj.weight")
    save_file(tensors, path)
    with pytest.raises(ValueError, match="lacks 1 of the tensors"):
        transformer_of(folder).fit(TEXTS).transform(TEXTS)
    path.unlink()
    torch.save(tensors | {"lost": lost}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="no safetensors weights"):
        transformer_of(folder).fit(TEXTS).transform(TEXTS)


def test_code_that_transformers_took_over_is_not_asked_for(text_checkpoints, tmp_path):
    folder, _ = text_checkpoints("eurobert")
    shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoModelForMaskedLM": "modeling.EuroBertForMaskedLM"}}
    (tmp_path / "copy" / "config.json").write_text(json.dumps(config))
    (tmp_path / "copy" / "modeling.py").write_text("raise SystemExit\n")
    expected = TextDiffusionFeatureTransformer(folder).fit_transform(TEXTS)
    for trust in (False, True):
        transformer = TextDiffusionFeatureTransformer(
            tmp_path / "copy", trust_remote_code=trust
        )
        np.testing.assert_allclose(transformer.fit_transform(TEXTS), expected)
    assert not describe_backbone(tmp_path / "copy").carries_code
