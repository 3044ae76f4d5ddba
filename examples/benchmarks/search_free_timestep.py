"""A timestep chosen without labels or folds, against the prior and the walk.

A-SelecT (arXiv 2603.25758) picks a DiT's timestep where the high-frequency ratio (HFR)
of its features is highest. How the paper computes the ratio could not be read, only a
summary that names it, so this is no reproduction: what is computed is stated in
``high_frequency_ratio``, on what the store keeps with ``pooling=("grid", 7)``, which
for ``dit-tiny`` is every token. All pictures share one noise, which is rich in high
frequencies, so the ratio is also taken without the mean map of all pictures ("own
HFR"). Another criterion, for texts too, is the effective rank of the features (RankMe,
arXiv 2210.02885), the exponential of the entropy of their singular values. All need a
pass of each timestep, of some rows only, and no label.

Three tables, on OpenClipart's training rows, cross-validated by group:

1. each block and timestep: the criteria, and the mAP of the features;
2. each rule's timestep at each block, and how much below the block's best it is;
3. LocalSearchCV from the paper's prior and from the chosen timesteps.

    python examples/benchmarks/search_free_timestep.py
    python examples/benchmarks/search_free_timestep.py --rows 300 --shuffles 1

The features come from ./output/search_free_timestep.db, which is filled first.
"""

import argparse
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from _common import mean_average_precision, print_table, say
from sklearn.model_selection import GroupKFold, cross_val_score

from sklearn_difffeat import (
    FusionClassifier,
    ImageDiffusionFeatureTransformer,
    LocalSearchCV,
    TextDiffusionFeatureTransformer,
    describe_backbone,
    make_fusion_pipeline,
)
from sklearn_difffeat.datasets import load_openclipart

CACHE = Path("output") / "search_free_timestep.db"
TIMESTEPS = {"image": [0, 50, 100, 200, 400, 600, 800], "text": [0, 100, 300, 500]}
BACKBONES = {"image": "dit-tiny", "text": "mdlm-tiny"}
# Of dit-tiny's feature map, in tokens.
SIDE = 7

# A label of a single group is constant in one part of a split by group.
warnings.filterwarnings("ignore", message=".*labels are constant in y")
warnings.filterwarnings("ignore", message=".* texts are longer")


def high_frequency_ratio(maps):
    """Share of the energy of maps (n, side, side, width) beyond half of the highest
    frequency, in either direction; the mean over rows.

    The mean of a map, its frequency 0, is counted: it holds most of the energy.
    """
    energy = (np.abs(np.fft.fft2(maps, axes=(1, 2))) ** 2).sum(axis=-1)
    frequencies = np.abs(np.fft.fftfreq(maps.shape[1]))
    high = np.maximum(frequencies[:, None], frequencies) > 0.25
    return float((energy[:, high].sum(axis=1) / energy.sum(axis=(1, 2))).mean())


def effective_rank(features):
    """Return the exponential of the entropy of the singular values of (n, width)."""
    values = np.linalg.svd(features - features.mean(axis=0), compute_uv=False)
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def transformer(modality, **options):
    kind = {
        "image": ImageDiffusionFeatureTransformer,
        "text": TextDiffusionFeatureTransformer,
    }[modality]
    return kind(cache=CACHE, norm=None, **options)


def blocks_of(modality):
    return range(describe_backbone(BACKBONES[modality]).n_blocks + 1)


def features_of(modality, cells, timestep, pooling):
    """Return the features of every block."""
    info = describe_backbone(BACKBONES[modality])
    blocks = list(blocks_of(modality))
    reader = transformer(modality, block=blocks, timestep=timestep, pooling=pooling)
    found = reader.fit_transform(cells)
    cells_of_map = pooling[1] ** 2 if isinstance(pooling, tuple) else 1
    widths = [info.width_of(block) * cells_of_map for block in blocks]
    return np.split(found, np.cumsum(widths)[:-1], axis=1)


def measure(modality, X, Y, groups, sample, shuffles):
    """Return the criteria and the mean score at each (block, timestep)."""
    found = {}
    for timestep in TIMESTEPS[modality]:
        say(f"  {modality}, timestep {timestep}")
        pooled = features_of(modality, X, timestep, "mean")
        grids = [None] * len(pooled)
        if modality == "image":
            grids = features_of(modality, X[sample], timestep, ("grid", SIDE))
        for block, (features, grid) in enumerate(zip(pooled, grids, strict=True)):
            criteria = {"rank": effective_rank(features[sample])}
            if grid is not None:
                maps = grid.reshape(len(grid), SIDE, SIDE, -1)
                criteria["HFR"] = high_frequency_ratio(maps)
                criteria["own HFR"] = high_frequency_ratio(maps - maps.mean(axis=0))
            scores = [
                cross_val_score(
                    FusionClassifier(C=0.1), features, Y, groups=groups, cv=folds,
                    scoring=mean_average_precision,
                ).mean()
                for folds in shuffles
            ]  # fmt: skip
            found[block, timestep] = criteria | {"mAP": float(np.mean(scores))}
    return found


