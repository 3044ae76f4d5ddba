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
# Of every block; timestep 0 is noise-free.
TIMESTEPS = {"image": [0, 50, 100, 200, 400, 700], "text": [0, 100, 200, 400, 700]}


def _two_below(block: int, last: int) -> Settings:
    return {"block": [max(0, block - 2), block]}


def _neighbours(block: int, last: int) -> Settings:
    return {"block": sorted({max(0, block - 2), block, min(last, block + 1)})}


def _embeddings(block: int, last: int) -> Settings:
    return {"block": [0, block]}


# Changes to the best place, each tried on all that was found good before it; a function
# of the best block and the last where blocks change. They come last: one becomes more.
READINGS: dict[str, list[Settings | Callable[[int, int], Settings]]] = {
    "image": [
        {"image_size": 96},
        {"pooling": ["mean", ("grid", 2)]},
        {"pooling": ("grid", 4)},
        _two_below,
        _neighbours,
    ],
    "text": [{"pooling": "max"}, {"pooling": ["mean", "max"]}, _two_below, _embeddings],
}
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

    ``settings`` are the transformer's parameters; a list of poolings concatenates.
    """
    poolings = settings.get("pooling", "mean")
    found = []
    for pooling in poolings if isinstance(poolings, list) else [poolings]:
        one = clone(transformer).set_params(**settings | {"pooling": pooling})
        with expected_warnings():
            found.append(one.fit_transform(cells.iloc[rows]))
    Z = np.zeros((len(cells), sum(part.shape[1] for part in found)), dtype=np.float32)
    Z[rows] = np.hstack(found)
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
    n_blocks = transformer.fit(cells.iloc[:1]).n_blocks_
    blocks = list(range(n_blocks + 1))
    table = pd.DataFrame(
        np.nan,
        pd.Index(blocks, name="block"),
        pd.Index(timesteps, name="timestep"),
    )
    for timestep in timesteps:
        settings = {"block": blocks, "timestep": timestep}
        Z = read(transformer, settings, cells, contest.train)
        parts = np.split(Z, len(blocks), axis=1)
        table[timestep] = [
            contest.cross_validate(frozen(part), PLACE_HEAD) for part in parts
        ]
    say(f"{kind}, mAP on folds of training groups\n{table.round(3).to_string()}")
    return table


def choose_reading(
    contest: Contest,
    transformer: Any,
    cells: pd.Series,
    kind: str,
    places: pd.DataFrame,
) -> Settings:
    """Return block, timestep and pooling that are best on the training groups.

    Starts from the best place of the map and keeps a change where it scores higher, at
    its best C of ``READING_GRID``.
    """
    block, timestep = places.stack().idxmax()
    best: Settings = {"block": int(block), "timestep": int(timestep)}
    top = float(places.max(axis=None))
    for change in READINGS[kind]:
        if callable(change):
            change = change(int(block), int(places.index[-1]))
        Z = read(transformer, best | change, cells, contest.train)
        head, score = contest.choose_head(frozen(Z), READING_GRID)
        say(f"    {kind} {best | change}: {score:.3f} with {head}")
        if score > top:
            best, top = best | change, score
    say(f"{kind}: {best}")
    return best
