"""Which features are requested: blocks, timesteps, draws and pooling, resolved."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

Resolved = TypeVar("Resolved")


@dataclass(frozen=True)
class Plan:
    """What to extract from a backbone, in the order of the output's columns.

    Columns run over blocks, within a block over timesteps, within a timestep over the
    poolings and their channels. ``norm`` is what pooled states are scaled to at the
    end; ``prompt`` is for models that are conditioned on a text.
    """

    blocks: tuple[int, ...]
    timesteps: tuple[int, ...]
    poolings: tuple[str | tuple[str, int], ...]
    n_draws: int
    seed: int
    norm: str | None = None
    prompt: str = ""

    @property
    def passes(self) -> list[tuple[int, int]]:
        """(timestep, draw) of each pass; a clean input has nothing to average."""
        return [(t, draw) for t in self.timesteps for draw in range(self.draws_of(t))]

    def draws_of(self, timestep: int) -> int:
        """How many draws are averaged at a timestep."""
        return self.n_draws if timestep else 1

    def n_pooled(self, width: int) -> int:
        """Number of channels of one hidden state after all poolings."""
        return sum(self.shares(width))

    def shares(self, width: int) -> list[int]:
        """Number of channels of one hidden state after each pooling."""
        cells = (1 if isinstance(one, str) else one[1] ** 2 for one in self.poolings)
        return [width * count for count in cells]

    def n_features(self, width_of: Callable[[int], int]) -> int:
        """Columns of the output, for the channels of each block."""
        widths = sum(self.n_pooled(width_of(block)) for block in self.blocks)
        return widths * len(self.timesteps)

    def feature_names(self, width_of: Callable[[int], int]) -> list[str]:
        """One name a column, ``b{block}_t{timestep}_{i}``."""
        return [
            f"b{block}_t{timestep}_{i}"
            for block in self.blocks
            for timestep in self.timesteps
            for i in range(self.n_pooled(width_of(block)))
        ]


def _as_list(name: str, value: Any) -> list[Any]:
    values = [value] if np.ndim(value) == 0 else list(value)
    if not values:
        raise ValueError(
            f"{name}={value!r} is an empty list; name at least one {name}."
        )
    return values


def _resolve(
    name: str, value: Any, named: dict[str, int], lowest: int, highest: int, where: str
) -> tuple[int, ...]:
    resolved = []
    for entry in _as_list(name, value):
        if isinstance(entry, str):
            if entry not in named:
                raise ValueError(
                    f"{name}={entry!r} is unknown; the names are {list(named)}."
                )
            resolved.append(named[entry])
            continue
        is_integer = isinstance(entry, numbers.Integral) and not isinstance(entry, bool)
        if not is_integer or not lowest <= entry <= highest:
            raise ValueError(
                f"{name}={entry!r} is outside {where}; choose an integer from "
                f"{lowest} to {highest}, or one of {list(named)}."
            )
        resolved.append(int(entry))
    return tuple(resolved)


def resolve_blocks(value: Any, n_blocks: int, backbone: str) -> tuple[int, ...]:
    """Turn names and negative indices into block numbers 0..n_blocks.

    Raises
    ------
    ValueError
        When a block does not exist or is asked for twice.
    """
    named = {"middle": (n_blocks + 1) // 2, "last": n_blocks}
    where = f"blocks 0 (token embeddings) to {n_blocks} of backbone {backbone!r}"
    found = _resolve("block", value, named, -n_blocks - 1, n_blocks, where)
    blocks = tuple(b if b >= 0 else n_blocks + 1 + b for b in found)
    return without_repeats("block", value, blocks)


def resolve_timesteps(value: Any, n_timesteps: int, backbone: str) -> tuple[int, ...]:
    """Turn names into timesteps 0..n_timesteps-1.

    Raises
    ------
    ValueError
        When a timestep does not exist or is asked for twice.
    """
    named = {"middle": n_timesteps // 2}
    last = n_timesteps - 1
    where = f"timesteps 0 (noise-free) to {last} of backbone {backbone!r}"
    found = _resolve("timestep", value, named, 0, last, where)
    return without_repeats("timestep", value, found)


def without_repeats(
    name: str, value: Any, found: tuple[Resolved, ...]
) -> tuple[Resolved, ...]:
    """Return what a parameter resolves to.

    Raises
    ------
    ValueError
        When something is asked for twice.
    """
    if len(set(found)) < len(found):
        raise ValueError(
            f"{name}={value!r} asks for the same {name} twice ({list(found)}); "
            "list each once."
        )
    return found
