"""Weights that are missing, damaged, too large, or more than tensors."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch

from sklearn_difffeat import (
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
)
from sklearn_difffeat.backbones import load_backbone, locate_backbone
from sklearn_difffeat.checkpoints._source import locate

PICTURES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


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


def test_weights_too_large_for_memory_are_refused_before_loading(
    bert_folder, tmp_path, monkeypatch, pass_counter
):
    from sklearn_difffeat.checkpoints import _memory

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
    from sklearn_difffeat.checkpoints import _memory

    monkeypatch.setattr(_memory, "free_device_memory", lambda device: 1000)
    with pytest.raises(MemoryError, match="of the memory of 'cpu' are free"):
        ImageDiffusionFeatureTransformer(dit_folder).fit_transform(PICTURES)


def test_free_memory_is_asked_of_the_device_itself(monkeypatch):
    from sklearn_difffeat.checkpoints._memory import free_device_memory

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5, 8))
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 7)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 3)
    found = [free_device_memory(name) for name in ("cuda:1", "cuda", "mps", "cpu")]
    assert found == [5, 5, 4, None]


def test_size_of_pickled_weights_is_guessed_from_the_file(legacy_dit_folder):
    from sklearn_difffeat.checkpoints._weights import loaded_bytes, weight_files

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

    from sklearn_difffeat.checkpoints._weights import loaded_bytes

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
    from sklearn_difffeat.checkpoints._memory import _cgroup_memory, free_memory

    assert free_memory() > 0
    assert _cgroup_memory(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 100\ninactive_file 300\n")
    assert _cgroup_memory(tmp_path) is None
    (tmp_path / "memory.max").write_text("1000\n")
    assert _cgroup_memory(tmp_path) == 600


def test_code_beside_the_weights_is_refused_by_loading_as_well(bert_folder, tmp_path):
    folder = tmp_path / "bert"
    shutil.copytree(bert_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForMaskedLM": "modeling.Anything"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        locate_backbone(folder)
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        load_backbone(locate(folder), device="cpu", dtype=torch.float32)


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
    from sklearn_difffeat.checkpoints._memory import release_device_memory

    emptied = []
    for kind, library in (("cuda", torch.cuda), ("mps", torch.backends.mps)):
        monkeypatch.setattr(library, "is_available", lambda: True)
        monkeypatch.setattr(
            getattr(torch, kind), "empty_cache", lambda kind=kind: emptied.append(kind)
        )
    release_device_memory()
    assert emptied == ["cuda", "mps"]
