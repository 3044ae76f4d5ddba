"""The recipe: what enters the corpus, and that a run is seeded and resumable."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sklearn_difffeat import (
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
    describe_backbone,
)
from sklearn_difffeat.backbones import locate_backbone
from sklearn_difffeat.datasets import load_openclipart
from sklearn_difffeat.pretraining import export
from sklearn_difffeat.pretraining.corpus import is_held_back, text_digest
from sklearn_difffeat.pretraining.image import build_model, pretrain_image
from sklearn_difffeat.pretraining.loop import Schedule, write_atomically
from sklearn_difffeat.pretraining.pictures import (
    Pictures,
    crop,
    draw_crops,
    paste,
    vary_colour,
)
from sklearn_difffeat.pretraining.text import (
    AlignedBert,
    _tokenizer_of_run,
    pretrain_text,
)
from sklearn_difffeat.pretraining.text import build_model as build_bert
from sklearn_difffeat.pretraining.texts import ROW_TOKENS, Texts, hide_words
from sklearn_difffeat.pretraining.travel import bundle, unbundle

SMALL_DIT = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 8}
SMALL_BERT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A few real drawings and texts in the form that ``pack`` writes."""
    folder = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(0)
    np.savez(
        folder / "images.npz",
        drawings=random.integers(0, 256, (24, 96, 96, 3), dtype=np.uint8),
        drawing_source=np.arange(24, dtype=np.uint8) % 2,
        photos=random.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8),
        digests=np.array(["0" * 64] * 36),
    )
    for kind, shape in (("drawings", (24, 12, 6, 6)), ("photos", (12, 12, 4, 4))):
        maps = random.standard_normal(shape).astype(np.float16)
        np.save(folder / f"{kind}-maps.npy", maps)
    titles = load_openclipart(subset="train").data["text"][:100]
    sources = ["composed titles", "wordnet names", "wordnet glosses", "debian", "brown"]
    records = [
        {"source": sources[i % 5], "text": text, "digest": text_digest(text)}
        for i, text in enumerate(titles)
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "texts.jsonl").write_text(lines)
    np.save(folder / "text-targets.npy", random.random((100, 20), dtype=np.float32))
    return folder


def schedule(steps):
    return Schedule(
        steps=steps, batch_size=10, learning_rate=1e-3, warmup=2, checkpoint_every=5
    )


def run(kind, corpus, out, steps):
    if kind == "image":
        return pretrain_image(corpus, out, schedule(steps), align_block=1, **SMALL_DIT)
    return pretrain_text(corpus, out, schedule(steps), align_block=1, **SMALL_BERT)


WEIGHTS = {
    "image": "transformer/diffusion_pytorch_model.safetensors",
    "text": "model.safetensors",
}
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
    if kind == "text":
        shutil.copytree(
            tmp_path / "whole" / "tokenizer", tmp_path / "broken" / "tokenizer"
        )

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


@KINDS
def test_a_run_starts_from_released_weights_and_fits_its_projectors_first(
    kind, corpus, tmp_path
):
    name = {"image": "dit-tiny", "text": "mdlm-tiny"}[kind]
    train = {"image": pretrain_image, "text": pretrain_text}[kind]
    out = tmp_path / "run"
    kept = {}
    for steps in (5, 10):
        plan = Schedule(
            steps=steps, batch_size=4, learning_rate=1e-3, warmup=1, frozen_steps=5
        )
        train(corpus, out, plan, start_from=name)
        kept[steps] = torch.load(out / "checkpoint.pt", weights_only=True)["model"]
    source = locate_backbone(name)[0]
    released = load_file(source.find(WEIGHTS[kind]))
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