def highest(criterion, at):
    return max(at, key=lambda timestep: at[timestep][criterion])


def rules_of(modality):
    """Return how each rule picks of the (timestep, criteria) of one block."""
    timesteps = TIMESTEPS[modality]
    prior = 0 if modality == "text" else timesteps[(len(timesteps) - 1) // 2]
    rules = {
        "prior": lambda at: prior,
        "least noise": lambda at: timesteps[0],
        "highest rank": partial(highest, "rank"),
    }
    if modality == "image":
        for name in ("HFR", "own HFR"):
            rules[f"highest {name}"] = partial(highest, name)
    return rules


def show(modality, found):
    """Print the first two tables of a modality; return each rule's picks by block."""
    rows = [
        {"block": str(block), "timestep": str(timestep)}
        | {
            name: f"{value:.{1 if name == 'rank' else 4}f}"
            for name, value in at.items()
        }
        for (block, timestep), at in sorted(found.items())
    ]
    print_table(f"{modality}: criteria without labels, and mAP:", rows)
    picks, rows = {}, []
    for name, rule in rules_of(modality).items():
        row, below, picks[name] = {"rule": name}, [], {}
        for block in blocks_of(modality):
            at = {t: found[block, t] for t in TIMESTEPS[modality]}
            picked = picks[name][block] = rule(at)
            best = max(one["mAP"] for one in at.values())
            below.append(best - at[picked]["mAP"])
            row[f"block {block}"] = f"t{picked}, {below[-1]:.4f}"
        row["mean"] = f"{np.mean(below):.4f}"
        rows.append(row)
    print_table(f"{modality}: timestep picked, and mAP below the block's best:", rows)
    return picks


def walk(X, Y, groups, shuffles, picks):
    """Print what LocalSearchCV finds and spends from each rule's timesteps."""
    space, middle = {}, {}
    for modality in BACKBONES:
        blocks = list(blocks_of(modality))
        space[f"features__{modality}__block"] = blocks
        space[f"features__{modality}__timestep"] = TIMESTEPS[modality]
        is_text = modality == "text"
        middle[modality] = blocks[-1] if is_text else blocks[(len(blocks) - 1) // 2]
    model = make_fusion_pipeline(
        *((name, transformer(name, pooling="mean"), name) for name in BACKBONES),
        classifier=FusionClassifier(C=0.1),
    )
    starts = {"the paper's prior": None}
    for rule in ("highest HFR", "highest own HFR", "highest rank"):
        starts[rule] = {
            f"features__{modality}__timestep": picks[modality][rule][middle[modality]]
            for modality in BACKBONES
            if rule in picks[modality]
        }
    rows = []
    for name, start in starts.items():
        say(f"  walks from {name}")
        searches = [
            LocalSearchCV(
                model, space, start=start, cv=folds, refit=False,
                scoring=mean_average_precision,
            ).fit(X, Y, groups=groups)
            for folds in shuffles
        ]  # fmt: skip
        means = {
            "start mAP": np.mean([s.path_[0]["score"] for s in searches]),
            "found mAP": np.mean([s.best_score_ for s in searches]),
        }
        rows.append(
            {"start": name}
            | {key: f"{value:.4f}" for key, value in means.items()}
            | {
                "candidates": f"{np.mean([s.n_candidates_ for s in searches]):.1f}",
                "passes": f"{np.mean([s.n_passes_ for s in searches]):.1f}",
                "found": "; ".join(
                    "b{} t{}, b{} t{}".format(*s.best_params_.values())
                    for s in searches
                ),
            }
        )
    n_passes = sum(map(len, TIMESTEPS.values()))
    print_table(
        f"both: LocalSearchCV by its start; the grid has {n_passes} passes, and the "
        "criteria took all of them, of the sampled rows:",
        rows,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=600, help="training rows")
    parser.add_argument("--sample", type=int, default=200, help="rows of the criteria")
    parser.add_argument("--shuffles", type=int, default=2, help="of the groups")
    options = parser.parse_args()
    data = load_openclipart()
    rows = np.flatnonzero(data.split == "train")[: options.rows]
    X, Y, groups = data.data.iloc[rows], data.target[rows], data.groups[rows]
    Y = Y[:, Y.sum(axis=0) >= 3]
    CACHE.parent.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    sample = random.choice(len(X), min(options.sample, len(X)), replace=False)
    shuffles = [
        GroupKFold(3, shuffle=True, random_state=seed)
        for seed in range(options.shuffles)
    ]
    print(
        f"{len(X):,} rows, {Y.shape[1]} labels, 3 group folds, {len(shuffles)} "
        f"shuffle(s); criteria of {len(sample)} rows; head FusionClassifier(C=0.1)\n"
    )
    picks = {}
    for modality in BACKBONES:
        cells = X[modality].to_numpy(dtype=object)
        found = measure(modality, cells, Y, groups, sample, shuffles)
        picks[modality] = show(modality, found)
    walk(X, Y, groups, shuffles, picks)


if __name__ == "__main__":
    main()
