"""Reading OpenClipart, for the builder of the data set and the pretraining corpus.

The Debian packages ``openclipart-png`` and ``openclipart-svg`` install the same
drawings twice: a PNG under ``png/<category>/`` and an SVG of the same name, whose
RDF block holds the title, the description and the keywords.
"""

from __future__ import annotations

import hashlib
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
DC = "{http://purl.org/dc/elements/1.1/}"

# A Perl script wrote this in place of descriptions that it could not read.
LEFTOVER = re.compile(r"HASH\(0x[0-9a-f]+\)")
SPLIT_SALT = "openclipart/548"
TEST_SHARE = 0.30


@dataclass(frozen=True)
class Drawing:
    """One distinct drawing: its files, title, description and keywords."""

    png: Path
    name: str
    title: str
    description: str
    keywords: tuple[str, ...]

    @property
    def text(self) -> str:
        """Title and description as one text, without repetition."""
        if not self.description or self.description.lower() == self.title.lower():
            return self.title
        return f"{self.title}. {self.description}" if self.title else self.description

    @property
    def group(self) -> str:
        """Folder and first word of the file name: one author's series of drawings."""
        path = PurePosixPath(self.name)
        word = re.search(r"[a-z]+", path.stem.lower())
        return f"{path.parent}/{word.group() if word else path.stem}"


def pixel_digest(picture: Image.Image | np.ndarray) -> str:
    """SHA-256 of a picture's pixels."""
    return hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest()


def is_test_group(group: str, salt: str = SPLIT_SALT) -> bool:
    """Whether the published split holds this group back for testing.

    The split is a function of the group's name alone, so it also covers drawings
    that are not in the data set: none of a test group may be used in pretraining.
    """
    digest = hashlib.sha256(f"{salt}/{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < TEST_SHARE * 2**64


def _read_rdf(svg: Path) -> tuple[str, str, tuple[str, ...]]:
    rdf = ElementTree.parse(svg).getroot().find(f".//{RDF}RDF")
    if rdf is None:
        return "", "", ()
    title, description = (
        " ".join(LEFTOVER.sub("", rdf.findtext(f".//{DC}{name}") or "").split())
        for name in ("title", "description")
    )
    words = (e.text or "" for e in rdf.iterfind(f".//{DC}subject//{RDF}li"))
    keywords = {" ".join(word.lower().split()) for word in words} - {""}
    return title, description, tuple(sorted(keywords))


def iter_drawings(root: str | Path) -> Iterator[Drawing]:
    """Yield each distinct drawing (by the MD5 of its PNG) in the order of the names."""
    png_root, svg_root = Path(root) / "png", Path(root) / "svg"
    if not png_root.is_dir() or not svg_root.is_dir():
        raise FileNotFoundError(
            f"{root} holds no png/ and svg/ folders; install the Debian packages "
            "openclipart-png and openclipart-svg, or name the folder they were "
            "unpacked to."
        )
    seen: set[bytes] = set()
    for png in sorted(png_root.rglob("*.png")):
        digest = hashlib.md5(png.read_bytes(), usedforsecurity=False).digest()
        if digest in seen:
            continue
        seen.add(digest)
        name = png.relative_to(png_root).as_posix()
        yield Drawing(png, name, *_read_rdf((svg_root / name).with_suffix(".svg")))
