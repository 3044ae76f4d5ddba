"""One small file of a packed corpus, for a machine with an accelerator elsewhere.

Pictures lie side by side on sheets, since the headers of 57,000 files would weigh more
than their pixels. Sheets are lossy; the digests stay those of the pixels before.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

KINDS = ("drawings", "photos")
# WebP takes at most 16,383 pixels a side.
SHEET = 4096


def bundle(corpus: str | Path, path: str | Path, *, quality: int = 80) -> Path:
    """Write pictures and digests of a corpus into one zip file.

    Parameters
    ----------
    corpus : path
        Folder that ``pack`` wrote.
    path : path
    quality : int, default=80
        Of the WebP sheets.

    Returns
    -------
    Path
    """
    folder, path = Path(corpus), Path(path)
    with (
        np.load(folder / "images.npz") as images,
        zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive,
    ):
        for kind in KINDS:
            for number, sheet in enumerate(_sheets(images[kind])):
                buffer = io.BytesIO()
                Image.fromarray(sheet).save(buffer, "WEBP", quality=quality)
                archive.writestr(f"{kind}/{number:03d}.webp", buffer.getvalue())
        digests = [bytes.fromhex(digest) for digest in images["digests"].tolist()]
        small = {
            "digests": np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32),
            "drawing_source": images["drawing_source"],
            **{f"{kind}_shape": np.array(images[kind].shape) for kind in KINDS},
        }
        for name, value in small.items():
            buffer = io.BytesIO()
            np.save(buffer, value)
            archive.writestr(f"{name}.npy", buffer.getvalue())
    return path


def unbundle(path: str | Path, corpus: str | Path) -> Path:
    """Write ``images.npz`` of a bundle into a folder."""
    folder = Path(corpus)
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path) as archive:

        def array(name: str) -> np.ndarray:
            content = io.BytesIO(archive.read(f"{name}.npy"))
            return np.load(content, allow_pickle=False)

        names = sorted(archive.namelist())
        pictures = {}
        for kind in KINDS:
            sheets = [
                np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))
                for name in names
                if name.startswith(f"{kind}/")
            ]
            n, side, _, _ = array(f"{kind}_shape")
            pictures[kind] = np.concatenate([_cut(sheet, side) for sheet in sheets])[:n]
        digests = [bytes(row).hex() for row in array("digests")]
        np.savez(
            folder / "images.npz",
            allow_pickle=False,
            drawing_source=array("drawing_source"),
            digests=np.array(digests),
            **pictures,
        )
    return folder


def _sheets(pictures: np.ndarray) -> Iterator[np.ndarray]:
    """Yield uint8 sheets of square pictures, the last one filled up with white."""
    side = pictures.shape[1]
    across = SHEET // side
    for start in range(0, len(pictures), across**2):
        some = pictures[start : start + across**2]
        down = -(-len(some) // across)
        sheet = np.full((down * across, side, side, 3), 255, dtype=np.uint8)
        sheet[: len(some)] = some
        rows = sheet.reshape(down, across, side, side, 3).swapaxes(1, 2)
        yield np.ascontiguousarray(rows.reshape(down * side, across * side, 3))


def _cut(sheet: np.ndarray, side: int) -> np.ndarray:
    """Return the pictures of a sheet, (n, side, side, 3)."""
    down, across = (length // side for length in sheet.shape[:2])
    cells = sheet.reshape(down, side, across, side, 3).swapaxes(1, 2)
    return cells.reshape(-1, side, side, 3)
