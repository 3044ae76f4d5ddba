"""Pictures to pretrain on, with the names their artists gave: emoji, icons, photos.

Nothing of OpenClipart is among them, nor any picture with the pixels of one of its
items. One emoji is drawn by several artists, who share its name.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sklearn_difffeat.datasets import load_openclipart
from sklearn_difffeat.datasets.build_openclipart import render

SEED = 0
# Of a name's words, those that tell how an icon is drawn and not what it shows.
STYLE = {"flat", "duo", "fill", "filled", "outline", "alt", "24px", "16px", "color"}
# Nearly the same drawing once more: other skins, lines for areas, black for white.
VARIANT = re.compile(
    r"skin-tone|-(medium-)?(light|dark|medium)$|-1f3f[b-f]|-(outline|24px|negative|line)\b"
)


@dataclass(frozen=True)
class Picture:
    """One picture: where it is from, what it shows, and its file or SVG.

    ``name`` is empty for photographs: the class of one is a label, which is not used.
    """

    source: str
    name: str
    content: Path | str

    def draw(self, *sizes: int) -> list[np.ndarray]:
        """Draw it on a white square of each size, uint8 (size, size, 3)."""
        file: Path | io.BytesIO
        if isinstance(self.content, Path):
            file = self.content
        else:
            import cairosvg

            side = max(sizes)
            png = cairosvg.svg2png(
                self.content.encode(), output_width=side, output_height=side
            )
            file = io.BytesIO(png)
        return [np.asarray(render(file, size)) for size in sizes]


def plain_name(name: str) -> str:
    """Return the words of a file's or an icon's name that tell what it shows."""
    words = re.split(r"[-_ ]+", name.lower())
    kept = [word for word in words if word not in STYLE and not word.isdigit()]
    return " ".join(kept)


def _emoji(folder: Path) -> Iterator[Picture]:
    """Yield the drawings of an emoji package, by the names in an ``emoji.json``.

    A package without one, whose files are named for code points, follows one that has.
    """
    table = json.loads((folder / "emoji.json").read_text("utf-8"))
    # A package keeps all sizes and vendors side by side.
    files = {path.name.lower(): path for path in sorted(folder.rglob("*.png"))}
    for entry in table:
        path = files.get(entry["image"].lower())
        if path is not None:
            yield Picture(folder.name, plain_name(entry["short_name"]), path)


def _code_points(folder: Path, table: Iterable[dict[str, Any]]) -> Iterator[Picture]:
    names = {
        code.lower().replace("-fe0f", ""): plain_name(entry["short_name"])
        for entry in table
        for code in (entry["unified"], entry["non_qualified"])
        if code
    }
    for path in sorted(folder.rglob("*.webp")):
        name = names.get(path.stem.lower().replace("-fe0f", ""))
        if name is not None:
            yield Picture(folder.name, name, path)


def _icons(folder: Path) -> Iterator[Picture]:
    """Yield the drawings of an Iconify collection, ``icons.json`` in its folder."""
    content = json.loads((folder / "icons.json").read_text("utf-8"))
    box = {"left": 0, "top": 0, "width": 16, "height": 16}
    # An icon says where its box differs from the collection's.
    shared = {name: content.get(name, value) for name, value in box.items()}
    for key, icon in content["icons"].items():
        if VARIANT.search(key) or not plain_name(key):
            continue
        view = " ".join(str(icon.get(name, shared[name])) for name in box)
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view}" '
            f'xmlns:xlink="http://www.w3.org/1999/xlink">{icon["body"]}</svg>'
        )
        yield Picture(folder.name, plain_name(key), svg)


def is_held_back(photo: str | Path) -> bool:
    """Whether a photograph belongs to the tenth that is kept for evaluation."""
    path = Path(photo)
    digest = hashlib.sha256(f"{path.parent.name}/{path.name}".encode()).digest()
    return digest[0] < 256 / 10


def list_pictures(
    emoji: Iterable[Path], icons: Iterable[Path], photos: Path, n_photos: int
) -> list[Picture]:
    """Return all pictures in an order drawn at random, the same each time.

    Parameters
    ----------
    emoji : iterable of Path
        Folders of ``emoji-datasource-...`` with ``emoji.json``, and of WebP files
        named for code points, whose names are those of the first.
    icons : iterable of Path
        Folders of Iconify collections.
    photos : Path
        Folder of JPEG photographs by class; those held back are left out.
    n_photos : int
    """
    folders = [Path(folder) for folder in emoji]
    named = [folder for folder in folders if (folder / "emoji.json").exists()]
    found: list[Picture] = []
    for folder in folders:
        if folder in named:
            found += _emoji(folder)
        else:
            text = (named[0] / "emoji.json").read_text("utf-8")
            found += _code_points(folder, json.loads(text))
    for folder in map(Path, icons):
        found += _icons(folder)
    random = np.random.default_rng(SEED)
    files = [path for path in sorted(photos.rglob("*.jpg")) if not is_held_back(path)]
    chosen = random.permutation(len(files))[:n_photos]
    found += [Picture("photographs", "", files[i]) for i in chosen]
    return [found[i] for i in random.permutation(len(found))]


def banned_digests() -> set[str]:
    """Return the digests of OpenClipart's items, which no picture may have."""
    return set(load_openclipart().sha256)


def thumbnail(pixels: np.ndarray, side: int) -> np.ndarray:
    """Return a small copy of a picture, uint8 (side, side, 3)."""
    return np.asarray(Image.fromarray(pixels).resize((side, side)))
