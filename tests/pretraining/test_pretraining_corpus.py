"""What enters the corpus, travels, and is released with the weights."""

import json
import lzma

import numpy as np
import pytest
from helpers.pretraining_runs import SMALL_DIT, run, schedule

from sklearn_difffeat import (
    describe_backbone,
)
from sklearn_difffeat.backbones import locate_backbone
from sklearn_difffeat.datasets import load_openclipart
from sklearn_difffeat.datasets.build_openclipart import render
from sklearn_difffeat.pretraining import export
from sklearn_difffeat.pretraining.corpus import is_held_back, iter_icons
from sklearn_difffeat.pretraining.image import pretrain_image
from sklearn_difffeat.pretraining.text_corpus import (
    pack_texts,
    read_texts,
    text_digest,
)
from sklearn_difffeat.pretraining.travel import bundle, unbundle


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
    # Releasing a run that went on after its release tells its first start once.
    pretrain_image(corpus, folder, schedule(20), start_from="dit-tiny")
    export.release(folder, corpus, "dit-tiny")
    lines = (kept / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["first_step"] for line in lines] == [0, 0, 10]


def test_icons_are_drawn_from_the_collections_own_view_boxes(tmp_path):
    pytest.importorskip("cairosvg")
    square = '<path fill="{}" d="M0 0h8v8H0z"/>'
    collection = {
        "width": 8,
        "height": 8,
        "icons": {
            "ink": {"body": square.format("currentColor")},
            "left half": {"body": square.format("#f00"), "width": 16},
            "moved": {"body": square.format("#00f"), "left": 4, "top": 4},
        },
    }
    (tmp_path / "icons.json").write_text(json.dumps(collection))
    ink, half, moved = (
        np.asarray(render(png, 32)) for png in iter_icons(tmp_path / "icons.json")
    )
    assert (ink[16, 16] == 0).all()
    assert half[16, 4].tolist() == [255, 0, 0] and (half[16, 28] == 255).all()
    assert moved[8, 8].tolist() == [0, 0, 255] and (moved[24, 24] == 255).all()


def test_a_bundle_brings_pictures_to_another_machine(tmp_path):
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
    back = unbundle(bundle(smooth, tmp_path / "corpus.zip"), tmp_path / "back")
    with np.load(back / "images.npz") as images:
        for name in ("digests", "drawing_source"):
            assert images[name].tolist() == arrays[name].tolist()
        for kind in ("drawings", "photos"):
            assert images[kind].shape == arrays[kind].shape
            error = images[kind].astype(int) - arrays[kind]
            assert np.abs(error).mean() < 4


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


@pytest.fixture
def sources(tmp_path):
    """A few lines of each source, in its package's own form."""
    wordnet = tmp_path / "wordnet"
    wordnet.mkdir()
    noun = "{:08d} {} n 01 {} 0 000 | what a {} is  \n"
    words = ["bird", "boat", "flag", "tree_house"]
    lines = [noun.format(i, "05", word, word) for i, word in enumerate(words)]
    (wordnet / "data.noun").write_text("  a licence\n" + "".join(lines))
    adjective = "00000001 00 s 02 red(a) 0 ruby 0 000 | of a colour  \n"
    (wordnet / "data.adj").write_text(adjective)
    for part in ("verb", "adv"):
        (wordnet / f"data.{part}").write_text("")
    used = "".join(f"{word}%1:05:00:: 1 2\n" for word in [*words, "red"])
    (wordnet / "cntlist.rev").write_text(used)
    item = load_openclipart(subset="test").data["text"][0]
    with lzma.open(tmp_path / "descriptions.xz", "wt", encoding="utf-8") as file:
        file.write("a tool for tests\n" * 2 + item.upper() + "\n")
    brown = tmp_path / "brown"
    brown.mkdir()
    (brown / "ca01").write_text("The/at tool/nn works/vbz well/rb ./.\n\nNo/no\n")
    emoji = [{"name": "RED FLAG", "short_names": ["red-flag"]}]
    (tmp_path / "emoji.json").write_text(json.dumps(emoji))
    icons = {"icons": {"big-bird-24": {}, "24": {}, "flag": {}}}
    (tmp_path / "icons.json").write_text(json.dumps(icons))
    return {
        "wordnet": wordnet,
        "descriptions": tmp_path / "descriptions.xz",
        "brown": brown,
        "emoji": [tmp_path / "emoji.json"],
        "icons": [tmp_path / "icons.json"],
    }


def test_texts_are_packed_once_each_and_none_of_the_items(sources, tmp_path):
    file = pack_texts(tmp_path / "corpus", **sources, n_texts=60)
    records = read_texts(tmp_path / "corpus")
    found = {}
    for record in records:
        assert record["digest"] == text_digest(record["text"])
        found.setdefault(record["source"], []).append(record["text"])
    assert found["icon names"] == ["big bird", "flag"]
    assert found["emoji names"] == ["red flag"]
    assert found["wordnet names"] == ["bird", "boat", "tree house", "red, ruby"]
    assert "tree house: what a tree_house is" in found["wordnet glosses"]
    assert found["debian"] == ["a tool for tests"]
    assert found["brown"] == ["The tool works well."]
    assert len(found["composed titles"]) == 12
    assert len({record["digest"] for record in records}) == len(records)
    again = pack_texts(tmp_path / "again", **sources, n_texts=60)
    assert again.read_bytes() == file.read_bytes()


def test_held_out_texts_are_those_that_no_run_sees(sources, tmp_path):
    pack_texts(tmp_path, **sources, n_texts=20)
    seen, held = ({r["digest"] for r in read_texts(tmp_path, name)}
                  for name in ("texts", "held"))  # fmt: skip
    assert held and not seen & held
