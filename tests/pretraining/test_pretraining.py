"""Runs: seeded, resumable, killed at no cost, from nothing or trained weights."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers.pretraining_runs import SMALL_DIT, adapt, run, schedule
from safetensors.torch import load_file
from transformers import BertModel

from sklearn_difffeat import (
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
)
from sklearn_difffeat.backbones import locate_backbone
from sklearn_difffeat.datasets import load_openclipart
from sklearn_difffeat.pretraining.__main__ import main
from sklearn_difffeat.pretraining.image import build_model, pretrain_image
from sklearn_difffeat.pretraining.loop import Schedule, write_atomically
from sklearn_difffeat.pretraining.text_corpus import read_texts
from sklearn_difffeat.pretraining.text_model import read_tokenizer

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
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
    assert {"diffusion", "alignment", "loss", "step"} <= set(json.loads(log[-1]))


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


def test_a_run_resumes_without_its_teacher_and_with_it_again(corpus, tmp_path):
    run("image", corpus, tmp_path / "run", 10)
    for steps, weight in ((20, 0.0), (30, 1.0)):
        changed = {"align": weight, "align_map": weight, "align_block": 1}
        pretrain_image(
            corpus, tmp_path / "run", schedule(steps), **changed, **SMALL_DIT
        )
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    logs = [json.loads(line) for line in lines]
    assert [entry["step"] for entry in logs] == [10, 20, 30]
    assert ["map alignment" in entry for entry in logs] == [True, False, True]
    # Adam's averages of the shared weights go on; those of the new projector begin.
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    ages = {int(entry["step"]) for entry in state["optimizer"]["state"].values()}
    assert ages == {10, 30}


def test_a_run_starts_from_released_weights_and_fits_its_projectors_first(
    corpus, tmp_path
):
    out = tmp_path / "run"
    kept = {}
    for steps in (5, 10):
        plan = Schedule(
            steps=steps, batch_size=4, learning_rate=1e-3, warmup=1, frozen_steps=5
        )
        pretrain_image(corpus, out, plan, start_from="dit-tiny")
        kept[steps] = torch.load(out / "checkpoint.pt", weights_only=True)["model"]
    source = locate_backbone("dit-tiny")[0]
    for path in (out / "export").rglob("*.json"):
        assert source.location not in path.read_text("utf-8")
    released = load_file(source.find(WEIGHTS))
    moved = {"model": [], "projector": []}
    for key, value in kept[5].items():
        part, _, inner = key.partition(".")
        changed = not torch.equal(value, kept[10][key])
        if part != "model":
            moved["projector"].append(changed)
        elif inner in released:
            torch.testing.assert_close(value, released[inner].float())
            moved["model"].append(changed)
    assert all(moved["projector"]) and moved["projector"]
    assert np.mean(moved["model"]) > 0.9


def test_another_architecture_cannot_resume_a_run(corpus, tmp_path):
    run("image", corpus, tmp_path / "run", 10)
    deeper = SMALL_DIT | {"num_layers": 3}
    with pytest.raises(ValueError, match=r"transformer_blocks\.2"):
        pretrain_image(corpus, tmp_path / "run", schedule(20), align_block=1, **deeper)


@KINDS
def test_plain_diffusion_needs_no_teacher(kind, corpus, tmp_path):
    plain = tmp_path / "corpus"
    plain.mkdir()
    for name in ("images.npz", "texts.jsonl"):
        (plain / name).write_bytes((corpus / name).read_bytes())
    if kind == "image":
        options = {"align": 0, "align_map": 0, "align_block": 1} | SMALL_DIT
        pretrain_image(plain, tmp_path / "run", schedule(10), **options)
    else:
        shutil.copytree(corpus / "encoder", plain / "encoder")
        adapt(plain, tmp_path / "run", schedule(10), align=0)
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


def test_blocks_of_a_new_dit_are_the_identity():
    model = build_model(**SMALL_DIT).eval()
    caught = []
    for module in (model.pos_embed, *model.transformer_blocks):
        module.register_forward_hook(lambda *call: caught.append(call[-1]))
    steps = torch.tensor([10])
    output = model(torch.randn(1, 3, 64, 64), steps, torch.ones_like(steps)).sample
    torch.testing.assert_close(caught[-1], caught[0])
    assert not output.any()
