"""What block diffusion models of texts have in common (BD3-LM, arXiv 2503.09573).

Such a model writes a text block by block, each by masked diffusion. It was trained on
the masked text followed by the unmasked one: a masked token sees its own block as it is
masked, and the blocks before it unmasked. It is run in the same way here, and the
masked half is read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from sklearn_difffeat.backbones._base import Tokens
from sklearn_difffeat.backbones._remote import RemoteTextBackbone


class BlockDiffusionBackbone(RemoteTextBackbone):
    """Runs (masked, unmasked) texts, which are grouped by their length."""

    hides_padding = False

    @staticmethod
    def find_block_size(config: Any) -> int:
        """Return how many tokens a block has."""
        return config.block_size

    def noised(self, inputs: Tokens, timestep: int, seed: int, draw: int) -> Tokens:
        masked = super().noised(inputs, timestep, seed, draw)
        return replace(masked, ids=torch.cat([masked.ids, inputs.ids], dim=1))

    def hidden_states(self, output: Any) -> torch.Tensor:
        hidden = super().hidden_states(output)
        return hidden[:, : hidden.shape[1] // 2]

    def activation_bytes(self, size: int) -> int:
        return super().activation_bytes(2 * size)

    def attention(self, ids: torch.Tensor) -> torch.Tensor:
        """Return which of the 2 n tokens of a row see which, boolean (2 n, 2 n)."""
        size = self.find_block_size(self.model.config)
        block = torch.arange(ids.shape[1] // 2, device=ids.device) // size
        own, before = block[:, None] == block, block[:, None] > block
        masked = torch.cat([own, before], dim=1)
        unmasked = torch.cat([torch.zeros_like(own), own | before], dim=1)
        return torch.cat([masked, unmasked])

    def positions(self, ids: torch.Tensor) -> torch.Tensor:
        """Count the tokens of both halves, integer (n_rows, 2 n)."""
        count = torch.arange(ids.shape[1] // 2, device=ids.device).repeat(2)
        return count.expand(len(ids), -1)