def test_the_card_tells_every_start_and_recipe_of_a_run(corpus, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    run("image", corpus, folder, 10)
    changed = {"align_map": 2.0, "clean_share": 0.5, "diffusion": 5.0}
    pretrain_image(corpus, folder, schedule(20), align_block=1, **changed, **SMALL_DIT)
    monkeypatch.setattr(export, "EMBEDDED_ROOT", tmp_path / "embedded")
    (tmp_path / "embedded").mkdir()
    card = (export.release(folder, corpus, "dit-tiny") / "README.md").read_text()
    first = ["1", "0", "10", "10", "", "0.001", "0.3", "0.999", "0.6", "1", "1", "1"]
    second = ["1", "10", "10", "20", "", "0.001", "0.3", "0.999", "0.5", "5", "1", "2"]
    for row in (first, second):
        assert f"| {' | '.join(row)} |" in card
    assert "20 steps of 10 pictures" in card
    assert "map alignment" in card
    assert (tmp_path / "embedded" / "dit-tiny" / "loss.png").stat().st_size > 1000


def test_a_run_from_released_weights_carries_their_history_and_digests_on(
    corpus, tmp_path, monkeypatch
):
    embedded = tmp_path / "embedded"
    kept = embedded / "dit-tiny"
    kept.mkdir(parents=True)
    start = {"first_step": 0, "batch_size": 7, "steps": 50, "last_step": 50}
    (kept / "history.jsonl").write_text(json.dumps(start) + "\n")
    np.save(kept / "digests.npy", np.array([5, 6], dtype=np.uint64))
    folder = tmp_path / "run"
    plan = schedule(10)
    pretrain_image(corpus, folder, plan, start_from="dit-tiny")
    monkeypatch.setattr(export, "EMBEDDED_ROOT", embedded)
    export.release(folder, corpus, "dit-tiny")
    assert np.load(kept / "digests.npy").tolist() == [0, 5, 6]
    lines = (kept / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["batch_size"] for line in lines] == [7, 10]
    card = (kept / "README.md").read_text()
    assert "| 1 | 0 | 7 | 50 |" in card and "| 2 | 0 | 10 | 10 |" in card


def test_another_architecture_cannot_resume_a_run(corpus, tmp_path):
    run("image", corpus, tmp_path / "run", 10)
    deeper = SMALL_DIT | {"num_layers": 3}
    with pytest.raises(ValueError, match=r"transformer_blocks\.2"):
        pretrain_image(corpus, tmp_path / "run", schedule(20), align_block=1, **deeper)


def test_each_token_is_aligned_with_the_map_where_its_pixels_come_from(tmp_path):
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(36, 3, 4, 4, generator=random)
    smooth = torch.nn.functional.interpolate(coarse, size=96, mode="bicubic")
    smooth = (smooth.clamp(0, 1) * 255).round()
    pixels = smooth.permute(0, 2, 3, 1).byte().numpy()
    np.savez(
        tmp_path / "images.npz",
        drawings=pixels[:24],
        drawing_source=np.arange(24) % 2,
        photos=pixels[24:, ::3, ::3],
    )
    maps = torch.nn.functional.avg_pool2d(smooth / 127.5 - 1, 12).half().numpy()
    np.save(tmp_path / "drawings-maps.npy", maps[:24])
    np.save(tmp_path / "photos-maps.npy", maps[24:])
    # Crops, flips and pasted rectangles move both alike.
    shown, places = Pictures(tmp_path, targets=True).batch(20, random)
    tokens = torch.nn.functional.avg_pool2d(shown, 8)
    for token, target in zip(tokens, places, strict=True):
        pair = torch.stack([token.flatten(), target.flatten()])
        # Contrast and colours alone are not in the map.
        assert torch.corrcoef(pair)[0, 1] > 0.9


def test_half_the_pictures_get_a_rectangle_of_tokens_of_the_one_before():
    places = torch.arange(64.0)[:, None, None, None].repeat(1, 1, 8, 8)
    pixels = places.repeat_interleave(4, 2).repeat_interleave(4, 3)
    paste(pixels, places, torch.Generator().manual_seed(0))
    # The pixels of a token come from where its target comes from.
    torch.testing.assert_close(pixels[:, :, ::4, ::4], places)
    torch.testing.assert_close(pixels[:, :, 3::4, 3::4], places)
    before = (torch.arange(64.0) - 1) % 64
    pasted = places == before[:, None, None, None]
    assert (pasted | (places == torch.arange(64.0)[:, None, None, None])).all()
    counts = pasted.sum((1, 2, 3))
    assert 20 < (counts > 0).sum() < 44
    assert counts[counts > 0].min() >= 4 and counts.max() <= 36


@KINDS
def test_plain_diffusion_needs_no_teacher(kind, corpus, tmp_path):
    plain = tmp_path / "corpus"
    plain.mkdir()
    for name in ("images.npz", "texts.jsonl"):
        (plain / name).write_bytes((corpus / name).read_bytes())
    train = pretrain_image if kind == "image" else pretrain_text
    sizes = SMALL_DIT if kind == "image" else SMALL_BERT
    weights = {"align": 0, "align_map": 0} if kind == "image" else {"align": 0}
    train(plain, tmp_path / "run", schedule(10), **weights, align_block=1, **sizes)
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert "alignment" not in json.loads(log[-1])


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
    pretrain_text(corpus, tmp_path / "run", plan, align_block=1, **SMALL_BERT)
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


def test_crops_keep_shape_and_stay_within_the_picture():
    crops = draw_crops(64, torch.Generator().manual_seed(0))
    out = crop(torch.rand(64, 3, 96, 96), crops, 32)
    assert out.shape == (64, 3, 32, 32)
    corners = crops[:, :, :2].abs().sum(2) + crops[:, :, 2].abs()
    assert corners.max() <= 1 + 1e-6
    assert (crops[:, 0, 0] < 0).any() and (crops[:, 0, 0] > 0).any()


def test_a_crop_moves_picture_and_map_alike():
    # A map of the positions themselves, at the resolution of picture and of tokens.
    def positions(side):
        ticks = (torch.arange(side) + 0.5) / side
        return torch.stack(torch.meshgrid(ticks, ticks, indexing="ij"))

    crops = draw_crops(16, torch.Generator().manual_seed(0))
    fine = crop(positions(96).expand(16, -1, -1, -1), crops, 64)
    coarse = crop(positions(8).expand(16, -1, -1, -1), crops, 8)
    by_token = torch.nn.functional.avg_pool2d(fine, 8)
    # The border of a coarse map is padded with itself, half a token wide.
    torch.testing.assert_close(coarse, by_token, atol=0.05, rtol=0)
    inner = (slice(None), slice(None), slice(2, 6), slice(2, 6))
    torch.testing.assert_close(coarse[inner], by_token[inner], atol=1e-3, rtol=0)


def test_colours_vary_and_white_stays_white():
    pictures = torch.zeros(8, 3, 4, 4)
    pictures[:, :, 0] = 1
    out = vary_colour(pictures, torch.Generator().manual_seed(0))
    assert (out[:, :, 0] == 1).all()
    assert out[:, :, 1:].std() > 0.01 and out.abs().max() <= 1
    assert not torch.equal(out[:, 0], out[:, 1])


@pytest.fixture
def packed(corpus, tmp_path):
    tokenizer = _tokenizer_of_run(corpus, tmp_path / "run")
    texts = Texts(corpus, tokenizer, targets=False)
    return texts, texts.batch(6, torch.Generator().manual_seed(0))


def test_packed_rows_hold_whole_texts_one_after_the_other(packed):
    texts, batch = packed
    assert batch.ids.shape == batch.text.shape == (6, ROW_TOKENS)
    found = batch.text[batch.text >= 0]
    assert torch.equal(found, found.sort().values)
    for number, row in enumerate(batch.rows):
        places = batch.text == number
        assert batch.ids[places].tolist() == texts.ids[row].tolist()
        assert batch.position[places].tolist() == list(range(int(places.sum())))
    assert (batch.text >= 0).float().mean() > 0.6


def test_a_packed_text_has_the_features_it_has_alone(packed):
    texts, batch = packed
    torch.manual_seed(0)
    model = build_bert(200, vocab_size=8192, **SMALL_BERT).eval()
    aligned = AlignedBert(model, 5, 1)
    real = torch.isin(batch.ids, torch.arange(5), invert=True)
    _, projected = aligned(batch.ids, batch, real, real & False)
    for number in (0, 3, len(batch.rows) - 1):
        ids = torch.from_numpy(texts.ids[batch.rows[number]])[None]
        hidden = model.bert(ids, output_hidden_states=True).hidden_states[1]
        mean = hidden[0, 1:-1].mean(0)
        torch.testing.assert_close(
            aligned.projector(mean), projected[number], atol=1e-5, rtol=1e-4
        )


def test_words_are_hidden_whole_at_the_rate_of_their_text():
    # Pieces 10 to 19 go on with the word of the piece before.
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 20, (40, 90), generator=random)
    ids[:, 0] = 0
    rate = torch.full(ids.shape, 0.3)
    rate[20:] = 0.9
    continues = torch.arange(20) >= 10
    hidden = hide_words(ids, rate, continues, random)
    inside = continues[ids][:, 1:]
    assert torch.equal(hidden[:, 1:][inside], hidden[:, :-1][inside])
    starts = ~continues[ids]
    assert hidden[:20][starts[:20]].float().mean() == pytest.approx(0.3, abs=0.04)
    assert hidden[20:][starts[20:]].float().mean() == pytest.approx(0.9, abs=0.04)


