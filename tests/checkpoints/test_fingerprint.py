"""What changes a folder's fingerprint, and when its files are read."""

import json
import os
import shutil
import threading

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from sklearn_difffeat import (
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
    describe_backbone,
    release_backbones,
)
from sklearn_difffeat.backbones import load_backbone, locate_backbone
from sklearn_difffeat.checkpoints import _fingerprint
from sklearn_difffeat.checkpoints._fingerprint import folder_fingerprint

TEXTS = ["a red apple", "the boat"]
PICTURES = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def reads(monkeypatch):
    """The files that are read to be digested."""
    read = []
    digest = _fingerprint.hashlib.file_digest

    def counted(file, name):
        read.append(os.path.basename(file.name))
        return digest(file, name)

    monkeypatch.setattr(_fingerprint.hashlib, "file_digest", counted)
    return read


@pytest.fixture
def folder(bert_folder, tmp_path):
    release_backbones()
    copy = tmp_path / "bert"
    shutil.copytree(bert_folder, copy)
    yield copy
    release_backbones()


def large_folder(place, n_numbers=300_000):
    """Weights far larger than what could be sampled, one tensor and one bias."""
    place.mkdir(exist_ok=True)
    weights = {"weight": torch.zeros(n_numbers), "bias": torch.zeros(4)}
    save_file(weights, place / "model.safetensors")
    (place / "config.json").write_text("{}")
    return place


@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=60)
@given(position=st.integers(0, 1_200_000), bit=st.integers(0, 7))
def test_any_changed_bit_of_a_weight_file_changes_the_fingerprint(
    tmp_path_factory, position, bit
):
    folder = large_folder(tmp_path_factory.mktemp("any") / "model")
    path = folder / "model.safetensors"
    before = folder_fingerprint(str(folder))
    with open(path, "r+b") as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ 1 << bit]))
    changed = folder_fingerprint(str(folder))
    assert changed != before
    with open(path, "r+b") as file:
        file.seek(position)
        file.write(bytes([byte]))
    assert folder_fingerprint(str(folder)) == before


def tuned(weights, which):
    """Change some tensors of a model, and none of their shapes."""
    names = {
        "biases": [key for key in weights if key.endswith("bias")],
        "norms": [key for key in weights if "LayerNorm.weight" in key],
        "one matrix": ["bert.encoder.layer.1.output.dense.weight"],
        "one number": ["bert.encoder.layer.2.output.dense.bias"],
    }[which]
    for name in names:
        change = torch.zeros_like(weights[name])
        # Not the same for all outputs, which the norm behind them takes off again.
        change.view(-1)[: 1 if which == "one number" else 16] = 0.5
        weights[name] = weights[name] + change
    return weights


@pytest.mark.parametrize("way", ["in place", "replaced", "time put back", "both"])
@pytest.mark.parametrize("which", ["biases", "norms", "one matrix", "one number"])
def test_tuned_weights_are_loaded_however_they_were_written(
    folder, tmp_path, which, way
):
    path = folder / "model.safetensors"
    transformer = TextDiffusionFeatureTransformer(folder, cache=True)
    before = transformer.fit_transform(TEXTS)
    state = path.stat()
    other = tmp_path / "tuned.safetensors"
    save_file(tuned(load_file(path), which), other, metadata={"format": "pt"})
    assert other.stat().st_size == state.st_size
    if way in ("in place", "time put back"):
        path.write_bytes(other.read_bytes())
    else:
        os.replace(other, path)
    if way in ("time put back", "both"):
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(ValueError, match="not the one this transformer was fitted"):
        transformer.transform(TEXTS)
    after = transformer.fit_transform(TEXTS)
    assert np.abs(after - before).max() > 1e-3
    release_backbones()
    clean = TextDiffusionFeatureTransformer(folder).fit_transform(TEXTS)
    np.testing.assert_allclose(after, clean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("part", "key"),
    [("transformer", "norm1.linear.bias"), ("vae", "encoder.conv_in.bias")],
)
def test_tuned_part_of_a_pipeline_is_another_backbone(dit_folder, tmp_path, part, key):
    folder = tmp_path / "dit"
    shutil.copytree(dit_folder, folder)
    transformer = ImageDiffusionFeatureTransformer(folder, cache=True)
    before = transformer.fit_transform(PICTURES)
    path = folder / part / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    for name in weights:
        if name.endswith(key):
            weights[name] = weights[name] + 0.5
    save_file(weights, path, metadata={"format": "pt"})
    assert np.abs(transformer.fit_transform(PICTURES) - before).max() > 1e-4


