"""Linear probes of the image backbone on photographs and on greyscale clothing."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_difffeat import ImageDiffusionFeatureTransformer
from sklearn_difffeat.pretraining.corpus import is_held_back

BLOCKS = [[2], [4], [6], [8], [2, 4], [4, 6], [2, 4, 6]]
# Cells a side; 1 is the mean over all tokens.
GRIDS = [1, 2, 4]
C_GRID = [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1]
# Training pictures that blocks, grid and C are chosen on.
N_CHOICE = 6_000

# Pictures and classes to train on, pictures and classes to score.
Split: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _idx(folder: Path, name: str, header: int) -> np.ndarray:
    content = gzip.decompress((folder / name).read_bytes())
    return np.frombuffer(content, dtype=np.uint8, offset=header)


def load_fashion(folder: Path, n_train: int | None = None) -> Split:
    """Return Fashion-MNIST as (n, 28, 28, 3), ``n_train`` or all training pictures."""
    parts: list[np.ndarray] = []
    for part in ("train", "t10k"):
        labels = _idx(folder, f"{part}-labels-idx1-ubyte.gz", 8)
        pixels = _idx(folder, f"{part}-images-idx3-ubyte.gz", 16)
        chosen = slice(n_train if part == "train" else None)
        grey = pixels.reshape(-1, 28, 28, 1)[chosen]
        parts += [np.repeat(grey, 3, axis=3), labels[chosen]]
    return parts[0], parts[1], parts[2], parts[3]


def load_photos(folder: Path, n_train: int | None = None) -> Split:
    """Return photographs by class folder: those not held back, those held back.

    Of the former, ``n_train`` at random or all.
    """
    files = sorted(Path(folder).rglob("*.jpg"))
    held = np.array([is_held_back(path) for path in files])
    known = np.random.default_rng(0).permutation(np.flatnonzero(~held))[:n_train]
    parts: list[np.ndarray] = []
    for rows in (known, np.flatnonzero(held)):
        pictures = [np.asarray(Image.open(files[i]).convert("RGB")) for i in rows]
        parts += [np.stack(pictures), np.array([files[i].parent.name for i in rows])]
    return parts[0], parts[1], parts[2], parts[3]


def linear_probe(
    backbone: str,
    pictures: np.ndarray,
    classes: np.ndarray,
    test_pictures: np.ndarray,
    test_classes: np.ndarray,
) -> tuple[float, dict[str, Any]]:
    """Return the accuracy of logistic regression on frozen features, and its settings.

    Blocks, grid of cells and C are chosen on a fifth of ``N_CHOICE`` training pictures.
    """
    blocks = sorted(set(itertools.chain(*BLOCKS)))
    transformer = ImageDiffusionFeatureTransformer(
        backbone, block=blocks, timestep=0, pooling=("grid", max(GRIDS))
    )

    def coarser(Z: np.ndarray, grid: int) -> np.ndarray:
        """Average the cells (n, side, side, width) to ``grid`` of them a side."""
        n, side, _, width = Z.shape
        shape = (n, grid, side // grid, grid, side // grid, width)
        return Z.reshape(shape).mean(axis=(2, 4)).reshape(n, -1)

    def probe(C: float) -> Any:
        # Looser than the default: the accuracy is settled long before the optimum.
        return make_pipeline(StandardScaler(), LogisticRegression(C=C, tol=1e-2))

    some = np.random.default_rng(0).permutation(len(classes))[:N_CHOICE]
    known = classes[some]
    shape = (len(some), len(blocks), max(GRIDS), max(GRIDS), -1)
    Z = transformer.fit_transform(pictures[some]).reshape(shape)
    fit, held = train_test_split(
        np.arange(len(some)), test_size=0.2, random_state=0, stratify=known
    )

    def score(chosen: list[int], grid: int, C: float) -> float:
        read = np.hstack([coarser(Z[:, blocks.index(b)], grid) for b in chosen])
        model = probe(C).fit(read[fit], known[fit])
        return float(model.score(read[held], known[held]))

    places = list(itertools.product(BLOCKS, GRIDS))
    best, grid = max(places, key=lambda place: score(place[0], place[1], 0.001))
    C = max(C_GRID, key=lambda C: score(best, grid, C))
    transformer.set_params(block=best, pooling=("grid", grid))
    model = make_pipeline(transformer, *probe(C)).fit(pictures, classes)
    accuracy = model.score(test_pictures, test_classes)
    chosen = {"block": best, "grid": grid, "C": C, "n": len(classes)}
    return float(accuracy), chosen
