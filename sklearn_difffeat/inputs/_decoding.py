"""One image cell, of any kind and mode, to a square RGB array."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from sklearn_difffeat.inputs._image_cells import (
    check_image_cell,
    digest_image,
    first_frame,
    naming_damage,
    read_image,
)
from sklearn_difffeat.inputs._pillow import allowed_formats

__all__ = [
    "check_image_cell", "decode_image", "decode_seen", "digest_image", "read_image",
]  # fmt: skip

# A picture counts as black if its brightest pixel, of 255, is at most this.
BLACK_8_BIT, BLACK_DEEPER = 1, 16


def decode_image(content: Any, shown: str, size: int) -> np.ndarray:
    """Decode what :func:`read_image` returned to uint8 (size, size, 3).

    The first frame is taken, the EXIF orientation applied and transparency put on
    white; the whole picture is resized to the square (bicubic, antialiased), so that
    nothing at its border is lost.

    Raises
    ------
    ValueError
        When a file cannot be decoded or an array is not a picture.
    """
    return decode_seen(content, shown, size)[0]


def decode_seen(content: Any, shown: str, size: int) -> tuple[np.ndarray, bool]:
    """Decode a picture, and say whether its range of values makes it black.

    A picture is called black by its range when it is not all zero, yet has no pixel
    above 1 of 255 (a mask of 0 and 1), or above 16 of 255 where its values have more
    than 8 bits (greys of 8 to 12 bits in 16).
    """
    if isinstance(content, np.ndarray):
        source = _image_of_array(content)
        deeper = content.dtype != np.uint8
        if content.dtype == np.uint8 and content.shape == (size, size, 3):
            return content, _is_black(content, source, deeper)
        return _finish(source, size, deeper)
    with naming_damage(content, shown):
        if isinstance(content, Image.Image):
            with first_frame(content) as frame:
                return _decode(frame, size)
        formats = allowed_formats()
        with Image.open(io.BytesIO(content), formats=formats) as image:
            return _decode(image, size)


def _decode(image: Image.Image, size: int) -> tuple[np.ndarray, bool]:
    if 0 in image.size:
        raise ValueError(f"its size is {image.size}")
    if getattr(image, "is_animated", False):
        image.seek(0)
    deeper = image.mode.startswith(("I", "F"))
    # Pillow reads PGM files of more than 8 bits as I, scaled to 16 bits.
    highest = 65535 if image.format == "PPM" else 255
    upright = ImageOps.exif_transpose(image)
    return _finish(_eight_bits(upright, highest), size, deeper)


def _eight_bits(image: Image.Image, highest: int) -> Image.Image:
    """Scale greys of more than 8 bits, which Pillow would clip."""
    if image.mode == "I" and highest == 65535:
        return _image_of_array(np.asarray(image).astype(np.uint16))
    if image.mode.startswith(("I", "F")):
        return _image_of_array(np.asarray(image))
    return image


def _finish(image: Image.Image, size: int, deeper: bool) -> tuple[np.ndarray, bool]:
    if image.has_transparency_data:
        drawing = image.convert("RGBA")
        paper = Image.new("RGBA", drawing.size, "white")
        image = Image.alpha_composite(paper, drawing)
    image = image.convert("RGB")
    square = image
    if image.size != (size, size):
        square = image.resize((size, size), Image.Resampling.BICUBIC)
    pixels = np.array(square, dtype=np.uint8)
    return pixels, _is_black(pixels, image, deeper)


def _is_black(pixels: np.ndarray, image: Image.Image, deeper: bool) -> bool:
    bound = BLACK_DEEPER if deeper else BLACK_8_BIT
    if pixels.max() > bound:
        return False
    # Resizing may have removed a few bright pixels.
    brightest = int(np.max(image.getextrema()))
    return 0 < brightest <= bound


def _image_of_array(array: np.ndarray) -> Image.Image:
    """Turn an array into a picture, by one rule for each dtype."""
    is_picture = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 2, 3, 4))
    if not is_picture or array.size == 0:
        raise ValueError(
            f"an array of shape {array.shape} is not a picture; pass "
            "(height, width) or (height, width, channels) with 1 to 4 channels."
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype == bool:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype == np.uint16:
        array = (array / 257).round().astype(np.uint8)
    elif array.dtype.kind == "f":
        if np.isnan(array).any():
            raise ValueError("the array holds NaN; fill it or drop the row.")
        if array.min() < 0 or array.max() > 1:
            raise ValueError(
                f"a float array must hold values from 0 to 1, this one "
                f"has {array.min():.4g} to {array.max():.4g}; scale it or pass uint8."
            )
        array = (array * 255).round().astype(np.uint8)
    elif array.dtype.kind in "iu":
        if array.min() < 0 or array.max() > 255:
            raise ValueError(
                f"an array of dtype {array.dtype} is not a picture with "
                f"values from {array.min()} to {array.max()}; pass uint8 (0 to 255), "
                "uint16 (0 to 65535) or floats (0 to 1)."
            )
        array = array.astype(np.uint8)
    else:
        raise ValueError(
            f"an array of dtype {array.dtype} is not a picture; pass "
            "uint8 (0 to 255), uint16 (0 to 65535) or floats (0 to 1)."
        )
    return Image.fromarray(np.ascontiguousarray(array))
