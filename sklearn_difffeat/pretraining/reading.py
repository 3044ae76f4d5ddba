"""Where to read a backbone, by folds of training groups: block, timestep, pooling."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from sklearn_difffeat import (
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
    describe_backbone,
)
from sklearn_difffeat.pretraining.contest import (
    Contest,
    Settings,
    expected_warnings,
    frozen,
)

TRANSFORMERS: dict[str, Any] = {
    "image": ImageDiffusionFeatureTransformer,
    "text": TextDiffusionFeatureTransformer,
}
# How the maps of places are read. Convolutional features are read by their maximum:
# for dit-tiny's block 0 it is 0.02 better than the mean on folds of training groups.
MAP_POOLING = {"image": "max", "text": "mean"}
# Of every block; timestep 0 is noise-free.
TIMESTEPS = {
    "image": [0, 20, 50, 100, 200, 300, 500, 700, 900],
    "text": [0, 100, 200, 300, 400, 500, 600, 700, 800, 900],
}


def _embeddings(block: int, last: int) -> Settings:
    return {"block": sorted({0, block})}


def _halfway(block: int, last: int) -> Settings:
    return {"block": sorted({0, block // 2, block})}


def _two_below(block: int, last: int) -> Settings:
    return {"block": sorted({0, max(0, block - 2), block})}


def _spread(block: int, last: int) -> Settings:
    return {"block": sorted({0, last // 3, 2 * last // 3, last})}


# Changes to a place, each tried on all that was found good before it; a function of the
# best block and the last where blocks change. They come last: one becomes more.
POOLINGS: list[Settings] = [
    {"norm": "l2"},
    {"pooling": "mean"},
    {"pooling": "max"},
    {"pooling": ["mean", "max"]},
]
BLOCKS = [_embeddings, _halfway, _two_below, _spread]
# Several timesteps side by side, noise-free features among them.
TIMES: list[Settings] = [{"timestep": [0, 200]}, {"timestep": [0, 500]}]
# The mean of several draws, where there is noise.
DRAWS: list[Settings] = [{"n_draws": 4}]
PLACE_HEAD = {"C": 0.03}
# Wide features ask for a stronger penalty.
READING_GRID = {"C": [0.002, 0.006, 0.02]}

started = time.perf_counter()


def say(text: str) -> None:
    print(f"[{time.perf_counter() - started:5.0f} s] {text}", flush=True)


def read(
    transformer: Any, settings: Settings, cells: pd.Series, rows: np.ndarray
) -> np.ndarray:
    """Return the features of some rows, at their places among zeros.

    ``settings`` are the transformer's parameters.
    """
    with expected_warnings():
        found = (
            clone(transformer).set_params(**settings).fit_transform(cells.iloc[rows])
        )
    Z = np.zeros((len(cells), found.shape[1]), dtype=np.float32)
    Z[rows] = found
    return Z


def map_places(
    contest: Contest,
    transformer: Any,
    cells: pd.Series,
    kind: str,
    timesteps: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Return the mAP on training groups of every block (rows) and timestep."""
    timesteps = timesteps or TIMESTEPS[kind]
    info = describe_backbone(transformer.backbone)
    blocks = list(range(info.n_blocks + 1))
    ends = np.cumsum([info.width_of(block) for block in blocks])[:-1]
    table = pd.DataFrame(
        np.nan,
        pd.Index(blocks, name="block"),
        pd.Index(timesteps, name="timestep"),
    )
    for timestep in timesteps:
        place = {
            "block": blocks, "timestep": timestep,
            "pooling": MAP_POOLING[kind], "norm": None,
        }  # fmt: skip
        Z = read(transformer, place, cells, contest.train)
        parts = np.split(Z, ends, axis=1)
        table[timestep] = [
            contest.cross_validate(frozen(part), PLACE_HEAD) for part in parts
        ]
    say(f"{kind}, mAP on folds of training groups\n{table.round(3).to_string()}")
    return table


def choose_reading(
    contest: Contest,
    transformer: Any,
    cells: pd.Series,
    place: tuple[int, int],
    changes: Sequence[Settings | Callable[[int, int], Settings]],
    pooling: str = "mean",
) -> tuple[Settings, float]:
    """Return the reading that is best on the training groups, and its mAP there.

    Starts from a block, timestep and pooling, and keeps a change where it scores
    higher, at its best C of ``READING_GRID``.
    """
    block, timestep = map(int, place)
    last = describe_backbone(transformer.backbone).n_blocks
    best: Settings = {
        "block": block, "timestep": timestep, "pooling": pooling, "norm": None,
    }  # fmt: skip
    top, tried = -1.0, set()
    for change in [{}, *changes]:
        if callable(change):
            change = change(block, last)
        settings = best | change
        if repr(settings) in tried:
            continue
        tried.add(repr(settings))
        Z = read(transformer, settings, cells, contest.train)
        head, score = contest.choose_head(frozen(Z), READING_GRID)
        say(f"    {settings}: {score:.3f} with {head}")
        if score > top:
            best, top = settings, score
    return best, top
