"""One pass through a backbone: catch block outputs, stop at the deepest one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch

from sklearn_difffeat.backbones import Backbone


class _DeepestBlockReached(Exception):
    """Ends a forward pass from inside a hook."""


def hooked_pass(
    backbone: Backbone,
    blocks: Iterable[int],
    *,
    run: Callable[[], Any],
    pool: Callable[[torch.Tensor], torch.Tensor],
) -> dict[int, torch.Tensor]:
    """Run the model once and return the pooled states of the blocks asked for.

    Parameters
    ----------
    backbone : Backbone
    blocks : iterable of int
        Block numbers; the modules behind the deepest one do not run.
    run : callable
        Starts the forward pass.
    pool : callable
        Pools hidden states (n, tokens, width) as soon as their block has run, so that
        one block at a time is held unpooled.

    Returns
    -------
    dict of int to torch.Tensor
        What ``pool`` returned, by block; NaN for rows that reach the end of float16.
    """
    wanted = set(blocks)
    deepest = max(wanted)
    caught: dict[int, torch.Tensor] = {}

    def catch_as(block: int) -> Callable[..., None]:
        def catch(module: torch.nn.Module, args: Any, output: Any) -> None:
            hidden = backbone.hidden_states(output)
            caught[block] = pool(hidden)
            if hidden.dtype == torch.float16:
                caught[block].masked_fill_(_is_saturated(hidden), math.nan)
            if block == deepest:
                raise _DeepestBlockReached

        return catch

    with backbone.lock, ExitStack() as hooks:
        for block in wanted:
            handle = backbone.stages[block].register_forward_hook(catch_as(block))
            hooks.callback(handle.remove)
        try:
            run()
        except _DeepestBlockReached:
            return caught
    raise RuntimeError(
        f"block {deepest} of backbone {backbone.info.name!r} did not run; "
        "its family lists a module that the model does not call."
    )


def _is_saturated(hidden: torch.Tensor) -> torch.Tensor:
    """Return which rows (n, 1) of float16 states have values at the end of float16.

    Models of diffusers clip some states to its largest number instead of overflowing,
    and pooling would hide a single token that does.
    """
    largest = hidden.flatten(1).abs().amax(dim=1, keepdim=True)
    return ~(largest < torch.finfo(torch.float16).max)
