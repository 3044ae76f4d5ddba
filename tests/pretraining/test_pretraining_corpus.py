"""What enters the corpora, and what the embedded backbones saw."""

import json
import lzma

import numpy as np
import pytest

from sklearn_difffeat import describe_backbone
from sklearn_difffeat.backbones import locate_backbone
from sklearn_difffeat.datasets import load_openclipart
from sklearn_difffeat.pretraining.drawings import is_held_back, list_pictures
from sklearn_difffeat.pretraining.text_corpus import (
    pack_texts,
    read_texts,
    text_digest,
)


def test_text_digest_hides_no_copy_behind_case_or_punctuation():
    assert text_digest("A red apple!") == text_digest("a  RED, apple")
    assert text_digest("a red apple") != text_digest("a red apples")


def test_a_tenth_of_the_photographs_is_held_back():
    held = sum(is_held_back(f"train/cat/{i:04d}.jpg") for i in range(5000))
    assert 0.08 < held / 5000 < 0.12


def test_photographs_held_back_are_not_listed(tmp_path):
    (tmp_path / "cat").mkdir()
    for i in range(200):
        (tmp_path / "cat" / f"{i}.jpg").touch()
    listed = {one.content for one in list_pictures([], [], tmp_path, 1000)}
    held = {path for path in tmp_path.rglob("*.jpg") if is_held_back(path)}
    assert held and len(listed) == 200 - len(held) and not listed & held


@pytest.mark.parametrize("name", ["dit-tiny", "mdlm-tiny"])
def test_embedded_backbones_saw_nothing_of_the_data_set(name):
    source, _ = locate_backbone(name)
    seen = np.load(source.find("digests.npy"))
    assert len(seen) > 10_000
    # The weights of the recipe before, without a notice, saw the training groups.
    subset = None if source.find("NOTICE") else "test"
    items = load_openclipart(subset=subset) if subset else load_openclipart()
    digests = (
        items.sha256
        if describe_backbone(name).modality == "image"
        else [text_digest(text) for text in items.data["text"]]
    )
    short = np.array([int(digest[:16], 16) for digest in digests], dtype=np.uint64)
    assert not np.isin(short, seen).any()


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
