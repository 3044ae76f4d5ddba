"""One pass over one batch: prepared inputs to pooled hidden states, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from sklearn_difffeat.backbones._base import (
    Backbone,
    ImageBackbone,
    TextBackbone,
    Tokens,
)
from sklearn_difffeat.backbones._surroundings import plain_torch
from sklearn_difffeat.extraction._noise import gaussian_noise, hide_tokens
from sklearn_difffeat.extraction._pass import hooked_pass
from sklearn_difffeat.extraction._plan import Plan
from sklearn_difffeat.extraction._pooling import pool_image_tokens, pool_text_tokens


@torch.inference_mode()
@plain_torch()
def encode_pixels(backbone: ImageBackbone, pixels: np.ndarray) -> torch.Tensor:
    """Turn pixels (n, size, size, 3), uint8, into clean float32 latents."""
    scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    return backbone.encode(scaled)


@torch.inference_mode()
@plain_torch()
def run_pass(
    backbone: Backbone,
    inputs: torch.Tensor | Tokens,
    plan: Plan,
    timestep: int,
    draw: int,
    blocks: Sequence[int],
) -> dict[int, np.ndarray]:
    """Run the model once over a batch, down to the deepest of the blocks.

    Parameters
    ----------
    backbone : Backbone
    inputs : torch.Tensor or Tokens
        Clean latents of pictures, or tokenized texts.
    plan : Plan
        Gives the seed, the pooling and the prompt.
    timestep, draw : int
    blocks : sequence of int

    Returns
    -------
    dict of int to ndarray
        By block, (n, plan.n_pooled(width of the block)), float32.
    """
    if isinstance(backbone, ImageBackbone):
        assert isinstance(inputs, torch.Tensor)
        pooled = _image_pass(backbone, inputs, plan, timestep, draw, blocks)
    else:
        assert isinstance(backbone, TextBackbone) and isinstance(inputs, Tokens)
        pooled = _text_pass(backbone, inputs, plan, timestep, draw, blocks)
    return {block: values.float().cpu().numpy() for block, values in pooled.items()}


def _image_pass(
    backbone: ImageBackbone,
    latents: torch.Tensor,
    plan: Plan,
    timestep: int,
    draw: int,
    blocks: Sequence[int],
) -> dict[int, torch.Tensor]:
    noisy = latents
    if timestep:
        noise = gaussian_noise(plan.seed, draw, tuple(latents.shape[1:]))
        noise = noise.to(latents).expand_as(latents)
        noisy = backbone.add_noise(latents, noise, timestep)
    return hooked_pass(
        backbone,
        blocks,
        run=lambda: backbone.run(noisy, timestep, plan.prompt),
        pool=lambda hidden: pool_image_tokens(hidden, plan.pooling),
    )


def _text_pass(
    backbone: TextBackbone,
    tokens: Tokens,
    plan: Plan,
    timestep: int,
    draw: int,
    blocks: Sequence[int],
) -> dict[int, torch.Tensor]:
    if backbone.hides_padding:
        return _padded_text_pass(backbone, tokens, plan, timestep, draw, blocks)
    parts = tokens.by_length()
    passes = [
        _padded_text_pass(backbone, part, plan, timestep, draw, blocks)
        for _, part in parts
    ]
    order = torch.cat([rows for rows, _ in parts]).argsort().to(backbone.device)
    return {
        block: torch.cat([pooled[block] for pooled in passes])[order]
        for block in passes[0]
    }


def _padded_text_pass(
    backbone: TextBackbone,
    tokens: Tokens,
    plan: Plan,
    timestep: int,
    draw: int,
    blocks: Sequence[int],
) -> dict[int, torch.Tensor]:
    rate = timestep / backbone.info.n_timesteps
    hidden_tokens = hide_tokens(tokens.real, tokens.keys, rate, plan.seed, draw)
    ids = tokens.ids.masked_fill(
        hidden_tokens.to(backbone.device), backbone.mask_token_id
    )
    masked = replace(tokens, ids=ids)
    real, attention = tokens.real.to(backbone.device), tokens.attention
    return hooked_pass(
        backbone,
        blocks,
        run=lambda: backbone.run(masked, timestep),
        pool=lambda hidden: pool_text_tokens(
            hidden, real, attention, str(plan.pooling)
        ),
    )
