"""Collect the pretraining corpus: pictures in one ``.npz``, texts in one ``.jsonl``.

Nothing of the bundled data set enters, of neither part, nor anything else of
OpenClipart's test groups: their drawings are skipped, and so is any picture with the
same pixels or any text with the same words found elsewhere. A backbone that knew the
training items by heart would make of them other features than of new items, and the
heads would learn to rely on that.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import lzma
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from sklearn_difffeat.datasets._clipart import (
    Drawing,
    is_test_group,
    iter_drawings,
    pixel_digest,
)
from sklearn_difffeat.datasets.build_openclipart import choose_items, render

OPENCLIPART, EMOJI, ICON = 0, 1, 2
DRAWING_SIZE = 96
PHOTO_SIZE = 32
SEED = 0
# At most so many texts of a source: a teacher reads long ones slowly.
MOST = {"wordnet glosses": 40_000, "brown": 15_000, "debian": 10_000}
N_COMPOSED = 60_000
# WordNet's files of what can be drawn: animal, artifact, body, event, food, location,
# object, person, plant, shape.
PICTURABLE = {"05", "06", "08", "11", "13", "15", "17", "18", "20", "25"}
PATTERNS = [
    "{adjective} {noun}", "{noun} {other}", "{noun} and {other}", "{noun} with {other}",
    "{adjective} {noun} {other}", "{noun} on a {other}", "{noun}. {adjective} {other}",
]  # fmt: skip


def text_digest(text: str) -> str:
    """SHA-256 of a text's words, so that case and punctuation hide no copy."""
    words = " ".join(re.findall(r"\w+", text.lower()))
    return hashlib.sha256(words.encode()).hexdigest()


def split_drawings(root: str | Path) -> tuple[list[Drawing], list[Drawing]]:
    """Return OpenClipart's drawings to pretrain on, and those to leave out.

    Left out are the items of the bundled data set and all drawings of test groups.
    """
    items = {drawing.name for drawing in choose_items(root)[0]}
    free: list[Drawing] = []
    held: list[Drawing] = []
    for drawing in iter_drawings(root):
        if not drawing.name.startswith("shapes/stars"):
            known = drawing.name in items or is_test_group(drawing.group)
            (held if known else free).append(drawing)
    return free, held


def is_held_back(photo: str | Path) -> bool:
    """Whether a photograph belongs to the tenth that is kept for evaluation."""
    path = Path(photo)
    digest = hashlib.sha256(f"{path.parent.name}/{path.name}".encode()).digest()
    return digest[0] < 256 / 10


def iter_icons(collection: str | Path) -> Iterator[io.BytesIO]:
    """Yield the drawings of an Iconify collection (its ``icons.json``) as PNG files."""
    import cairosvg

    content = json.loads(Path(collection).read_text("utf-8"))
    # An icon says where its box differs from the collection's.
    box = {"left": 0, "top": 0, "width": 16, "height": 16}
    shared = {name: content.get(name, value) for name, value in box.items()}
    for icon in content["icons"].values():
        view = " ".join(str(icon.get(name, shared[name])) for name in box)
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view}" '
            f'xmlns:xlink="http://www.w3.org/1999/xlink">{icon["body"]}</svg>'
        )
        side = 2 * DRAWING_SIZE  # twice as fine as needed: render() smooths it
        yield io.BytesIO(
            cairosvg.svg2png(svg.encode(), output_width=side, output_height=side)
        )


def pack_images(
    clipart: str | Path,
    emoji: Iterable[str | Path],
    icons: Iterable[str | Path],
    photos: str | Path,
    n_photos: int,
) -> dict[str, np.ndarray]:
    """Decode every picture once.

    Returns
    -------
    dict
        ``drawings`` uint8 (n, 96, 96, 3), ``drawing_source`` (n,) with 0 for
        OpenClipart, 1 for emoji and 2 for icons, ``photos`` uint8 (m, 32, 32, 3), and
        ``digests``, the SHA-256 of every picture in that order.
    """
    free, held = split_drawings(clipart)
    banned = {
        pixel_digest(np.asarray(render(d.png, DRAWING_SIZE)))
        for d in tqdm(held, desc="to be left out")
    }
    emoji_files = [
        path
        for folder in emoji
        for path in sorted(Path(folder).rglob("*"))
        if path.suffix in {".png", ".webp"}
    ]
    sources: Iterable[tuple[str | Path | io.BytesIO, int]] = itertools.chain(
        ((drawing.png, OPENCLIPART) for drawing in free),
        ((path, EMOJI) for path in emoji_files),
        ((png, ICON) for collection in icons for png in iter_icons(collection)),
    )
    drawings, origin, digests = [], [], []
    for path, source in tqdm(sources, desc="drawings"):
        picture = np.asarray(render(path, DRAWING_SIZE))
        digest = pixel_digest(picture)
        if digest not in banned:
            drawings.append(picture)
            origin.append(source)
            digests.append(digest)
    files = [
        path for path in sorted(Path(photos).rglob("*.jpg")) if not is_held_back(path)
    ]
    chosen = np.random.default_rng(SEED).permutation(len(files))[:n_photos]
    pixels = [
        np.asarray(render(files[i], PHOTO_SIZE)) for i in tqdm(chosen, desc="photos")
    ]
    digests += [pixel_digest(picture) for picture in pixels]
    return {
        "drawings": np.stack(drawings),
        "drawing_source": np.array(origin, dtype=np.uint8),
        "photos": np.stack(pixels),
        "digests": np.array(digests),
    }


