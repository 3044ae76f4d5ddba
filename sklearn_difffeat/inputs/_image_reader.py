"""Image cells to squares of pixels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sklearn_difffeat._process import absolute
from sklearn_difffeat.inputs._cells import Cells, all_strings
from sklearn_difffeat.inputs._decoding import decode_seen
from sklearn_difffeat.inputs._image_cells import (
    check_image_cell,
    check_path,
    digest_image,
    path_of,
    read_image,
)
from sklearn_difffeat.inputs._pillow import PillowState
from sklearn_difffeat.inputs._reader import Contents, Prepared, Reader

# Bytes of files that a window of cells may keep; further files are decoded at once.
HELD_BYTES = 8 * 2**20


@dataclass(frozen=True)
class ImageReader(Reader):
    """Cells to squares of pixels of a size.

    Attributes
    ----------
    side : int
    pillow : PillowState, optional
        Set in a worker while it reads.
    """

    side: int
    pillow: PillowState = field(default_factory=PillowState)
    window = 16
    takes_arrays = True
    check_cell = staticmethod(check_image_cell)
    check_file = staticmethod(check_path)

    @staticmethod
    def are_plainly_good(cells: Cells) -> bool:
        return isinstance(cells, np.ndarray) or all_strings(cells)

    @property
    def settings(self) -> dict[str, Any]:
        return {"image_size": self.side}

    def size(self, cell: Any) -> int:
        return self.side

    def read(self, cells: Sequence[Any]) -> Contents:
        digests: list[bytes] = []
        values: list[tuple[Any, str]] = []
        errors: dict[int, Exception] = {}
        n_held = 0
        for at, cell in enumerate(cells):
            try:
                value, shown = read_image(cell)
                digest = digest_image(value)
                if isinstance(value, bytes) and value is not cell:
                    n_held += len(value)
                    if n_held > HELD_BYTES:
                        n_held -= len(value)
                        value = _Decoded(*decode_seen(value, shown, self.side))
            except (OSError, ValueError, TypeError) as error:
                digest, value, shown = b"", None, ""
                errors[at] = error
            digests.append(digest)
            values.append((value, shown))
        return Contents(digests, values, errors)

    def prepare(self, backbone: Any, contents: Contents) -> Prepared:
        count = len(contents.values)
        pixels = np.zeros((count, self.side, self.side, 3), dtype=np.uint8)
        black = np.zeros(count, dtype=bool)
        errors: dict[int, Exception] = {}
        for at, (value, shown) in enumerate(contents.values):
            try:
                if at in contents.errors:
                    raise contents.errors[at]
                if not isinstance(value, _Decoded):
                    value = _Decoded(*decode_seen(value, shown, self.side))
                pixels[at], black[at] = value
            except (OSError, ValueError, TypeError) as error:
                errors[at] = error
        return Prepared(pixels, black, errors)

    def portable(self, cell: Any) -> Any:
        path = path_of(cell)
        if path is not None:
            return absolute(path)
        return bytes(cell) if isinstance(cell, memoryview) else cell

    def carried(self, cell: Any) -> Any:
        path = path_of(cell)
        if path is None:
            return self.portable(cell)
        # A file that cannot be read here is an error there, as usual.
        with suppress(OSError, ValueError):
            return {"bytes": Path(absolute(path)).read_bytes(), "path": path}
        return absolute(path)

    def load(self, cell: Any) -> int:
        path = path_of(cell)
        if path is not None:
            with suppress(OSError, ValueError):
                return os.stat(absolute(path)).st_size
        return 0

    def for_workers(self) -> ImageReader:
        return replace(self, pillow=PillowState.here())

    def surroundings(self) -> AbstractContextManager[None]:
        return self.pillow.applied()


class _Decoded(NamedTuple):
    pixels: np.ndarray
    black: bool
