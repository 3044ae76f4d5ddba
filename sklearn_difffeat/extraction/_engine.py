"""From model inputs to the rows of the feature matrix, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch

from sklearn_difffeat.backbones._base import ImageBackbone, TextBackbone, Tokens
from sklearn_difffeat.extraction._noise import gaussian_noise, hide_tokens
from sklearn_difffeat.extraction._pass import hooked_pass
from sklearn_difffeat.extraction._plan import Plan
from sklearn_difffeat.extraction._pooling import pool_image_tokens, pool_text_tokens

Pooled = dict[tuple[int, int], torch.Tensor]


def _draws(plan: Plan, timestep: int) -> range:
    """Noise draws of a timestep: a clean input has nothing to average."""
    return range(plan.n_draws if timestep else 1)


def _collect(
    plan: Plan, pooled_of: Callable[[int, int], dict[int, torch.Tensor]]
) -> np.ndarray:
    """Average the draws of each timestep and lay the columns out as the plan says."""
    means: Pooled = {}
    for timestep in plan.timesteps:
        draws = _draws(plan, timestep)
        for draw in draws:
            for block, values in pooled_of(timestep, draw).items():
                share = values.float() / len(draws)
                key = (block, timestep)
                means[key] = means[key] + share if key in means else share
    columns = [means[b, t] for b in plan.blocks for t in plan.timesteps]
    return torch.cat(columns, dim=1).cpu().numpy()


@torch.inference_mode()
def extract_image_features(
    backbone: ImageBackbone, pixels: np.ndarray, plan: Plan
) -> np.ndarray:
    """Extract one batch of pictures.

    Parameters
    ----------
    backbone : ImageBackbone
    pixels : ndarray of shape (n, size, size, 3), uint8
    plan : Plan

    Returns
    -------
    ndarray of shape (n, plan.n_features(width)), float32
    """
    scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = backbone.encode(scaled)

    def pooled_of(timestep: int, draw: int) -> dict[int, torch.Tensor]:
        noisy = latents
        if timestep:
            noise = gaussian_noise(plan.seed, draw, tuple(latents.shape[1:]))
            noise = noise.to(latents).expand_as(latents)
            noisy = backbone.add_noise(latents, noise, timestep)
        hidden = hooked_pass(
            backbone, plan.blocks, lambda: backbone.run(noisy, timestep)
        )
        return {b: pool_image_tokens(h, plan.pooling) for b, h in hidden.items()}

    return _collect(plan, pooled_of)


@torch.inference_mode()
def extract_text_features(
    backbone: TextBackbone, tokens: Tokens, plan: Plan
) -> np.ndarray:
    """Extract one batch of tokenized texts; float32 (n, plan.n_features(width))."""
    n_timesteps = backbone.info.n_timesteps
    real = tokens.real.to(backbone.device)

    def pooled_of(timestep: int, draw: int) -> dict[int, torch.Tensor]:
        hidden_tokens = hide_tokens(
            tokens.real, timestep / n_timesteps, plan.seed, draw
        ).to(backbone.device)
        ids = tokens.ids.masked_fill(hidden_tokens, backbone.mask_token_id)
        masked = replace(tokens, ids=ids)
        states = hooked_pass(backbone, plan.blocks, lambda: backbone.run(masked))
        pooling = str(plan.pooling)
        return {
            block: pool_text_tokens(state, real, tokens.attention, pooling)
            for block, state in states.items()
        }

    return _collect(plan, pooled_of)


def _is_out_of_memory(error: Exception) -> bool:
    """Whether Python, CUDA or the CPU allocator (on Windows, Linux) ran short."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    words = ("not enough memory", "can't allocate memory", "out of memory")
    return any(text in str(error) for text in words)


def split_on_out_of_memory(
    extract: Callable[[slice], np.ndarray], batch: slice
) -> Iterator[tuple[slice, np.ndarray]]:
    """Extract a batch; where memory runs out, halve it and try again.

    Yields
    ------
    (slice, ndarray)
        Parts of the batch, in order, and their features.

    Raises
    ------
    MemoryError or RuntimeError
        When a single row does not fit; the error is that of the extraction.
    """
    try:
        yield batch, extract(batch)
        return
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error) or batch.stop - batch.start == 1:
            raise
    # Outside the handler: the traceback would keep the failed batch's tensors alive.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = (batch.start + batch.stop) // 2
    yield from split_on_out_of_memory(extract, slice(batch.start, middle))
    yield from split_on_out_of_memory(extract, slice(middle, batch.stop))
