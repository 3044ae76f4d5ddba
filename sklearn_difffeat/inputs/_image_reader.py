"""Image cells to squares of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sklearn_difffeat._process import absolute
from sklearn_difffeat.inputs._decoding import decode_seen
from sklearn_difffeat.inputs._image_cells import digest_image, path_of, read_image
from sklearn_difffeat.inputs._pillow import PillowState
from sklearn_difffeat.inputs._reader import Content, Prepared, Reader

if TYPE_CHECKING:
    from sklearn_difffeat.backbones import Backbone


# Bytes of files that a window of cells may hold; further ones are decoded at once.
HELD_BYTES = 8 * 2**20


@dataclass(frozen=True)
class ImageReader(Reader):
    """Cells to squares of pixels of a size.

    Attributes
    ----------
    side : int
    unreadable : {"error", "nan"}
        Whether a cell that cannot be read ends the call.
    pillow : PillowState, optional
        To be held by a worker while it reads.
    """

    side: int
    unreadable: str = "error"
    pillow: PillowState = field(default_factory=PillowState)
    window = 16

    @property
    def settings(self) -> dict[str, Any]:
        return {"image_size": self.side}

    def size(self, cell: Any) -> int:
        return self.side

    def read(self, cells: Sequence[Any], rows: Sequence[int]) -> list[Content]:
        contents = []
        n_held = 0
        for cell, row in zip(cells, rows, strict=True):
            try:
                value, shown = read_image(cell, row)
                digest = digest_image(value, row)
                if isinstance(value, bytes) and value is not cell:
                    n_held += len(value)
                    if n_held > HELD_BYTES:
                        n_held -= len(value)
                        value = _Decoded(*decode_seen(value, shown, self.side, row))
            except (OSError, ValueError) as error:
                contents.append(self._unreadable(error))
                continue
            contents.append(Content(digest, value, shown))
        return contents

    def _unreadable(self, error: Exception) -> Content:
        if self.unreadable == "error":
            raise error
        return Content(b"", None, error=error)

    def prepare(
        self, backbone: Backbone, contents: Sequence[Content], rows: Sequence[int]
    ) -> Prepared:
        count = len(contents)
        pixels = np.zeros((count, self.side, self.side, 3), dtype=np.uint8)
        black = np.zeros(count, dtype=bool)
        errors: dict[int, Exception] = {}
        for i, (content, row) in enumerate(zip(contents, rows, strict=True)):
            if content.error is not None:
                errors[i] = content.error
                continue
            value = content.value
            try:
                if not isinstance(value, _Decoded):
                    value = _Decoded(*decode_seen(value, content.name, self.side, row))
            except (OSError, ValueError) as error:
                errors[i] = error
                self._unreadable(error)
                continue
            pixels[i], black[i] = value
        return Prepared(pixels, black, np.ones(count, dtype=bool), errors)

    def portable(self, cell: Any) -> Any:
        path = path_of(cell)
        if path is not None:
            return absolute(path)
        return bytes(cell) if isinstance(cell, memoryview) else cell

    def for_workers(self) -> ImageReader:
        return replace(self, pillow=PillowState.here())

    def surroundings(self) -> AbstractContextManager[None]:
        return self.pillow.applied()


class _Decoded(NamedTuple):
    pixels: np.ndarray
    black: bool