def test_loaded_model_does_not_change_with_the_file_it_came_from(
    bert_folder, dit_folder, tmp_path
):
    for original, file, kind, cells in (
        (bert_folder, "model.safetensors", TextDiffusionFeatureTransformer, TEXTS),
        (
            dit_folder, "transformer/diffusion_pytorch_model.safetensors",
            ImageDiffusionFeatureTransformer, PICTURES,
        ),
    ):  # fmt: skip
        release_backbones()
        one, other = tmp_path / "one", tmp_path / "other"
        for folder in (one, other):
            shutil.copytree(original, folder)
        options = {"dtype": "float32"}
        expected = kind(one, **options).fit_transform(cells)
        size = (one / file).stat().st_size
        with open(one / file, "r+b") as weights:
            weights.seek(size // 2)
            weights.write(b"\x3f" * (size - size // 2))
        # Of equal content at the time of loading, so the model in memory is shared.
        found = kind(other, **options).fit_transform(cells)
        np.testing.assert_array_equal(found, expected)
        for folder in (one, other):
            shutil.rmtree(folder)


def test_files_that_did_not_change_are_read_once(folder, reads):
    first = describe_backbone(folder).fingerprint
    assert "model.safetensors" in reads
    count = len(reads)
    for _ in range(3):
        TextDiffusionFeatureTransformer(folder).fit(TEXTS).transform(TEXTS)
    assert len(reads) == count
    os.utime(folder / "model.safetensors")
    assert describe_backbone(folder).fingerprint == first
    assert reads[count:] == ["model.safetensors"]


def test_threads_agree_on_a_fingerprint(tmp_path):
    folder = str(large_folder(tmp_path / "model"))
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(folder_fingerprint(folder)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer.model", "spiece.model", "vocab.txt", "merges.txt", "source.spm",
        "chat_template.jinja", "modeling.py", "tokenizer/vocab.json",
        "model-00002-of-00002.safetensors", "pytorch_model.bin", "VOCAB.TXT",
        "text_encoder_2/model.fp16.safetensors", "model.safetensors.index.json",
    ],
)  # fmt: skip
def test_every_kind_of_file_that_loading_reads_counts(tmp_path, name):
    folder = large_folder(tmp_path / "model", 8)
    prints = [folder_fingerprint(str(folder))]
    (folder / name).parent.mkdir(exist_ok=True)
    for content in ("a", "b"):
        (folder / name).write_text(content)
        prints.append(folder_fingerprint(str(folder)))
    (folder / name).rename(folder / f"other{name.replace('/', '-')}")
    prints.append(folder_fingerprint(str(folder)))
    assert len(set(prints)) == 4


@pytest.mark.parametrize(
    "name",
    [
        "README.md", "LICENSE", "loss.png", "features.db", "features.db-wal",
        ".git/x.txt", ".cache/huggingface/x.json", "__pycache__/modeling.py",
        "checkpoint-500/a.bin",
    ],
)  # fmt: skip
def test_files_that_loading_does_not_read_do_not_count(tmp_path, name):
    folder = large_folder(tmp_path / "model", 8)
    before = folder_fingerprint(str(folder))
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("anything")
    assert folder_fingerprint(str(folder)) == before


def test_files_and_folders_behind_links_count(tmp_path):
    real = large_folder(tmp_path / "real", 8)
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "weights.bin").write_text("one")
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in real.iterdir():
        (linked / path.name).symlink_to(path)
    assert folder_fingerprint(str(linked)) == folder_fingerprint(str(real))
    (linked / "transformer").symlink_to(parts)
    (parts / "back").symlink_to(linked)
    (linked / "gone.bin").symlink_to(tmp_path / "nowhere")
    before = folder_fingerprint(str(linked))
    assert before != folder_fingerprint(str(real))
    (parts / "weights.bin").write_text("two")
    behind = folder_fingerprint(str(linked))
    assert behind != before
    # A link that leads elsewhere, to a file of the same size and time.
    other = tmp_path / "other.bin"
    other.write_text("six")
    state = (parts / "weights.bin").stat()
    os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
    (parts / "weights.bin").unlink()
    (parts / "weights.bin").symlink_to(other)
    assert folder_fingerprint(str(linked)) != behind


def test_file_that_cannot_be_read_is_named(folder, monkeypatch):
    def refuse(file, name):
        raise PermissionError(13, "Permission denied", file.name)

    monkeypatch.setattr(_fingerprint.hashlib, "file_digest", refuse)
    with pytest.raises(OSError, match=r"bert'.* cannot be read \(Permission denied\)"):
        TextDiffusionFeatureTransformer(folder).fit(TEXTS)


def test_file_that_is_being_written_to_is_named(tmp_path, monkeypatch):
    folder = large_folder(tmp_path / "model", 8)
    digest = _fingerprint.hashlib.file_digest

    def growing(file, name):
        with open(file.name, "ab") as other:
            other.write(b"\n")
        return digest(file, name)

    monkeypatch.setattr(_fingerprint.hashlib, "file_digest", growing)
    with pytest.raises(OSError, match=r"cannot be read .*it is being written to"):
        describe_backbone(folder)


def test_model_that_changes_between_look_up_and_loading_is_refused(folder):
    source, _ = locate_backbone(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"note": 1}))
    with pytest.raises(ValueError, match="was changed while it was used"):
        load_backbone(source, device="cpu", dtype=torch.float32)


def test_model_that_changes_while_it_is_loaded_is_refused(folder, monkeypatch):
    from sklearn_difffeat.backbones.masked_lm import MaskedLMBackbone

    load = MaskedLMBackbone.load.__func__

    def slow(cls, *args):
        loaded = load(cls, *args)
        path = folder / "model.safetensors"
        save_file(tuned(load_file(path), "norms"), path, metadata={"format": "pt"})
        return loaded

    monkeypatch.setattr(MaskedLMBackbone, "load", classmethod(slow))
    with pytest.raises(ValueError, match="was changed while it was used"):
        TextDiffusionFeatureTransformer(folder).fit_transform(TEXTS)
    assert release_backbones() == 0


def test_second_prompt_is_encoded_from_the_folder_that_was_asked(checkpoints, tmp_path):
    release_backbones()
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        shutil.copytree(checkpoints("pixart-sigma"), folder)
    options = {"image_size": 32, "dtype": "float32"}

    def features(folder, prompt):
        return ImageDiffusionFeatureTransformer(
            folder, prompt=prompt, **options
        ).fit_transform(PICTURES)

    features(one, "a cat")
    path = one / "text_encoder" / "model.safetensors"
    weights = {key: value + 0.5 for key, value in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    found = features(other, "a dog")
    release_backbones()
    np.testing.assert_array_equal(found, features(other, "a dog"))
