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

BLOCKS = [6, 8]
GRID_SIDE = 2
C_GRID = [0.0003, 0.001, 0.003]

# Pictures and classes to train on, pictures and classes to score.
Split: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _idx(folder: Path, name: str, header: int) -> np.ndarray:
    content = gzip.decompress((folder / name).read_bytes())
    return np.frombuffer(content, dtype=np.uint8, offset=header)


def load_fashion(folder: Path, n_train: int) -> Split:
    """Return Fashion-MNIST as (n, 28, 28, 3), ``n_train`` training pictures of it."""
    parts: list[np.ndarray] = []
    for part in ("train", "t10k"):
        labels = _idx(folder, f"{part}-labels-idx1-ubyte.gz", 8)
        pixels = _idx(folder, f"{part}-images-idx3-ubyte.gz", 16)
        chosen = slice(n_train if part == "train" else None)
        grey = pixels.reshape(-1, 28, 28, 1)[chosen]
        parts += [np.repeat(grey, 3, axis=3), labels[chosen]]
    return parts[0], parts[1], parts[2], parts[3]


def load_photos(folder: Path, n_train: int) -> Split:
    """Return photographs by class folder: ``n_train`` not held back, all held back."""
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

    Block, pooling and C are chosen on a fifth of the training pictures.
    """
    transformer = ImageDiffusionFeatureTransformer(
        backbone, block=BLOCKS, timestep=0, pooling=("grid", GRID_SIDE)
    )
    cells = GRID_SIDE**2
    Z, Z_test = (
        transformer.fit_transform(part).reshape(len(part), len(BLOCKS), cells, -1)
        for part in (pictures, test_pictures)
    )

    def columns(Z: np.ndarray, blocks: tuple[int, ...], pooling: str) -> np.ndarray:
        chosen = Z[:, [BLOCKS.index(block) for block in blocks]]
        if pooling == "mean":
            chosen = chosen.mean(axis=2)
        return chosen.reshape(len(Z), -1)

    def probe(C: float) -> Any:
        # Looser than the default: the accuracy is settled long before the optimum.
        return make_pipeline(StandardScaler(), LogisticRegression(C=C, tol=1e-2))

    fit, held = train_test_split(
        np.arange(len(classes)), test_size=0.2, random_state=0, stratify=classes
    )
    scores = {}
    for blocks, pooling in itertools.product(((6,), (8,), (6, 8)), ("mean", "grid")):
        read = columns(Z, blocks, pooling)
        model = probe(0.001).fit(read[fit], classes[fit])
        scores[blocks, pooling] = model.score(read[held], classes[held])
    blocks, pooling = max(scores, key=scores.__getitem__)
    read = columns(Z, blocks, pooling)
    by_C = {
        C: probe(C).fit(read[fit], classes[fit]).score(read[held], classes[held])
        for C in C_GRID
    }
    C = max(by_C, key=by_C.__getitem__)
    model = probe(C).fit(read, classes)
    accuracy = model.score(columns(Z_test, blocks, pooling), test_classes)
    chosen = {"block": list(blocks), "pooling": pooling, "C": C, "n": len(classes)}
    return float(accuracy), chosen
