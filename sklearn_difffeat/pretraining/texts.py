"""Texts packed into rows of one length, and which of their words are hidden."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sklearn_difffeat.pretraining.text_corpus import SHARES, read_texts

MAX_TOKENS = 48
ROW_TOKENS = 96


@dataclass(frozen=True)
class Packed:
    """Texts one after the other in rows of one length.

    Attributes
    ----------
    ids, position : Tensor of shape (n_rows, row_tokens)
        Tokens, and their places in their text.
    text : Tensor of shape (n_rows, row_tokens)
        Number of the text among those of the batch; -1 for padding.
    rows : Tensor of shape (n_texts,)
        Where the texts lie in the corpus.
    """

    ids: torch.Tensor
    position: torch.Tensor
    text: torch.Tensor
    rows: torch.Tensor

    def attention(self) -> torch.Tensor:
        """Return bool (n_rows, 1, row_tokens, row_tokens): none sees another text."""
        return self.text[:, None, :, None] == self.text[:, None, None, :]

    def take(self, chosen: torch.Tensor) -> Packed:
        """Return some of the rows; the texts keep their numbers."""
        kept = self.ids[chosen], self.position[chosen], self.text[chosen]
        return Packed(*kept, self.rows)

    def mean(self, hidden: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
        """Return the mean of the counted tokens of every text, (n_texts, width)."""
        place = self.text[counted].to(hidden.device)
        values = hidden[counted.to(hidden.device)]
        sums = values.new_zeros(len(self.rows), hidden.shape[-1])
        counts = values.new_zeros(len(self.rows))
        sums = sums.index_add(0, place, values)
        counts = counts.index_add(0, place, torch.ones_like(values[:, 0]))
        return sums / counts.clamp(min=1).unsqueeze(1)


class Texts:
    """Draws packed batches of token ids, sources mixed by their shares."""

    def __init__(self, corpus: Path, tokenizer: Any) -> None:
        records = read_texts(corpus)
        encoded = tokenizer(
            [record["text"] for record in records],
            truncation=True,
            max_length=MAX_TOKENS,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        self.ids = [np.array(row, dtype=np.int64) for row in encoded]
        self.pad = tokenizer.pad_token_id
        sources = np.array([record["source"] for record in records])
        pools = {name: np.flatnonzero(sources == name) for name in SHARES}
        self.pools = {name: pool for name, pool in pools.items() if len(pool)}

    def counts(self, n_pieces: int) -> torch.Tensor:
        """Return how often each piece is in the corpus."""
        ids = torch.from_numpy(np.concatenate(self.ids))
        return torch.bincount(ids, minlength=n_pieces).float()

    def batch(self, n_rows: int, generator: torch.Generator) -> Packed:
        """Return ``n_rows`` rows of ``ROW_TOKENS``, each filled while texts fit."""
        seed = int(torch.randint(2**31, (1,), generator=generator))
        random = np.random.default_rng(seed)
        shares = np.array([SHARES[name] for name in self.pools])
        shape = (n_rows, ROW_TOKENS)
        ids, position = np.full(shape, self.pad), np.zeros(shape, dtype=np.int64)
        text = np.full(shape, -1)
        rows: list[int] = []
        row, filled = 0, 0
        while True:
            name = random.choice(list(self.pools), p=shares / shares.sum())
            chosen = int(random.choice(self.pools[name]))
            length = len(self.ids[chosen])
            if filled + length > ROW_TOKENS:
                row, filled = row + 1, 0
            if row == n_rows:
                break
            span = row, slice(filled, filled + length)
            ids[span], position[span] = self.ids[chosen], np.arange(length)
            text[span] = len(rows)
            rows.append(chosen)
            filled += length
        parts = (ids, position, text, np.array(rows))
        return Packed(*map(torch.from_numpy, parts))


def hide_words(
    ids: torch.Tensor,
    rate: torch.Tensor,
    continues: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Return which tokens are hidden: whole words, at the rate of each token's text.

    Parameters
    ----------
    ids : Tensor of shape (n_rows, row_tokens)
    rate : Tensor of shape (n_rows, row_tokens)
    continues : bool Tensor of shape (n_pieces,)
        Whether a piece goes on with the word of the piece before.
    generator : torch.Generator
    """
    draws = torch.rand(ids.shape, generator=generator)
    places = torch.arange(ids.shape[1]).expand_as(ids)
    first = places.masked_fill(continues[ids], 0).cummax(1).values
    return draws.gather(1, first) < rate
