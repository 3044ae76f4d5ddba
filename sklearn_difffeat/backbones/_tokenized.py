"""Text backbones whose tokenizer is one of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from sklearn_difffeat.backbones._base import TextBackbone, Tokens
from sklearn_difffeat.backbones._info import BackboneInfo
from sklearn_difffeat.backbones._plain_text import PlainTextTokenizer
from sklearn_difffeat.checkpoints._source import Source
from sklearn_difffeat.checkpoints._weights import size_in_mb

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


def describe_text(
    source: Source, n_blocks: int, width: int, n_positions: int
) -> BackboneInfo:
    """Describe a model in the layout of transformers, as for all text families."""
    config = source.read_json("config.json") or {}
    return BackboneInfo(
        name=source.name,
        family=(config.get("architectures") or [config["model_type"]])[0],
        modality="text",
        n_blocks=n_blocks,
        width=width,
        n_timesteps=N_TIMESTEPS,
        input_size=n_positions,
        input_step=1,
        license=source.license,
        size_mb=size_in_mb(source),
        fingerprint=source.fingerprint,
    )


class TokenizedBackbone(TextBackbone):
    """Texts to tokens by a tokenizer of transformers."""

    def __init__(
        self,
        info: BackboneInfo,
        stages: Sequence[torch.nn.Module],
        tokenizer: Any,
        mask_token_id: int,
    ) -> None:
        super().__init__(info, stages)
        self.tokenizer = tokenizer
        self.mask_token_id = mask_token_id
        self._plain_text = PlainTextTokenizer(tokenizer, mask_token_id)

    @property
    def locks(self) -> list[Any]:
        return [*super().locks, self._plain_text.lock]

    def tokenize(self, texts: Sequence[str], max_length: int) -> Tokens:
        n_special = self._plain_text.n_special
        if max_length <= n_special:
            raise ValueError(
                f"max_length={max_length} leaves no room for a word beside the "
                f"{n_special} special tokens; choose at least {n_special + 1}."
            )
        ids, attention, real, truncated = self._plain_text.encode(texts, max_length)
        ids, attention, real = self._fill_empty(ids, attention, real)
        return Tokens(ids.to(self.device), attention.to(self.device), real, truncated)

    def _fill_empty(
        self, ids: torch.Tensor, attention: torch.Tensor, real: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give a text without any token one padding token to attend to."""
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