def _wordnet(folder: str | Path) -> Iterator[tuple[str, str]]:
    for part in ("noun", "verb", "adj", "adv"):
        for line in (Path(folder) / f"data.{part}").read_text("utf-8").splitlines():
            if line.startswith("  "):
                continue
            head, _, gloss = line.partition(" | ")
            fields = head.split()
            count = int(fields[3], 16)
            words = [re.sub(r"\(.*\)", "", w) for w in fields[4 : 4 + 2 * count : 2]]
            names = ", ".join(words).replace("_", " ")
            yield "wordnet names", names
            yield "wordnet glosses", f"{names}: {gloss.strip()}"


def _emoji_names(folders: Iterable[str | Path]) -> Iterator[tuple[str, str]]:
    """Yield the names in the ``emoji.json`` of a folder or of one above it."""
    for folder in map(Path, folders):
        for place in (folder, *folder.parents[:3]):
            if (place / "emoji.json").exists():
                for entry in json.loads((place / "emoji.json").read_text("utf-8")):
                    yield "emoji names", entry["name"].lower()
                    words = entry["short_names"][0].replace("_", " ").replace("-", " ")
                    yield "emoji names", words
                break


def _composed(wordnet: str | Path, n: int) -> Iterator[tuple[str, str]]:
    """Yield ``n`` titles put together from WordNet's words that corpora use.

    A title is a few words side by side, which no dictionary holds.
    """
    lines = (Path(wordnet) / "cntlist.rev").read_text("utf-8").splitlines()
    used = {line.partition("%")[0] for line in lines}
    random = np.random.default_rng(SEED)
    nouns, adjectives = (
        np.array(
            sorted(
                word.replace("_", " ")
                for word in _lemmas(Path(wordnet) / f"data.{part}", files) & used
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


def _brown(folder: str | Path) -> Iterator[tuple[str, str]]:
    for path in sorted(Path(folder).glob("c[a-r][0-9][0-9]")):
        for line in path.read_text("utf-8").splitlines():
            words = [token.rpartition("/")[0] for token in line.split()]
            if len(words) > 3:
                yield "brown", re.sub(r" ([.,;:?!])", r"\1", " ".join(words))


def pack_texts(
    clipart: str | Path,
    emoji: Iterable[str | Path],
    wordnet: str | Path,
    descriptions: str | Path,
    brown: str | Path,
) -> list[dict[str, str]]:
    """Return one ``{"source", "text", "digest"}`` for each distinct text.

    A source gives at most ``MOST`` texts, drawn at random.
    """
    free, held = split_drawings(clipart)
    seen = {text_digest(part) for d in held for part in (d.text, d.title) if part}
    candidates: list[tuple[str, str]] = []
    for drawing in free:
        candidates += [("openclipart", drawing.text), ("openclipart", drawing.title)]
    candidates += _emoji_names(emoji)
    candidates += _wordnet(wordnet)
    candidates += _composed(wordnet, N_COMPOSED)
    with lzma.open(descriptions, "rt", encoding="utf-8") as lines:
        candidates += [("debian", line.strip()) for line in lines]
    candidates += _brown(brown)
    records = []
    for source, text in tqdm(candidates, desc="texts"):
        digest = text_digest(text)
        if text and digest not in seen:
            seen.add(digest)
            records.append({"source": source, "text": text, "digest": digest})
    sources = np.array([record["source"] for record in records])
    random = np.random.default_rng(SEED)
    left_out = [
        random.permutation(np.flatnonzero(sources == source))[most:]
        for source, most in MOST.items()
    ]
    kept = np.delete(np.arange(len(records)), np.concatenate(left_out))
    return [records[i] for i in kept]


def pack(
    out: str | Path,
    *,
    clipart: str | Path,
    emoji: Iterable[str | Path],
    icons: Iterable[str | Path] = (),
    photos: str | Path,
    n_photos: int,
    wordnet: str | Path,
    descriptions: str | Path,
    brown: str | Path,
) -> None:
    """Write ``images.npz`` and ``texts.jsonl`` into the folder ``out``."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    texts = pack_texts(clipart, emoji, wordnet, descriptions, brown)
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in texts)
    (folder / "texts.jsonl").write_text("".join(lines), "utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        Image.MAX_IMAGE_PIXELS = None  # some drawings are 15,000 pixels wide
        images = pack_images(clipart, emoji, icons, photos, n_photos)
    np.savez(folder / "images.npz", allow_pickle=False, **images)
    print(f"{folder}: {len(images['drawings']):,} drawings, "
          f"{len(images['photos']):,} photographs, {len(texts):,} texts")  # fmt: skip


def read_texts(corpus: str | Path) -> list[dict[str, str]]:
    """Read the texts back."""
    with open(Path(corpus) / "texts.jsonl", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
