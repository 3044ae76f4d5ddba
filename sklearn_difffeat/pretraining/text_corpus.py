"""Collect the texts that ``mdlm-tiny`` is adapted on, in one ``texts.jsonl``.

Titles of drawings are short and few sentences describe them, so most texts are names:
of WordNet's synonym sets, of emoji and icons, and titles put together from WordNet's
words. No text of the bundled data set enters, of neither part, nor the same words
found elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from sklearn_difffeat.datasets import load_openclipart

SEED = 0
N_TEXTS = 24_000
N_HELD = 40  # texts of each source that has so many left, kept to judge by
# Of the texts of a corpus, and of those of a batch. Long ones are slow to read.
SHARES = {
    "icon names": 0.16,
    "emoji names": 0.06,
    "composed titles": 0.20,
    "wordnet names": 0.20,
    "wordnet glosses": 0.22,
    "debian": 0.06,
    "brown": 0.10,
}
# WordNet's files of what can be drawn: animal, artifact, body, event, food, location,
# object, person, plant, shape.
PICTURABLE = {"05", "06", "08", "11", "13", "15", "17", "18", "20", "25"}
PATTERNS = [
    "{adjective} {noun}", "{noun} {other}", "{noun} and {other}", "{noun} with {other}",
    "{adjective} {noun} {other}", "{noun} on a {other}", "{noun}. {adjective} {other}",
]  # fmt: skip

Found = Iterator[tuple[str, str]]


def text_digest(text: str) -> str:
    """SHA-256 of a text's words, so that case and punctuation hide no copy."""
    words = " ".join(re.findall(r"\w+", text.lower()))
    return hashlib.sha256(words.encode()).hexdigest()


def _wordnet(root: Path) -> Found:
    """Yield names and glosses of WordNet's synonym sets."""
    for part in ("noun", "verb", "adj", "adv"):
        for line in (root / f"data.{part}").read_text("utf-8").splitlines():
            if line.startswith("  "):
                continue
            head, _, gloss = line.partition(" | ")
            fields = head.split()
            count = int(fields[3], 16)
            words = [re.sub(r"\(.*\)", "", w) for w in fields[4 : 4 + 2 * count : 2]]
            names = ", ".join(words).replace("_", " ")
            yield "wordnet names", names
            yield "wordnet glosses", f"{names}: {gloss.strip()}"


def _emoji_names(files: Iterable[str | Path]) -> Found:
    for file in files:
        for entry in json.loads(Path(file).read_text("utf-8")):
            yield "emoji names", entry["name"].lower()
            words = entry["short_names"][0].replace("_", " ").replace("-", " ")
            yield "emoji names", words


def _icon_names(files: Iterable[str | Path]) -> Found:
    """Yield the names in Iconify's collections that have two letters in a row."""
    for file in files:
        for name in json.loads(Path(file).read_text("utf-8"))["icons"]:
            words = [word for word in name.split("-") if not word.isdigit()]
            if any(len(word) > 2 for word in words):
                yield "icon names", " ".join(words)


def _composed(root: Path, n: int) -> Found:
    """Yield ``n`` titles put together from WordNet's words that corpora use.

    A title is a few words side by side, which no dictionary holds.
    """
    lines = (root / "cntlist.rev").read_text("utf-8").splitlines()
    used = {line.partition("%")[0] for line in lines}
    random = np.random.default_rng(SEED)
    nouns, adjectives = (
        np.array(
            sorted(
                word.replace("_", " ")
                for word in _lemmas(root / f"data.{part}", files) & used
            )
        )
        for part, files in (("noun", PICTURABLE), ("adj", {"00"}))
    )
    for _ in range(n):
        noun, other = random.choice(nouns, 2)
        words = {"noun": noun, "other": other, "adjective": random.choice(adjectives)}
        yield "composed titles", str(random.choice(PATTERNS)).format(**words)


def _lemmas(path: Path, files: set[str]) -> set[str]:
    """Return the words, with ``_`` for a space, of some of WordNet's files."""
    words: set[str] = set()
    for line in path.read_text("utf-8").splitlines():
        fields = line.split()
        if not line.startswith("  ") and fields[1] in files:
            count = int(fields[3], 16)
            found = fields[4 : 4 + 2 * count : 2]
            words |= {word.partition("(")[0].lower() for word in found}
    return words


def _debian(path: str | Path) -> Found:
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield "debian", line.strip()


def _brown(folder: str | Path) -> Found:
    for path in sorted(Path(folder).glob("c[a-r][0-9][0-9]")):
        for line in path.read_text("utf-8").splitlines():
            words = [token.rpartition("/")[0] for token in line.split()]
            if len(words) > 3:
                yield "brown", re.sub(r" ([.,;:?!])", r"\1", " ".join(words))


def pack_texts(
    out: str | Path,
    *,
    wordnet: str | Path,
    descriptions: str | Path,
    brown: str | Path,
    emoji: Iterable[str | Path] = (),
    icons: Iterable[str | Path] = (),
    n_texts: int = N_TEXTS,
) -> Path:
    """Write ``texts.jsonl`` into the folder ``out``: sources by their ``SHARES``.

    Others, which no run sees, go into ``held.jsonl``.

    Parameters
    ----------
    out : path
    wordnet : path
        Folder of WordNet's files.
    descriptions : path
        xz file, one description a line.
    brown : path
        Folder of the Brown corpus.
    emoji, icons : list of path
        ``emoji.json`` of emoji packages, ``icons.json`` of Iconify collections.
    n_texts : int
        Texts drawn in all. A source that has fewer than its share gives them all.

    Returns
    -------
    Path
        The file; each line is ``{"source", "text", "digest"}``.
    """
    seen = {text_digest(text) for text in load_openclipart().data["text"]}
    found: dict[str, list[dict[str, str]]] = {source: [] for source in SHARES}
    sources = (
        _icon_names(icons), _emoji_names(emoji), _composed(Path(wordnet), n_texts),
        _wordnet(Path(wordnet)), _debian(descriptions), _brown(brown),
    )  # fmt: skip
    for texts in sources:
        for source, text in texts:
            digest = text_digest(text)
            if text and digest not in seen:
                seen.add(digest)
                found[source].append({"source": source, "text": text, "digest": digest})
    random = np.random.default_rng(SEED)
    kept, held = [], []
    for source, records in found.items():
        order = random.permutation(len(records))
        most = round(SHARES[source] * n_texts)
        kept += [records[i] for i in sorted(order[:most])]
        held += [records[i] for i in order[max(most, len(order) - N_HELD) :]]
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    # The one that a run asks for comes last.
    for name, records in (("held", held), ("texts", kept)):
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        (folder / f"{name}.jsonl").write_text("".join(lines), "utf-8")
    return folder / "texts.jsonl"


def read_texts(corpus: str | Path, name: str = "texts") -> list[dict[str, str]]:
    """Read the texts back, or with ``name="held"`` those to judge by."""
    with open(Path(corpus) / f"{name}.jsonl", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
