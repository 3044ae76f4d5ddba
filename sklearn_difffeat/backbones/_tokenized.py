"""Text backbones whose tokenizer is one of transformers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch

from sklearn_difffeat.backbones._base import BackboneInfo, TextBackbone, Tokens
from sklearn_difffeat.backbones._source import Source

# Masking rates that a masked diffusion model is asked for; timestep t hides t / 1000.
N_TIMESTEPS = 1000


def number(source: Source, config: dict[str, Any], *names: str) -> int:
    """Return the first entry of a configuration that has one of these names.

    Raises
    ------
    ValueError
        When there is none.
    """
    for name in names:
        if isinstance(config.get(name), int):
            return config[name]
    raise ValueError(
        f"backbone={source.name!r}: config.json lacks {names[0]!r}; download or save "
        "the model again."
    )


class TokenizedBackbone(TextBackbone):
    """Texts to tokens by a tokenizer of transformers."""

    def __init__(
        self, info: BackboneInfo, stages: Sequence[torch.nn.Module], tokenizer: Any
    ) -> None:
        super().__init__(info, stages)
        self.tokenizer = tokenizer
        # Fast tokenizers set truncation and padding on themselves at each call.
        self._tokenizer_lock = threading.Lock()

    @property
    def locks(self) -> list[Any]:
        return [*super().locks, self._tokenizer_lock]

    def tokenize(self, texts: Sequence[str], max_length: int) -> Tokens:
        n_special = self.tokenizer.num_special_tokens_to_add()
        if max_length <= n_special:
            raise ValueError(
                f"max_length={max_length} leaves no room for a word beside the "
                f"{n_special} special tokens; choose at least {n_special + 1}."
            )
        with self._tokenizer_lock:
            batch = self.tokenizer(
                list(texts),
                truncation=True,
                max_length=max_length,
                padding=True,
                padding_side="right",
                return_special_tokens_mask=True,
                return_tensors="pt",
            )
        ids, attention = batch["input_ids"].long(), batch["attention_mask"].long()
        real = ~batch["special_tokens_mask"].bool() & attention.bool()
        if batch.encodings is not None:
            rows = batch.encodings
            truncated = [i for i, row in enumerate(rows) if row.overflowing]
        else:
            truncated = self._find_truncated(texts, attention, max_length)
        ids, attention, real = self._fill_empty(ids, attention, real)
        return Tokens(ids.to(self.device), attention.to(self.device), real, truncated)

    def _find_truncated(
        self, texts: Sequence[str], attention: torch.Tensor, max_length: int
    ) -> list[int]:
        """Tell which texts were cut by a tokenizer that does not say so itself."""
        full = (attention.sum(dim=1) == max_length).nonzero().flatten().tolist()
        with self._tokenizer_lock:
            lengths = [
                len(self.tokenizer(texts[i], verbose=False)["input_ids"]) for i in full
            ]
        return [i for i, n in zip(full, lengths, strict=True) if n > max_length]

    def _fill_empty(
        self, ids: torch.Tensor, attention: torch.Tensor, real: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give a text without any token one of padding to attend to."""
        if not ids.shape[1]:
            ids, attention, real = (
                torch.zeros(len(ids), 1, dtype=one.dtype)
                for one in (ids, attention, real)
            )
        empty = ~attention.any(dim=1)
        ids[empty, 0] = self.tokenizer.pad_token_id
        attention[empty, 0] = 1
        return ids, attention, real

    def activation_bytes(self, size: int) -> int:
        return self._block_bytes(size)
