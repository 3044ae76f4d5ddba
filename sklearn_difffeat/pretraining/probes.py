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

from sklearn_difffeat import ImageDiffusionFeatureTransformer, describe_backbone
from sklearn_difffeat.pretraining.drawings import is_held_back

# Cells a side; 1 is the mean over all tokens.
GRIDS = [1, 2, 4]
C_GRID = [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1]
MAX_COLUMNS = 12_288  # of 60,000 pictures, 3 GB
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


def block_choices(last: int) -> list[list[int]]:
    """Return the input, four blocks spread over the depth, and neighbours of these."""
    quarters = sorted({max(1, round(last * share / 4)) for share in (1, 2, 3, 4)})
    alone = [[block] for block in (0, *quarters)]
    choices = [*alone, quarters[:2], quarters[1:3], quarters[:3]]
    return [one for i, one in enumerate(choices) if one and one not in choices[:i]]


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
    info = describe_backbone(backbone)
    choices = block_choices(info.n_blocks)
    blocks = sorted(set(itertools.chain(*choices)))
    transformer = ImageDiffusionFeatureTransformer(
        backbone, block=blocks, timestep=0, pooling=("grid", max(GRIDS))
    )

    def coarser(Z: np.ndarray, grid: int) -> np.ndarray:
        """Average the cells of one block, (n, side * side * width), to fewer."""
        n, side = len(Z), max(GRIDS)
        shape = (n, grid, side // grid, grid, side // grid, -1)
        return Z.reshape(shape).mean(axis=(2, 4)).reshape(n, -1)

    def probe(C: float) -> Any:
        # Looser than the default: the accuracy is settled long before the optimum.
        scaler = StandardScaler(copy=False)
        return make_pipeline(scaler, LogisticRegression(C=C, tol=1e-2))

    some = np.random.default_rng(0).permutation(len(classes))[:N_CHOICE]
    known = classes[some]
    widths = [info.width_of(block) * max(GRIDS) ** 2 for block in blocks]
    found = transformer.fit_transform(pictures[some])
    Z = dict(zip(blocks, np.split(found, np.cumsum(widths)[:-1], axis=1), strict=True))
    fit, held = train_test_split(
        np.arange(len(some)), test_size=0.2, random_state=0, stratify=known
    )

    def score(chosen: list[int], grid: int, C: float) -> float:
        read = np.hstack([coarser(Z[block], grid) for block in chosen])
        model = probe(C).fit(read[fit], known[fit])
        return float(model.score(read[held], known[held]))

    places = [
        (one, grid)
        for one, grid in itertools.product(choices, GRIDS)
        if sum(map(info.width_of, one)) * grid**2 <= MAX_COLUMNS
    ]
    best, grid = max(places, key=lambda place: score(place[0], place[1], 0.001))
    C = max(C_GRID, key=lambda C: score(best, grid, C))
    transformer.set_params(block=best, pooling=("grid", grid))
    model = make_pipeline(transformer, *probe(C)).fit(pictures, classes)
    accuracy = model.score(test_pictures, test_classes)
    chosen = {"block": best, "grid": grid, "C": C, "n": len(classes)}
    return float(accuracy), chosen
