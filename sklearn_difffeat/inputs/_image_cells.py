"""What an image cell may be, its content, and the content's digest."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from sklearn_difffeat._process import absolute
from sklearn_difffeat.inputs._cells import is_missing
from sklearn_difffeat.inputs._pillow import allowed_formats
from sklearn_difffeat.store._chunk import DIGEST_BYTES

KINDS = (
    "a path, bytes, PIL image, (height, width, channels) array, or a dict with 'bytes' "
    "or 'path'"
)
# The first letters of JPEG, PNG, GIF, WebP, BMP and TIFF files in base64.
BASE64 = re.compile(r"\s*(/9j/|iVBORw0KGgo|R0lGOD|UklGR|Qk[0-3]|SUkq|TU0AK)")
# Characters of the name of a file, on most systems.
LONGEST_NAME = 255

# Reading an image from its file changes the image object.
_reading = threading.RLock()


def check_image_cell(cell: Any) -> None:
    """Raise TypeError when a cell is of no accepted kind; reads no file."""
    if isinstance(cell, dict):
        if is_missing(cell.get("bytes")) and is_missing(cell.get("path")):
            raise TypeError(
                f"a dict with keys {list(cell)} has neither 'bytes' nor 'path'; give "
                "one of them."
            )
        return
    accepted = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray)
    if not isinstance(cell, accepted):
        raise TypeError(
            f"{short(cell)} of type {type(cell).__name__} is not an image; pass "
            f"{KINDS}."
        )


def path_of(cell: Any) -> str | None:
    """Return the path that a cell is or holds, None where it has its content."""
    if isinstance(cell, dict) and is_missing(cell.get("bytes")):
        cell = cell.get("path")
    return os.fspath(cell) if isinstance(cell, (str, os.PathLike)) else None


def read_image(cell: Any) -> tuple[Any, str]:
    """Return a cell's content, read from its file if it is a path, and its name.

    Raises
    ------
    FileNotFoundError
        When a path leads to no file.
    OSError
        When a file cannot be read.
    ValueError
        When a text is a picture itself, in base64, and not a path.
    TypeError
        When the cell is of no accepted kind.
    """
    check_image_cell(cell)
    name = None
    if isinstance(cell, dict):
        name = cell.get("path")
        cell = name if is_missing(cell.get("bytes")) else cell["bytes"]
        check_image_cell(cell)
        if isinstance(cell, dict):
            raise TypeError(f"a dict holds a dict; pass {KINDS}.")
    if isinstance(cell, np.ndarray):
        return cell, "the array"
    if isinstance(cell, Image.Image):
        return cell, "the PIL image"
    if not isinstance(cell, (str, os.PathLike)):
        if isinstance(name, (str, os.PathLike)):
            return cell, short(os.fspath(name), LONGEST_NAME)
        return cell, f"{len(cell)} bytes"
    path = os.fspath(cell)
    try:
        with open(absolute(path), "rb") as file:
            return file.read(), short(path, LONGEST_NAME)
    except (OSError, ValueError) as error:
        raise _unread(path, error) from error


def check_path(cell: Any) -> None:
    """Raise :func:`read_image`'s error for a path without a file; reads no file."""
    path = path_of(cell)
    if path is None:
        return
    try:
        os.stat(absolute(path))
    except (OSError, ValueError) as error:
        raise _unread(path, error) from error


def _unread(path: str | bytes, error: Exception) -> Exception:
    """Say what is wrong with a path that could not be read."""
    text = os.fsdecode(path)
    shown = short(text, LONGEST_NAME)
    encoded = _name_of_encoded(text)
    if encoded is not None:
        return ValueError(
            f"{short(text, 30)} is a picture as {encoded}, not a path; pass "
            "its bytes, as base64.b64decode gives them."
        )
    if text.startswith(("http://", "https://")):
        return FileNotFoundError(
            f"{short(text)} is an address, and nothing is downloaded; save the "
            "picture and pass its path or bytes."
        )
    lost = (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError)
    if isinstance(error, lost) or len(text) > LONGEST_NAME:
        what = "a folder, not a file," if os.path.isdir(absolute(text)) else "no file"
        return FileNotFoundError(f"there is {what} {shown}; an image cell is {KINDS}.")
    assert isinstance(error, OSError)
    return type(error)(
        error.errno,
        f"{shown} cannot be read ({error.strerror}); change its permissions or "
        "drop the row",
    )


