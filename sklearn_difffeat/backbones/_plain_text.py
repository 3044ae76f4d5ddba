"""A tokenizer of transformers that reads plain text, and only as much as it needs."""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

# Characters of a text that are read for each token allowed, before more are.
CHARACTERS_PER_TOKEN = 32
# A part of a text has to be longer than allowed by this many tokens, or words: merges
# and added tokens near the cut could differ from those of the whole text.
MARGIN = 64
# How far before the length asked for a part may be cut.
WINDOW = 4096
# What a tokenizer of transformers is asked for, of a text and of a batch.
CUT = {
    "truncation": True,
    "return_attention_mask": True,
    "return_special_tokens_mask": True,
}
PADDED = {
    "padding": True,
    "padding_side": "right",
    "return_attention_mask": True,
    "return_tensors": "pt",
}


class Encoded(NamedTuple):
    """Token ids, which of them to attend to and which are text, (n, length) each.

    ``truncated`` are the positions of the texts that were cut.
    """

    ids: torch.Tensor
    attention: torch.Tensor
    real: torch.Tensor
    truncated: list[int]


class PlainTextTokenizer:
    """Reads texts in which no control token can be written.

    What looks like a control token (``[SEP]``, ``<mask>``) is read as the characters
    that it is. Where the vocabulary has it as a piece, it is an unknown word. Tokens
    that were added to the vocabulary without being special stay tokens.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
    mask_token_id : int
        The token that hides others; not always one of the tokenizer's.

    Attributes
    ----------
    lock : threading.Lock
        Fast tokenizers set truncation and padding on themselves at each call.
    """

    def __init__(self, tokenizer: Any, mask_token_id: int) -> None:
        self.tokenizer = tokenizer
        self.mask_token_id = mask_token_id
        self.lock = threading.Lock()
        added = tokenizer.added_tokens_decoder.get(mask_token_id)
        if tokenizer.is_fast and added is not None and not added.special:
            # Only special tokens can be ignored.
            tokenizer.add_special_tokens({"mask_token": added.content})
        # Tokens that no text may contain; the token for unknown words is allowed.
        self.control_ids = self._find_control_ids()
        # Added tokens that are not control tokens, and a pattern that finds them in a
        # text.
        self._added = self._find_added()

    @property
    def n_special(self) -> int:
        """Number of tokens that are put around a text."""
        return self.tokenizer.num_special_tokens_to_add()

    def _find_control_ids(self) -> list[int]:
        added = self.tokenizer.added_tokens_decoder.items()
        ids = {i for i, token in added if token.special}
        ids |= {*self.tokenizer.all_special_ids, self.mask_token_id}
        ids.add(self.tokenizer.pad_token_id)
        return sorted(ids - {None, self.tokenizer.unk_token_id})

    def encode(self, texts: Sequence[str], max_length: int) -> Encoded:
        """Cut texts into at most ``max_length`` tokens, and pad on the right."""
        with self.lock:
            parts = [self._enough_of(text, max_length) for text in texts]
            if self.tokenizer.is_fast:
                batch, truncated = self._encode_fast(parts, max_length)
            else:
                batch, truncated = self._encode_slow(parts, max_length)
        ids, attention = batch["input_ids"].long(), batch["attention_mask"].long()
        real = ~batch["special_tokens_mask"].bool() & attention.bool()
        return Encoded(self._without_control(ids, real), attention, real, truncated)

    def _encode_fast(self, texts: list[str], max_length: int) -> tuple[Any, list[int]]:
        options: dict[str, Any] = {"max_length": max_length, **CUT, **PADDED}
        batch = self.tokenizer(texts, split_special_tokens=True, **options)
        rows = enumerate(batch.encodings)
        return batch, [i for i, row in rows if row.overflowing]

    def _encode_slow(self, texts: list[str], max_length: int) -> tuple[Any, list[int]]:
        pieces = [self._pieces(text) for text in texts]
        options: dict[str, Any] = {"max_length": max_length, "verbose": False, **CUT}
        rows = [self.tokenizer.prepare_for_model(ids, **options) for ids in pieces]
        columns = {key: [row[key] for row in rows] for key in rows[0]}
        batch = self.tokenizer.pad(columns, **PADDED)
        room = max_length - self.n_special
        return batch, [i for i, ids in enumerate(pieces) if len(ids) > room]

    def _find_added(self) -> tuple[set[str], re.Pattern[str]]:
        control = set(self.control_ids)
        added = [
            token
            for i, token in self.tokenizer.added_tokens_decoder.items()
            if i not in control and not token.special
        ]
        added.sort(key=lambda token: len(token.content), reverse=True)
        patterns = []
        for token in added:
            pattern = f"({re.escape(token.content)})"
            if token.single_word:
                pattern = rf"(?<![^ ]){pattern}(?![^ ])"
            before, after = r"\s*" * token.lstrip, r"\s*" * token.rstrip
            patterns.append(f"{before}{pattern}{after}")
        return {token.content for token in added}, re.compile("|".join(patterns))

    def _pieces(self, text: str) -> list[int]:
        """Return a text's tokens by a tokenizer written in Python.

        Those can ignore all of the tokens that were added, or none.
        """
        contents, pattern = self._added
        parts = pattern.split(text) if contents else [text]
        tokens: list[str] = []
        for part in filter(None, parts):
            if part in contents:
                tokens.append(part)
            else:
                tokens += self.tokenizer.tokenize(part, split_special_tokens=True)
        return self.tokenizer.convert_tokens_to_ids(tokens)

    def _without_control(self, ids: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Make control tokens that the vocabulary has as pieces unknown words."""
        written = real & torch.isin(ids, torch.tensor(self.control_ids))
        if not written.any():
            return ids
        unknown = self.tokenizer.unk_token_id
        if unknown is None:
            token = self.tokenizer.convert_ids_to_tokens(int(ids[written][0]))
            raise ValueError(
                f"a text of X contains {token!r}, which the backbone's tokenizer can "
                "only read as a control token; remove it from the text."
            )
        return ids.masked_fill(written, unknown)

    def _enough_of(self, text: str, max_length: int) -> str:
        """Return a part of a text that is sure to begin with the same tokens."""
        length = CHARACTERS_PER_TOKEN * max_length
        if self.tokenizer.truncation_side != "right":
            return text
        while len(text) > length:
            end, at_space = _find_cut(text, length)
            if end and self._is_enough(text[:end], max_length, at_space):
                return text[:end]
            length *= 4
        return text

    def _is_enough(self, part: str, max_length: int, at_space: bool) -> bool:
        if not self.tokenizer.is_fast:
            return at_space and len(self._pieces(part)) >= max_length + MARGIN
        (row,) = self.tokenizer(
            [part], add_special_tokens=False, split_special_tokens=True, verbose=False
        ).encodings
        if at_space or len(row) <= max_length:
            return len(row) >= max_length + MARGIN
        # Each word is cut into tokens by itself, but the last word may be incomplete.
        return row.word_ids[-1] - row.word_ids[max_length] >= MARGIN


def _find_cut(text: str, length: int) -> tuple[int, bool]:
    """Return where to cut a text, at ``length`` or before, and if it is at a space.

    The best place is between a word and one space. No number is cut, which some
    tokenizers group from its end, and no sequence of combined characters. Where there
    is no such place, 0 is returned.
    """
    start = max(1, length - WINDOW)
    end = length
    while (end := text.rfind(" ", start, end)) > 0:
        after = text[end + 1 : end + 2]
        if not text[end - 1].isspace() and after and _kind(after) in "LNPS":
            return end, True
    for end in range(length, start, -1):
        if _kind(text[end - 1]) in "LPS" and _kind(text[end]) in "LPS":
            return end, False
    return 0, False


def _kind(character: str) -> str:
    return unicodedata.category(character)[0]
