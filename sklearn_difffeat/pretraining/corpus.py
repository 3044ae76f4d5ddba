"""Collect the pictures of the pretraining corpus in one ``.npz``.

Nothing of the bundled data set enters, of neither part, nor anything else of
OpenClipart's test groups: their drawings are skipped, and so is any picture with the
same pixels found elsewhere. A backbone that knew the training items by heart would make
of them other features than of new items, and the heads would learn to rely on that.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
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


def pack(
    out: str | Path,
    *,
    clipart: str | Path,
    emoji: Iterable[str | Path],
    icons: Iterable[str | Path] = (),
    photos: str | Path,
    n_photos: int,
) -> None:
    """Write ``images.npz`` into the folder ``out``."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        Image.MAX_IMAGE_PIXELS = None  # some drawings are 15,000 pixels wide
        images = pack_images(clipart, emoji, icons, photos, n_photos)
    np.savez(folder / "images.npz", allow_pickle=False, **images)
    print(f"{folder}: {len(images['drawings']):,} drawings, "
          f"{len(images['photos']):,} photographs")  # fmt: skip
