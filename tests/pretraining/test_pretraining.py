"""Runs: seeded, resumable, killed at no cost, exported and released as a whole."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from helpers.pretraining_runs import adapt, draw, run, schedule
from safetensors.torch import load_file
from transformers import BertModel, PreTrainedTokenizerFast

from sklearn_difffeat import (
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
    describe_backbone,
)
from sklearn_difffeat.datasets import load_openclipart
from sklearn_difffeat.pretraining import export
from sklearn_difffeat.pretraining.__main__ import main
from sklearn_difffeat.pretraining.loop import Schedule, write_atomically
from sklearn_difffeat.pretraining.text_corpus import read_texts
from sklearn_difffeat.pretraining.text_model import read_tokenizer

KINDS = pytest.mark.parametrize("kind", ["image", "text"])


@KINDS
def test_a_run_ends_in_a_folder_that_the_transformers_take(kind, corpus, tmp_path):
    folder = run(kind, corpus, tmp_path / "run", 10)
    transformers = {
        "image": ImageDiffusionFeatureTransformer,
        "text": TextDiffusionFeatureTransformer,
    }
    cells = load_openclipart(subset="train").data[kind][:3]
    features = transformers[kind](folder, block=1).fit_transform(cells)
    assert features.shape == (3, 16)
    assert np.isfinite(features).all()
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    named = {"image": {"other", "name"}, "text": {"alignment"}}[kind]
    assert {"diffusion", "loss", "step"} | named <= set(json.loads(log[-1]))


@KINDS
def test_a_killed_run_resumes_to_the_weights_of_an_unbroken_one(
    kind, corpus, tmp_path, monkeypatch
):
    run(kind, corpus, tmp_path / "whole", 10)

    class Killed(BaseException):
        pass

    from sklearn_difffeat.pretraining import loop

    def write_then_die(state, path):
        write_atomically(state, path)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(loop, "write_atomically", write_then_die)
        with pytest.raises(Killed):
            run(kind, corpus, tmp_path / "broken", 10)
    run(kind, corpus, tmp_path / "broken", 10)
    states = [
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)
        for name in ("whole", "broken")
    ]
    assert states[0]["step"] == states[1]["step"] == 10
    for name, value in states[0]["ema"].items():
        torch.testing.assert_close(states[1]["ema"][name], value)


@KINDS
def test_another_architecture_cannot_resume_a_run(kind, corpus, tmp_path):
    run(kind, corpus, tmp_path / "run", 10)
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    for part in ("model", "ema"):
        state[part].popitem()
    torch.save(state, tmp_path / "run" / "checkpoint.pt")
    with pytest.raises(ValueError, match="does not fit the model"):
        run(kind, corpus, tmp_path / "run", 20)


@KINDS
def test_the_card_tells_what_differed_from_start_to_start(kind, corpus, tmp_path):
    make = {"image": draw, "text": adapt}[kind]
    folder = make(corpus, tmp_path / "run", schedule(10))
    assert "The run was stopped" not in (folder / "README.md").read_text("utf-8")
    make(corpus, tmp_path / "run", schedule(10))
    assert "The run was stopped" not in (folder / "README.md").read_text("utf-8")
    make(corpus, tmp_path / "run", schedule(15))
    card = (folder / "README.md").read_text("utf-8")
    assert "at step 10." in card and "first step" not in card
    make(corpus, tmp_path / "run", schedule(20), clean_share=0.5)
    card = (folder / "README.md").read_text("utf-8")
    assert "at step 10 and step 15. Its\nsettings were changed" in card
    assert "| first step | clean share |" in card
    assert "| 10 | 0.4 |" in card and "| 15 | 0.5 |" in card
    assert "20 steps of 10" in " ".join(card.split())
    assert "![Losses by training step](loss.png)" in card


@KINDS
def test_an_export_holds_what_a_release_copies_and_nothing_replaces_half(
    kind, corpus, tmp_path, monkeypatch
):
    monkeypatch.setattr(export, "EMBEDDED_ROOT", tmp_path / "embedded")
    name = {"image": "dit-tiny", "text": "mdlm-tiny"}[kind]
    (tmp_path / "embedded" / name).mkdir(parents=True)
    (tmp_path / "embedded" / name / "of-before.json").write_text("{}")
    folder = run(kind, corpus, tmp_path / "run", 10)
    main(["release", str(tmp_path / "run"), name])
    found, expected = (
        {path.relative_to(root): path.read_bytes()
         for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "embedded" / name, folder)
    )  # fmt: skip
    assert found == expected
    assert "Apache License" in (folder / "LICENSE").read_text()
    notice = (folder / "NOTICE").read_text()
    assert {"image": "TensorFlow", "text": "all-MiniLM-L6-v2"}[kind] in notice
    assert (folder / "loss.png").stat().st_size > 1000
    # A run that was cut off before its card was written.
    (folder / "NOTICE").unlink()
    with pytest.raises(FileNotFoundError, match="lacks NOTICE"):
        export.release(tmp_path / "run", name)
    assert (tmp_path / "embedded" / name / "NOTICE").exists()


@KINDS
def test_an_export_that_fails_leaves_the_one_before(
    kind, corpus, tmp_path, monkeypatch
):
    folder = run(kind, corpus, tmp_path / "run", 10)
    card = (folder / "README.md").read_text("utf-8")

    def fail(self, *args, **options):
        raise OSError("no space left")

    saver = {"image": DDPMScheduler, "text": PreTrainedTokenizerFast}[kind]
    monkeypatch.setattr(saver, "save_pretrained", fail)
    with pytest.raises(OSError, match="no space left"):
        run(kind, corpus, tmp_path / "run", 20)
    assert (folder / "README.md").read_text("utf-8") == card
    assert describe_backbone(folder).n_blocks == 2


def test_plain_diffusion_needs_no_alignment(corpus, tmp_path):
    adapt(corpus, tmp_path / "run", schedule(10), align=0)
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert "alignment" not in json.loads(log[-1])


def test_the_text_model_starts_as_its_encoder_and_keeps_the_embeddings(
    corpus, tmp_path
):
    folder = run("text", corpus, tmp_path / "run", 10)
    cells = load_openclipart(subset="train").data["text"][:5]
    tokenizer = read_tokenizer(corpus / "encoder")
    encoder = BertModel.from_pretrained(corpus / "encoder").eval()
    for block, model in ((2, tmp_path / "run" / "before" / "export"), (0, folder)):
        options = {"block": block, "timestep": 0, "dtype": "float32"}
        found = TextDiffusionFeatureTransformer(model, **options).fit_transform(cells)
        for text, row in zip(cells, found, strict=True):
            tokens = tokenizer([text], return_tensors="pt")
            states = encoder(**tokens, output_hidden_states=True).hidden_states[block]
            mean = states[0, 1:-1].mean(0).detach().numpy()
            np.testing.assert_allclose(row, mean, atol=0.02)


def test_aligned_means_come_closer_to_one_length(corpus, tmp_path):
    cells = load_openclipart(subset="train").data["text"][:60]
    plan = Schedule(steps=60, batch_size=10, learning_rate=3e-3, warmup=2)
    adapt(corpus, tmp_path / "run", plan, diffusion=0.01, clean_share=0.5)
    spread = []
    for part in ("before/export", "export"):
        transformer = TextDiffusionFeatureTransformer(
            tmp_path / "run" / part, block=2, timestep=0
        )
        length = np.linalg.norm(transformer.fit_transform(cells), axis=1)
        spread.append(np.std(length) / np.mean(length))
    assert spread[1] < 0.7 * spread[0]


def test_what_is_exported_tells_its_corpus_and_fits_in_the_loader(corpus, tmp_path):
    folder = run("text", corpus, tmp_path / "run", 10)
    card = (folder / "README.md").read_text("utf-8")
    assert "10 steps of 10 rows" in card and "| Brown corpus, lines | 20 |" in card
    assert "\n100 texts." in card
    digests = {record["digest"] for record in read_texts(corpus)}
    assert len(np.load(folder / "digests.npy")) == len(digests)
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    assert settings["model_max_length"] == 256 and "max_length" not in settings
    # Word embeddings are stored once, and nothing of the sentence encoder's pooler.
    names = set(load_file(folder / "model.safetensors"))
    assert not {name for name in names if "pooler" in name or "decoder" in name}


def test_the_command_packs_adapts_and_judges(corpus, tmp_path, capsys):
    for name in ("texts", "held"):
        shutil.copy(corpus / "texts.jsonl", tmp_path / f"{name}.jsonl")
    sizes = ["--steps", "2", "--batch-size", "2"]
    main(["text", "--out", str(tmp_path), "--encoder", str(corpus / "encoder"), *sizes])
    printed = capsys.readouterr().out
    assert f"wrote {tmp_path / 'export'}" in printed
    assert "all rates" in printed and "before" in printed and "after" in printed
    with pytest.raises(SystemExit, match="name --descriptions and --brown"):
        main(["text", "--out", str(tmp_path / "other")])


def test_a_crash_while_writing_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    write_atomically({"step": 1}, path)

    def half(state, target):
        target.write_bytes(b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        write_atomically({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}


def test_learning_rate_warms_up_stays_and_decays_to_zero():
    plan = Schedule(steps=100, batch_size=1, learning_rate=1.0, warmup=10)
    assert plan.learning_rate_at(0) == pytest.approx(0.1)
    assert plan.learning_rate_at(50) == 1.0
    assert plan.learning_rate_at(85) == pytest.approx(0.5)
    assert plan.learning_rate_at(99) == pytest.approx(1 / 30)


def test_with_minutes_the_learning_rate_follows_the_clock_too():
    plan = Schedule(steps=100, batch_size=1, learning_rate=1.0, warmup=10, minutes=10.0)
    assert plan.learning_rate_at(50, 5.0) == 1.0
    assert plan.learning_rate_at(50, 8.5) == pytest.approx(0.5)
    assert plan.learning_rate_at(85, 0.0) == pytest.approx(0.5)
    assert plan.learning_rate_at(50, 11.0) == 0.0


def test_a_run_stops_when_its_minutes_are_over_and_leaves_a_checkpoint(
    corpus, tmp_path
):
    plan = Schedule(
        steps=100_000, batch_size=10, learning_rate=1e-3, warmup=2, minutes=0.01
    )
    adapt(corpus, tmp_path / "run", plan)
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert 0 < state["step"] < 100_000
    assert (tmp_path / "run" / "export" / "model.safetensors").exists()
