"""What Pillow may open, and the process's switches that change how it opens files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from PIL import Image

# Pictures made of pixels. Pillow also opens formats that are programs or wrap other
# files (EPS, WMF, BUFR, GRIB, HDF5, MPEG), and starts Ghostscript for the first.
RASTER_FORMATS = (
    "AVIF", "BLP", "BMP", "CUR", "DCX", "DDS", "DIB", "FITS", "FLI", "FTEX", "GBR",
    "GIF", "ICNS", "ICO", "IM", "IMT", "JPEG", "JPEG2000", "MCIDAS", "MPO", "MSP",
    "PCD", "PCX", "PIXAR", "PNG", "PPM", "PSD", "QOI", "SGI", "SPIDER", "SUN", "TGA",
    "TIFF", "WEBP", "XBM", "XPM", "XVTHUMB",
)  # fmt: skip
# Switches in these modules act on every picture that is opened afterwards.
SWITCHES = (
    ("PIL.Image", "MAX_IMAGE_PIXELS"),
    ("PIL.ImageFile", "LOAD_TRUNCATED_IMAGES"),
    ("PIL.ImageFile", "MAXBLOCK"),
    ("PIL.GifImagePlugin", "LOADING_STRATEGY"),
    ("PIL.PngImagePlugin", "MAX_TEXT_CHUNK"),
    ("PIL.PngImagePlugin", "MAX_TEXT_MEMORY"),
    ("PIL.TiffImagePlugin", "READ_LIBTIFF"),
)


def allowed_formats() -> tuple[str, ...]:
    """Return the raster formats, and those of plug-ins that the user registered."""
    Image.init()
    allowed = {*RASTER_FORMATS, *_added(Image.OPEN)}
    # In Pillow's order: some formats are mistaken for others if they are tried first.
    return tuple(name for name in Image.ID if name in allowed)


def _added(registry: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of a registry of Pillow that are not from Pillow itself."""
    entries = dict(registry)
    return {
        name: entry
        for name, entry in entries.items()
        if not _module(entry).startswith("PIL.")
    }


def _module(entry: Any) -> str:
    # A format is registered as (factory, accept), a decoder as itself.
    function = entry[0] if isinstance(entry, tuple) else entry
    return str(getattr(function, "__module__", ""))


@dataclass(frozen=True)
class PillowState:
    """Pillow's switches and plug-ins in a process, to be set in another.

    Attributes
    ----------
    switches : dict of (str, str) to object
        Values by module and name.
    formats, decoders : dict of str to object
        What plug-ins have registered.
    """

    switches: dict[tuple[str, str], Any] = field(default_factory=dict)
    formats: dict[str, Any] = field(default_factory=dict)
    decoders: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def here(cls) -> PillowState:
        """Return this process's state."""
        Image.init()
        switches = {
            (module, name): getattr(sys.modules[module], name)
            for module, name in SWITCHES
            if hasattr(sys.modules.get(module), name)
        }
        return cls(switches, _added(Image.OPEN), _added(Image.DECODERS))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Set the state for a while; switches that already have it are not changed."""
        before = PillowState.here()
        if before == self:
            yield
            return
        self._set()
        try:
            yield
        finally:
            before._set()

    def _set(self) -> None:
        for (module, name), value in self.switches.items():
            setattr(import_module(module), name, value)
        for registry, mine in (
            (Image.OPEN, self.formats),
            (Image.DECODERS, self.decoders),
        ):
            for name in _added(registry).keys() - mine.keys():
                del registry[name]
                if registry is Image.OPEN:
                    Image.ID.remove(name)
            registry.update(mine)
        Image.ID.extend(name for name in self.formats if name not in Image.ID)
