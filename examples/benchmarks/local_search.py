"""Local search against the grid: what it finds, and what it spends.

Two tables. On OpenClipart's training rows, the grid of 5 blocks x 6 timesteps of the
image and 4 x 3 of the text (360 pairs) is evaluated exhaustively by 3 group folds, for
3 shuffles of the groups, and compared with LocalSearchCV on the same folds, from the
paper's prior and with ``start="auto"``, and with a random search of as many candidates
(the mean of 1,000 draws from the grid). On
synthetic surfaces, placed at random in a space of 10,000 points, the weak cases show,
and what restarts do for them.

The features come from ./output/features.db, which is filled first. Fewer rows or
shuffles are a first look:

    python examples/benchmarks/local_search.py --rows 400 --shuffles 1
    python examples/benchmarks/local_search.py --only surfaces
"""

import argparse
import itertools
import time
import warnings
from pathlib import Path

import numpy as np
from _common import mean_average_precision
from sklearn.base import BaseEstimator
from sklearn.model_selection import GridSearchCV, GroupKFold

from sklearn_difffeat import (
    FusionClassifier,
    ImageDiffusionFeatureTransformer,
    LocalSearchCV,
    TextDiffusionFeatureTransformer,
    make_fusion_pipeline,
)
from sklearn_difffeat.datasets import load_openclipart

CACHE = Path("output") / "features.db"
IMAGE = {"block": [0, 1, 2, 3, 4], "timestep": [0, 50, 100, 200, 400, 600]}
TEXT = {"block": [0, 2, 4, 6], "timestep": [0, 100, 300]}
SPACE = {f"features__image__{name}": values for name, values in IMAGE.items()} | {
    f"features__text__{name}": values for name, values in TEXT.items()
}
N_PASSES = len(IMAGE["timestep"]) + len(TEXT["timestep"])
N_SURFACES = 10

# A label of a single group is constant in one part of a split by group.
warnings.filterwarnings("ignore", message=".*labels are constant in y")
warnings.filterwarnings("ignore", message=".*labels have no positive in Y_true")
warnings.filterwarnings("ignore", message=".* texts are longer")


def passes_of(candidates):
    """Timesteps of each modality that these candidates visit."""
    names = [name for name in SPACE if name.endswith("timestep")]
    return sum(len({params[name] for params in candidates}) for name in names)


def random_search(grid, n_candidates):
    """Mean of the best score, and of the passes, of candidates drawn from the grid."""
    scores = grid.cv_results_["mean_test_score"]
    random = np.random.default_rng(0)
    found, passes = [], []
    for _ in range(1_000):
        drawn = random.choice(len(scores), n_candidates, replace=False)
        found.append(scores[drawn].max())
        passes.append(passes_of([grid.cv_results_["params"][i] for i in drawn]))
    return np.mean(found), np.mean(passes)


def compare_on_openclipart(n_rows, n_shuffles, n_jobs, max_passes):
    data = load_openclipart()
    rows = np.flatnonzero(data.split == "train")[:n_rows]
    X, Y, groups = data.data.iloc[rows], data.target[rows], data.groups[rows]
    Y = Y[:, Y.sum(axis=0) >= 3]
    CACHE.parent.mkdir(exist_ok=True)
    image = ImageDiffusionFeatureTransformer(cache=CACHE)
    text = TextDiffusionFeatureTransformer(cache=CACHE)
    image.precompute(X["image"], timesteps=IMAGE["timestep"])
    text.precompute(X["text"], timesteps=TEXT["timestep"])
    model = make_fusion_pipeline(
        ("image", image, "image"),
        ("text", text, "text"),
        classifier=FusionClassifier(C=0.1),
    )
    n_grid = np.prod([len(values) for values in SPACE.values()])
    print(f"{len(X):,} rows, {Y.shape[1]} labels, head FusionClassifier(C=0.1)")
    print(f"grid: {n_grid} candidates, {N_PASSES} passes of every row\n")
    print(
        f"{'shuffle':<8}{'start':<8}{'grid best':>10}{'found':>8}{'ratio':>8}"
        f"{'candidates':>15}{'passes':>12}{'random ratio':>14}{'passes':>8}"
    )
    for seed in range(n_shuffles):
        options = {
            "scoring": mean_average_precision,
            "cv": GroupKFold(3, shuffle=True, random_state=seed),
            "refit": False,
            "n_jobs": n_jobs,
        }
        started = time.perf_counter()
        grid = GridSearchCV(model, SPACE, **options).fit(X, Y, groups=groups)
        best = grid.best_score_
        tell("grid", grid, started)
        for start in (None, "auto"):
            started = time.perf_counter()
            search = LocalSearchCV(
                model, SPACE, start=start, max_passes=max_passes, **options
            )
            search.fit(X, Y, groups=groups)
            n = search.n_candidates_
            random_score, random_passes = random_search(grid, n)
            print(
                f"{seed:<8}{start or 'prior':<8}{best:10.4f}{search.best_score_:8.4f}"
                f"{search.best_score_ / best:8.4f}"
                f"{n:7d} ({n / n_grid:5.1%})"
                f"{search.n_passes_:5d} ({search.n_passes_ / N_PASSES:3.0%})"
                f"{random_score / best:14.4f}{random_passes:8.1f}",
                flush=True,
            )
            tell("walk", search, started)


