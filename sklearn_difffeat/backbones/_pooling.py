"""Hidden states of many tokens to one vector."""

from __future__ import annotations

import math

import torch
from torch.nn import functional


def pool_image_tokens(
    hidden: torch.Tensor, pooling: str | tuple[str, int]
) -> torch.Tensor:
    """Pool (n, tokens, width), tokens being a square grid row by row.

    Parameters
    ----------
    hidden : torch.Tensor
    pooling : {"mean", "max"} or ("grid", k)
        Over all tokens, or the mean in each of k x k cells: (n, k * k * width).
    """
    hidden = hidden.float()
    if pooling == "mean":
        return hidden.mean(dim=1)
    if pooling == "max":
        return hidden.amax(dim=1)
    cells = int(pooling[1])
    side = math.isqrt(hidden.shape[1])
    grid = hidden.transpose(1, 2).unflatten(2, (side, side))
    return functional.adaptive_avg_pool2d(grid, cells).flatten(2).mT.flatten(1)


def pool_text_tokens(
    hidden: torch.Tensor, real: torch.Tensor, attention: torch.Tensor, pooling: str
) -> torch.Tensor:
    """Pool (n, tokens, width) over the real tokens of each text.

    A text without real tokens (an empty string) is pooled over its special ones.
    """
    hidden = hidden.float()
    chosen = torch.where(real.any(dim=1, keepdim=True), real, attention.bool())
    chosen = chosen.unsqueeze(-1)
    if pooling == "max":
        return hidden.masked_fill(~chosen, -math.inf).amax(dim=1)
    return (hidden * chosen).sum(dim=1) / chosen.sum(dim=1)
