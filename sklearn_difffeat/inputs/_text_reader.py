"""Text cells to tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from sklearn_difffeat.inputs._cells import Cells, all_strings
from sklearn_difffeat.inputs._reader import Contents, Prepared, Reader
from sklearn_difffeat.store._chunk import DIGEST_BYTES

# Characters of a text whose digest is remembered.
SHORT = 256


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


# Cached, because a search asks for the same texts for every candidate and fold.
_digest_short = lru_cache(maxsize=2**17)(_digest)


@dataclass(frozen=True)
class TextReader(Reader):
    """Texts to tokens, at most a number of them."""

    max_length: int
    pads = True

    @staticmethod
    def check_cell(cell: Any) -> None:
        if not isinstance(cell, str):
            raise TypeError(
                f"a cell of type {type(cell).__name__} is not a text; pass str."
            )
        try:
            cell.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"the text is not valid Unicode ({error}); decode it again with "
                "errors='replace'."
            ) from error

    @staticmethod
    def are_plainly_good(cells: Cells) -> bool:
        return all_strings(cells) and all(map(str.isascii, cells))

    @property
    def settings(self) -> dict[str, Any]:
        return {"max_length": self.max_length}

    def size(self, cell: Any) -> int:
        # About three characters a token, and two special ones.
        return min(self.max_length, len(cell) // 3 + 2)

    def read(self, cells: Sequence[Any]) -> Contents:
        digests = [
            _digest_short(cell) if len(cell) <= SHORT else _digest(cell)
            for cell in cells
        ]
        return Contents(digests, cells)

    def prepare(self, backbone: Any, contents: Contents) -> Prepared:
        from sklearn_difffeat.backbones._surroundings import plain_torch

        texts = list(contents.values)
        with plain_torch():
            tokens = backbone.tokenize(texts, self.max_length)
        tokens.keys = text_keys(contents.digests)
        truncated = np.zeros(len(texts), dtype=bool)
        truncated[tokens.truncated] = True
        return Prepared(tokens, truncated)

    def order(self, cells: Cells) -> np.ndarray:
        # Texts of one length share a batch, so that little of it is padding.
        lengths = np.fromiter(map(len, cells), dtype=int, count=len(cells))
        return np.argsort(lengths, kind="stable")


def text_keys(digests: Sequence[bytes]) -> np.ndarray:
    """Return the numbers from which texts' masks are drawn, for digests of 16 bytes.

    Returns
    -------
    ndarray of shape (n, 2), uint64
    """
    words = np.frombuffer(b"".join(digests), dtype="<u8")
    return words.reshape(len(digests), 2).astype(np.uint64)