def _name_of_encoded(text: str) -> str | None:
    """Return the kind of text that a picture was encoded as; None for other texts."""
    if text[:5].lower() == "data:":
        return "a data URI"
    if not BASE64.match(text) and len(text) <= LONGEST_NAME:
        return None
    start = "".join(text[: 4 * LONGEST_NAME].split())
    is_base64 = len(start) >= 16 and re.fullmatch(r"[\w+/-]+=*", start, re.ASCII)
    return "base64" if is_base64 else None


def _say_undecodable(content: Any) -> str:
    """Say in a few words what bytes are that are not a picture."""
    start = bytes(content[: 4 * LONGEST_NAME])
    if start.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6", b"%PDF")):
        return "is a PostScript or PDF file, which is a program and not run"
    if re.match(rb"\s*(<\?xml|<svg|<!DOCTYPE svg)", start):
        return "is an SVG file, a drawing without pixels"
    encoded = _name_of_encoded(start.decode("latin-1"))
    if encoded is not None:
        return f"is a picture as {encoded}, still to be decoded by base64.b64decode"
    return "is not an image that Pillow knows"


def digest_image(content: Any) -> bytes:
    """Return a digest of the content that :func:`read_image` returned."""
    if isinstance(content, np.ndarray):
        if content.dtype.kind not in "buifc":
            raise ValueError(
                f"an array of dtype {content.dtype} is not a picture; "
                "pass uint8 (0 to 255) or floats (0 to 1)."
            )
        header = f"{content.dtype.str}{content.shape}".encode()
        digest = hashlib.blake2b(header, digest_size=DIGEST_BYTES, person=b"array")
        digest.update(np.ascontiguousarray(content).data)
        return digest.digest()
    if isinstance(content, Image.Image):
        return _digest_pil(content)
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def _digest_pil(image: Image.Image) -> bytes:
    with naming_damage(image, "the PIL image"), first_frame(image) as frame:
        palette = frame.palette
        seen = (
            frame.mode,
            frame.size,
            frame.format == "PPM",
            frame.getexif().get(ExifTags.Base.Orientation),
            frame.info.get("transparency"),
            None if palette is None else (palette.mode, frame.getpalette(None)),
        )
        digest = hashlib.blake2b(digest_size=DIGEST_BYTES, person=b"pil")
        digest.update(repr(seen).encode())
        digest.update(frame.tobytes())
    return digest.digest()


@contextmanager
def naming_damage(content: Any, shown: str) -> Iterator[None]:
    """Add the picture's name to Pillow's errors about a picture that it cannot open."""
    try:
        yield
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{shown} {_say_undecodable(content)}; replace the cell or drop the row."
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"{shown} is too large ({error}); raise "
            "PIL.Image.MAX_IMAGE_PIXELS if you trust it."
        ) from error
    except Exception as error:
        # Pillow's plugins raise many kinds of errors on damaged data.
        raise ValueError(
            f"{shown} cannot be decoded ({error}); repair the file or drop the row."
        ) from error


@contextmanager
def first_frame(image: Image.Image) -> Iterator[Image.Image]:
    """Use the first frame of the caller's image, which stays at its own frame.

    Raises
    ------
    ValueError
        When reading the image would run a program.
    """
    if not isinstance(image, ImageFile.ImageFile):
        yield image
        return
    if image.tile and image.format not in allowed_formats():
        raise ValueError(f"format {image.format!r} is not made of pixels")
    with _reading:
        frame = image.tell()
        try:
            if frame:
                image.seek(0)
            image.load()
            yield image
        finally:
            if image.tell() != frame:
                image.seek(frame)


def short(value: Any, length: int = 60) -> str:
    """Return a representation that fits into a message."""
    if isinstance(value, (str, bytes)):
        # Only the start of a long value is used.
        cut = repr(value[:length])
        return cut if len(value) <= length else f"{cut[:-1]}...{cut[-1]}"
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}..."
