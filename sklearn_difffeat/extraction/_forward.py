"""One pass over one batch: prepared inputs to pooled hidden states, block by block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch

from sklearn_difffeat.backbones._base import Backbone
from sklearn_difffeat.backbones._surroundings import plain_torch
from sklearn_difffeat.extraction._plan import Plan


class _DeepestBlockReached(Exception):
    """Ends a forward pass from inside a hook."""


@torch.inference_mode()
@plain_torch()
def encode(backbone: Backbone, inputs: Any) -> Any:
    """Turn what a reader prepared into clean inputs, before noise."""
    return backbone.clean(inputs)


@torch.inference_mode()
@plain_torch()
def forward(
    backbone: Backbone,
    inputs: Any,
    plan: Plan,
    timestep: int,
    draw: int,
    blocks: Sequence[int],
) -> dict[int, np.ndarray]:
    """Run the model once over a batch, down to the deepest of the blocks.

    The modules after it do not run, and only one block at a time is in memory before it
    is pooled.

    Parameters
    ----------
    backbone : Backbone
    inputs : torch.Tensor or Tokens
        Clean latents of pictures, or tokenized texts.
    plan : Plan
        For the seed, the poolings and the prompt.
    timestep, draw : int
    blocks : sequence of int

    Returns
    -------
    dict of int to ndarray
        By block, (n, plan.n_pooled(width of the block)), float32; NaN for rows that
        reach the limit of float16.
    """
    deepest = max(blocks)
    pooled: dict[int, torch.Tensor] = {}

    def catch(block: int, module: torch.nn.Module, args: Any, output: Any) -> None:
        hidden = backbone.hidden_states(output)
        shares = [backbone.pool(hidden, noisy, pooling) for pooling in plan.poolings]
        pooled[block] = torch.cat(shares, dim=1)
        if hidden.dtype == torch.float16:
            pooled[block].masked_fill_(_is_saturated(hidden), math.nan)
        if block == deepest:
            raise _DeepestBlockReached

    parts = backbone.parts(inputs)
    found: dict[int, list[torch.Tensor]] = {block: [] for block in blocks}
    with backbone.lock, ExitStack() as hooks:
        for block in found:
            hook = backbone.stages[block].register_forward_hook(partial(catch, block))
            hooks.callback(hook.remove)
        for _, part in parts:
            noisy = backbone.noised(part, timestep, plan.seed, draw)
            try:
                backbone.run(noisy, timestep, plan.prompt)
            except _DeepestBlockReached:
                for block, values in pooled.items():
                    found[block].append(values)
                continue
            raise RuntimeError(
                f"block {deepest} of backbone {backbone.info.name!r} did not run; "
                "its family lists a module that the model does not call."
            )
    joined = {block: torch.cat(shares).float() for block, shares in found.items()}
    if len(parts) > 1:
        order = torch.cat([at for at, _ in parts]).argsort().to(backbone.device)
        joined = {block: values[order] for block, values in joined.items()}
    return {block: values.cpu().numpy() for block, values in joined.items()}


def _is_saturated(hidden: torch.Tensor) -> torch.Tensor:
    """Return which rows (n, 1) of float16 states have values at the limit of float16.

    Models of diffusers clip some states to its largest number instead of overflowing,
    and pooling would hide a single token that does.
    """
    largest = hidden.flatten(1).abs().amax(dim=1, keepdim=True)
    return ~(largest < torch.finfo(torch.float16).max)