def test_a_bundle_brings_a_corpus_to_another_machine(corpus, tmp_path):
    smooth = tmp_path / "corpus"
    smooth.mkdir()
    ramp = np.linspace(0, 255, 96, dtype=np.uint8)
    drawings = np.stack([np.roll(ramp, 8 * i) for i in range(50)])
    drawings = np.repeat(drawings[:, None, :, None], 96, 1).repeat(3, 3)
    arrays = {
        "drawings": drawings,
        "drawing_source": np.arange(50, dtype=np.uint8) % 2,
        "photos": drawings[:7, ::3, ::3].copy(),
        "digests": np.array([f"{i:064x}" for i in range(57)]),
    }
    np.savez(smooth / "images.npz", **arrays)
    (smooth / "texts.jsonl").write_bytes((corpus / "texts.jsonl").read_bytes())
    back = unbundle(bundle(smooth, tmp_path / "corpus.zip"), tmp_path / "back")
    with np.load(back / "images.npz") as images:
        for name in ("digests", "drawing_source"):
            assert images[name].tolist() == arrays[name].tolist()
        for kind in ("drawings", "photos"):
            assert images[kind].shape == arrays[kind].shape
            error = images[kind].astype(int) - arrays[kind]
            assert np.abs(error).mean() < 4
    assert (back / "texts.jsonl").read_bytes() == (smooth / "texts.jsonl").read_bytes()


