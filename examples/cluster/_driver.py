"""What the recipes share: the driver's data, and a search on what came home."""

import argparse
import time
from pathlib import Path

from sklearn.model_selection import GridSearchCV, GroupKFold

from sklearn_difffeat import (
    FeatureStore,
    FusionClassifier,
    ImageDiffusionFeatureTransformer,
    make_fusion_pipeline,
)
from sklearn_difffeat.datasets import load_openclipart

TIMESTEPS = [0, 200]


def arguments(engine, description):
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--stores", type=Path, default=f"output/stores-{engine}",
                        help="folder that all machines can see")  # fmt: skip
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cluster", help="its address; else one on this machine")
    options = parser.parse_args()
    # Workers may be in other folders.
    options.stores = options.stores.resolve()
    return options


def load(n_rows):
    """Return pictures of the bundled data, their labels and groups."""
    X, Y, groups = load_openclipart(return_X_y_groups=True)
    Y = Y[:n_rows]
    return X[["image"]].head(n_rows), Y[:, Y.sum(axis=0) >= 5], groups[:n_rows]


def main(engine, description, precompute):
    """Run a recipe: its engine fills stores, which are merged and searched here."""
    options = arguments(engine, description)
    X, Y, groups = load(options.rows)
    started = time.perf_counter()
    precompute(options, X)
    parts = sorted(options.stores.glob("*.db"))
    seconds = time.perf_counter() - started
    print(f"{len(parts)} stores after {seconds:.1f} s")
    store = FeatureStore(options.stores.with_suffix(".db")).merge(*parts)
    kept = store.describe()[["kind", "timestep", "blocks", "rows"]]
    print(kept.to_string(index=False))
    # On features alone from here on: no pass, no cluster.
    model = make_fusion_pipeline(
        ("image", ImageDiffusionFeatureTransformer(cache=store), "image"),
        classifier=FusionClassifier(C=0.01),
    )
    grid = {
        "features__image__block": [0, 3, [0, 3]],
        "features__image__timestep": TIMESTEPS,
    }
    search = GridSearchCV(model, grid, cv=GroupKFold(2))
    search.fit(X, Y, groups=groups)
    print("best:", search.best_params_)
