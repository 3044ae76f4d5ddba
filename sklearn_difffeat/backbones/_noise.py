"""Noise of pictures by their shape, masks of texts by their content; both by the seed.

The same on every device and platform, and in every batch.
"""

from __future__ import annotations

import numpy as np
import torch

MODULUS = 2**63
# SplitMix64 (Steele, Lea and Flood, 2014): the step between two states of a stream,
# and the two factors that turn a state into a number.
STEP = np.uint64(0x9E3779B97F4A7C15)
FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def gaussian_noise(seed: int, draw: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Return one float32 noise tensor that every row and timestep shares."""
    philox = np.random.Philox(key=[seed % MODULUS, draw * 2])
    values = np.random.Generator(philox).standard_normal(shape, dtype=np.float32)
    return torch.from_numpy(values)


def hide_tokens(
    real: torch.Tensor, keys: np.ndarray | None, rate: float, seed: int, draw: int
) -> torch.Tensor:
    """Choose the tokens that a masking rate hides.

    Every real token is hidden independently with probability ``rate``, as in the
    training of masked diffusion models: the k-th token of a text has one uniform number
    u_k and is hidden when u_k < rate. So a token that is hidden at one rate is hidden
    at each higher one, and padding and other texts make no difference.

    Parameters
    ----------
    real : torch.Tensor
        Boolean (n, length), True for tokens that may be hidden.
    keys : ndarray of shape (n, 2), uint64, or None
        Texts of one key have one mask; None is for a rate of 0.
    rate : float
        Share of the tokens to hide, in [0, 1].
    seed, draw : int

    Returns
    -------
    torch.Tensor
        Boolean (n, length).
    """
    if rate <= 0:
        return torch.zeros_like(real)
    if keys is None:
        raise ValueError(
            "tokens without keys cannot be masked, since each text draws its own mask; "
            "set Tokens.keys to text_keys(digests of the texts)."
        )
    position = real.long().cumsum(dim=1) - 1
    uniform = torch.from_numpy(_uniform(keys, seed, draw, real.shape[1]))
    return real & (uniform.gather(1, position.clamp(min=0)) < rate)


def _uniform(keys: np.ndarray, seed: int, draw: int, length: int) -> np.ndarray:
    """Return (n, length) numbers in [0, 1), each row a stream of its own."""
    stream = np.zeros(len(keys), dtype=np.uint64)
    for word in (*keys.T, np.uint64(seed % MODULUS), np.uint64(draw)):
        stream = _scramble((stream ^ word) + STEP)
    states = stream[:, None] + STEP * np.arange(1, length + 1, dtype=np.uint64)
    # The upper 53 bits are what a float64 holds.
    return (_scramble(states) >> np.uint64(11)) * 2.0**-53


def _scramble(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * FACTORS[0]
    state = (state ^ (state >> np.uint64(27))) * FACTORS[1]
    return state ^ (state >> np.uint64(31))
