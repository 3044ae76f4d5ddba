"""One image cell, whatever its kind and mode, to a square RGB array."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sklearn_difffeat._cells import is_missing
from sklearn_difffeat.extraction._chunk import DIGEST_BYTES

KINDS = (
    "a path, bytes, PIL image, (height, width, channels) array, or a dict with 'bytes' "
    "or 'path'"
)


def check_image_cell(cell: Any, row: int) -> None:
    """Raise TypeError when a cell is of no accepted kind; reads no file."""
    if isinstance(cell, dict):
        if is_missing(cell.get("bytes")) and is_missing(cell.get("path")):
            raise TypeError(
                f"row {row} of X: a dict with keys {list(cell)} has neither 'bytes' "
                "nor 'path'; give one of them."
            )
        return
    accepted = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray)
    if not isinstance(cell, accepted):
        raise TypeError(
            f"row {row} of X: {_short(cell)} of type {type(cell).__name__} is no "
            f"image; pass {KINDS}."
        )


def read_image(cell: Any, row: int) -> tuple[Any, str]:
    """Return a cell's content, read from its file where it is a path, and its name.

    Raises
    ------
    FileNotFoundError
        When a path leads to no file.
    OSError
        When a file cannot be read.
    TypeError
        When the cell is of no accepted kind.
    """
    check_image_cell(cell, row)
    if isinstance(cell, dict):
        cell = cell["path"] if is_missing(cell.get("bytes")) else cell["bytes"]
        check_image_cell(cell, row)
        if isinstance(cell, dict):
            raise TypeError(f"row {row} of X: a dict holds a dict; pass {KINDS}.")
    if isinstance(cell, np.ndarray):
        return cell, "the array"
    if isinstance(cell, Image.Image):
        return cell, "the PIL image"
    if not isinstance(cell, (str, os.PathLike)):
        return cell, f"{len(cell)} bytes"
    path = os.fspath(cell)
    try:
        with open(path, "rb") as file:
            return file.read(), repr(path)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError) as e:
        what = "a folder, not a file," if os.path.isdir(path) else "no file"
        raise FileNotFoundError(
            f"row {row} of X: there is {what} {_short(path)}; an image cell is {KINDS}."
        ) from e
    except OSError as error:
        raise type(error)(
            error.errno,
            f"row {row} of X: {path!r} cannot be read ({error.strerror}); mend its "
            "permissions or drop the row",
        ) from error


def digest_image(content: Any, shown: str, size: int, row: int) -> bytes:
    """Return a digest of what :func:`read_image` returned."""
    if isinstance(content, np.ndarray):
        if content.dtype.kind not in "buif":
            # Refuses it, in the words that any unusable array gets.
            _image_of_array(content, row)
        header = f"{content.dtype.str}{content.shape}".encode()
        digest = hashlib.blake2b(header, digest_size=DIGEST_BYTES, person=b"array")
        digest.update(np.ascontiguousarray(content).data)
        return digest.digest()
    if isinstance(content, Image.Image):
        # Mode, palette, orientation and transparency all act on the decoded picture.
        content = decode_image(content, shown, size, row)
        return hashlib.blake2b(
            content, digest_size=DIGEST_BYTES, person=b"pixels"
        ).digest()
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def decode_image(content: Any, shown: str, size: int, row: int) -> np.ndarray:
    """Decode what :func:`read_image` returned to uint8 (size, size, 3).

    The first frame is taken, the EXIF orientation applied and transparency put on
    white; the whole picture is resized to the square (bicubic, antialiased), so that
    nothing at its border is lost.

    Raises
    ------
    ValueError
        When a file cannot be decoded or an array is no picture.
    """
    if isinstance(content, np.ndarray):
        if content.dtype == np.uint8 and content.shape == (size, size, 3):
            return content
        return _resize(_to_rgb(_image_of_array(content, row), row), size)
    if isinstance(content, Image.Image):
        return _decode(lambda: _first_frame(content), size, row, shown)
    return _decode(lambda: Image.open(io.BytesIO(content)), size, row, shown)


def _first_frame(image: Image.Image) -> Image.Image:
    """Copy the first frame; the caller's image stays at the frame where it is."""
    if not getattr(image, "is_animated", False):
        return image.copy()
    frame = image.tell()
    try:
        image.seek(0)
        return image.copy()
    finally:
        image.seek(frame)


def _decode(
    opened: Callable[[], Image.Image], size: int, row: int, shown: str
) -> np.ndarray:
    try:
        with opened() as image:
            if 0 in image.size:
                raise ValueError(f"its size is {image.size}")
            if getattr(image, "is_animated", False):
                image.seek(0)
            return _resize(_to_rgb(ImageOps.exif_transpose(image), row), size)
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise ValueError(
            f"row {row} of X: {shown} is not an image that Pillow knows; replace the "
            "cell or drop the row."
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"row {row} of X: {shown} is too large ({error}); raise "
            "PIL.Image.MAX_IMAGE_PIXELS if you trust it."
        ) from error
    except Exception as error:
        # Pillow's plugins raise nearly anything on damaged data.
        raise ValueError(
            f"row {row} of X: {shown} cannot be decoded ({error}); repair the file or "
            "drop the row."
        ) from error


def _to_rgb(image: Image.Image, row: int) -> Image.Image:
    if image.mode == "F":
        image = _image_of_array(np.asarray(image), row)
    elif image.mode.startswith("I"):
        # Pillow clips these to 255; greys of 16 bits have to be scaled.
        values = np.asarray(image, dtype=np.float64)
        values /= 257 if image.mode != "I" or values.max() > 255 else 1
        image = Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        drawing = image.convert("RGBA")
        paper = Image.new("RGBA", drawing.size, "white")
        image = Image.alpha_composite(paper, drawing)
    return image.convert("RGB")


def _resize(image: Image.Image, size: int) -> np.ndarray:
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.array(image, dtype=np.uint8)


def _image_of_array(array: np.ndarray, row: int) -> Image.Image:
    is_picture = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 2, 3, 4))
    if not is_picture or array.size == 0:
        raise ValueError(
            f"row {row} of X: an array of shape {array.shape} is no picture; pass "
            "(height, width) or (height, width, channels) with 1 to 4 channels."
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype == bool:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype == np.uint16:
        array = (array / 257).round().astype(np.uint8)
    elif array.dtype.kind == "f":
        if np.isnan(array).any():
            raise ValueError(
                f"row {row} of X: the array holds NaN; fill it or drop the row."
            )
        if array.min() < 0 or array.max() > 1:
            raise ValueError(
                f"row {row} of X: a float array must hold values from 0 to 1, this one "
                f"has {array.min():.4g} to {array.max():.4g}; scale it or pass uint8."
            )
        array = (array * 255).round().astype(np.uint8)
    elif array.dtype.kind in "iu" and array.min() >= 0 and array.max() <= 255:
        array = array.astype(np.uint8)
    else:
        raise ValueError(
            f"row {row} of X: an array of dtype {array.dtype} is no picture; pass "
            "uint8 (0 to 255) or floats (0 to 1)."
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _short(value: Any, length: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}..."