def test_text_digest_hides_no_copy_behind_case_or_punctuation():
    assert text_digest("A red apple!") == text_digest("a  RED, apple")
    assert text_digest("a red apple") != text_digest("a red apples")


def test_a_tenth_of_the_photographs_is_held_back():
    held = sum(is_held_back(f"train/cat/{i:04d}.jpg") for i in range(5000))
    assert 0.08 < held / 5000 < 0.12


@pytest.mark.parametrize("name", ["dit-tiny", "mdlm-tiny"])
def test_embedded_backbones_saw_nothing_of_the_test_groups(name):
    source, _ = locate_backbone(name)
    seen = np.load(source.find("digests.npy"))
    assert len(seen) > 10_000
    test = load_openclipart(subset="test")
    digests = (
        test.sha256
        if describe_backbone(name).modality == "image"
        else [text_digest(text) for text in test.data["text"]]
    )
    short = np.array([int(digest[:16], 16) for digest in digests], dtype=np.uint64)
    assert not np.isin(short, seen).any()
    train = load_openclipart(subset="train")
    if describe_backbone(name).modality == "image":
        # The digests are of the right thing: most training drawings are among them.
        known = [int(digest[:16], 16) for digest in train.sha256]
        assert np.isin(np.array(known, dtype=np.uint64), seen).mean() > 0.95
