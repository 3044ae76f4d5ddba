"""Build the bundled OpenClipart data set from the Debian packages.

::

    apt-get install openclipart-png openclipart-svg
    python -m sklearn_difffeat.datasets.build_openclipart --root /usr/share/openclipart

The archive holds ``items.csv`` (one row an item), ``images/<number>.webp`` (96 x 96,
on white) and ``NOTICE.txt``. Rebuilding from the same packages gives the same items,
texts, labels and split; the WebP bytes depend on the encoder's version, which is why
the checksum in ``_openclipart.py`` is of the archive that ships.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import zipfile
from collections import Counter
from pathlib import Path
from typing import IO

from PIL import Image
from tqdm.auto import tqdm

from sklearn_difffeat.datasets._clipart import (
    Drawing,
    is_test_group,
    iter_drawings,
    pixel_digest,
)

SIZE = 96
MIN_ITEMS = 20
LEFT_OUT = ("shapes/stars", "computer/icons")
PROVENANCE = {
    "hash", "magick", "theme", "unsorted", "special", "gradients", "simple", "11",
    "white", "architetto francesco rollandin",
}  # fmt: skip
NOTICE = """OpenClipart, as packaged by Debian (openclipart-png, openclipart-svg 0.18).

Every drawing was dedicated to the public domain by its author under the Creative
Commons Public Domain Dedication; see /usr/share/doc/openclipart-png/copyright in the
Debian package. Titles, descriptions and keywords come from the RDF block of each SVG.
"""


def render(png: str | Path | IO[bytes], size: int = SIZE) -> Image.Image:
    """Draw a PNG of any mode on a white square of ``size`` pixels, aspect kept."""
    with Image.open(png) as image:
        image.thumbnail((4 * size, 4 * size), Image.Resampling.BOX, reducing_gap=2.0)
        drawing = image.convert("RGBA")
    # Resizing premultiplied colours keeps the hidden colour of transparent pixels out.
    drawing = drawing.convert("RGBa")
    scale = size / max(drawing.size)
    shape = [max(1, round(side * scale)) for side in drawing.size]
    drawing = drawing.resize(shape, Image.Resampling.LANCZOS).convert("RGBA")
    square = Image.new("RGBA", (size, size), "white")
    corner = tuple((size - side) // 2 for side in drawing.size)
    square.alpha_composite(drawing, corner)
    return square.convert("RGB")


def choose_items(root: str | Path) -> tuple[list[Drawing], list[list[str]]]:
    """Return the drawings that carry a frequent keyword, and the labels of each.

    A plural joins its singular where both are frequent (``flags`` and ``flag``).
    """
    drawings = [d for d in iter_drawings(root) if not d.name.startswith(LEFT_OUT)]
    counts = Counter(word for drawing in drawings for word in drawing.keywords)
    frequent = {word for word, n in counts.items() if n >= MIN_ITEMS} - PROVENANCE
    label_of = {
        word: word[:-1] if word.endswith("s") and word[:-1] in frequent else word
        for word in frequent
    }
    items, labels = [], []
    for drawing in drawings:
        found = {label_of[word] for word in drawing.keywords if word in label_of}
        if found and drawing.text:
            items.append(drawing)
            labels.append(sorted(found))
    return items, labels


def write_archive(root: str | Path, out: str | Path) -> None:
    """Write the archive that ``load_openclipart`` reads."""
    items = list(zip(*choose_items(root), strict=True))
    table = io.StringIO()
    seen: set[str] = set()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["image", "text", "labels", "group", "split", "source", "sha256"])
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for drawing, words in tqdm(items, unit="item"):
            picture = render(drawing.png)
            # Some drawings are there twice: two files of one picture, maybe in both
            # parts.
            digest = pixel_digest(picture)
            if digest in seen:
                continue
            name = f"images/{len(seen):04d}.webp"
            seen.add(digest)
            buffer = io.BytesIO()
            picture.save(buffer, "WEBP", quality=82, method=6)
            archive.writestr(zipfile.ZipInfo(name), buffer.getvalue())
            rows.writerow([
                name,
                drawing.text,
                ";".join(words),
                drawing.group,
                "test" if is_test_group(drawing.group) else "train",
                drawing.name,
                digest,
            ])  # fmt: skip
        for name, text in (("items.csv", table.getvalue()), ("NOTICE.txt", NOTICE)):
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="/usr/share/openclipart")
    parser.add_argument(
        "--out", default=Path(__file__).parent / "data" / "openclipart.zip", type=Path
    )
    options = parser.parse_args()
    Image.MAX_IMAGE_PIXELS = None  # some drawings are 15,000 pixels wide
    write_archive(options.root, options.out)
    content = options.out.read_bytes()
    print(f"{options.out}: {len(content) / 1e6:.1f} MB, "
          f"sha256 {hashlib.sha256(content).hexdigest()}")  # fmt: skip


if __name__ == "__main__":
    main()