def tell(name, search, started):
    """Print what a search found, and its seconds with warm features."""
    image_block, image_time, text_block, text_time = search.best_params_.values()
    print(
        f"        {name}: image b{image_block} t{image_time}, "
        f"text b{text_block} t{text_time}, {time.perf_counter() - started:.0f} s",
        flush=True,
    )


def quadratic(p, peak, seed):
    return -((p - peak) ** 2).sum()


def ridge(p, peak, seed):
    away = p - peak
    return -((away[0] - away[1]) ** 2) - 0.05 * (away**2).sum()


def plateau(p, peak, seed):
    return float(np.abs(p - peak).max() <= 2)


def two_peaks(p, peak, seed):
    other = (peak + 5) % 10
    return np.exp(-((p - peak) ** 2).sum() / 12) + 0.7 * np.exp(
        -((p - other) ** 2).sum() / 12
    )


def noisy(p, peak, seed):
    jitter = np.random.default_rng([seed, *p]).normal(scale=10)
    return quadratic(p, peak, seed) + jitter


class Surface(BaseEstimator):
    """Scores a surface at its parameters."""

    def __init__(self, surface=quadratic, peak=None, seed=0, a=0, b=0, c=0, d=0):
        self.surface = surface
        self.peak = peak
        self.seed = seed
        self.a = a
        self.b = b
        self.c = c
        self.d = d

    def fit(self, X, y=None):
        return self

    def score(self, X, y=None):
        p = np.array([self.a, self.b, self.c, self.d])
        return self.surface(p, np.array(self.peak), self.seed)


def compare_on_surfaces():
    space = {name: list(range(10)) for name in "abcd"}
    points = [np.array(p) for p in itertools.product(range(10), repeat=4)]
    X, one_split = np.zeros((2, 1)), [([0], [1])]
    print(f"surfaces: {len(points):,} points, {N_SURFACES} peaks placed at random;")
    print("found: (found - lowest) / (best - lowest), mean and worst\n")
    print(f"{'surface':<12}{'restarts':>9}{'found':>8}{'worst':>8}{'candidates':>12}")
    for surface in (quadratic, ridge, plateau, two_peaks, noisy):
        for n_restarts in (0, 3, 10):
            found, spent = [], []
            for seed in range(N_SURFACES):
                peak = np.random.default_rng(seed).integers(0, 10, 4)
                scores = [surface(p, peak, seed) for p in points]
                search = LocalSearchCV(
                    Surface(surface, peak.tolist(), seed),
                    space,
                    cv=one_split,
                    refit=False,
                    n_restarts=n_restarts,
                    random_state=seed,
                ).fit(X)
                low, high = min(scores), max(scores)
                found.append((search.best_score_ - low) / (high - low))
                spent.append(search.n_candidates_)
            print(
                f"{surface.__name__:<12}{n_restarts:9d}{np.mean(found):8.3f}"
                f"{np.min(found):8.3f}{np.mean(spent):12.0f}",
                flush=True,
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["openclipart", "surfaces"])
    parser.add_argument("--rows", type=int, help="training rows, default all")
    parser.add_argument("--shuffles", type=int, default=3)
    parser.add_argument("--n-jobs", type=int, default=1)
    parser.add_argument("--max-passes", type=int, help="of the walk, default any")
    options = parser.parse_args()
    if options.only != "surfaces":
        compare_on_openclipart(
            options.rows, options.shuffles, options.n_jobs, options.max_passes
        )
    if options.only != "openclipart":
        compare_on_surfaces()


if __name__ == "__main__":
    main()
