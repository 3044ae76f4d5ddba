"""Noise as a function of (seed, draw, shape) alone, the same on every device."""

from __future__ import annotations

import numpy as np
import torch

MODULUS = 2**63


def _generator(seed: int, draw: int, what: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed % MODULUS, draw * 2 + what]))


def gaussian_noise(seed: int, draw: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Return one float32 noise tensor that every row and timestep shares."""
    values = _generator(seed, draw, 0).standard_normal(shape, dtype=np.float32)
    return torch.from_numpy(values)


def hide_tokens(real: torch.Tensor, rate: float, seed: int, draw: int) -> torch.Tensor:
    """Choose the tokens that a masking rate hides.

    The k-th real token of every text has one uniform number u_k and is hidden when
    u_k < rate: so masks are nested in the rate and blind to padding.

    Parameters
    ----------
    real : torch.Tensor
        Boolean (n, length), True for tokens that may be hidden.
    rate : float
        Share of the tokens to hide, in [0, 1].
    seed, draw : int

    Returns
    -------
    torch.Tensor
        Boolean (n, length).
    """
    position = real.long().cumsum(dim=1) - 1
    uniform = torch.from_numpy(_generator(seed, draw, 1).random(real.shape[1]))
    return real & (uniform[position.clamp(min=0)] < rate)
