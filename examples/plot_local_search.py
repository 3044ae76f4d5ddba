"""
Local search instead of a grid
==============================

A grid search tries every block and timestep. ``LocalSearchCV`` starts in the middle and
stops where no step improves the score. A block at a timestep already visited costs one
fit of the classifier, while a new timestep costs a pass of all drawings. So the search
tries blocks first, and a new timestep only while the score rises.

It follows rising scores, so it can end at a lesser peak. From the middle it does so
here: block 0, the map of the frozen encoder, scores higher than all blocks of the
Transformer, but the blocks between them and it do not. ``start="auto"`` also tries what
is recommended for the backbone. ``n_restarts=`` starts again from other places.
"""

import time
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline

from sklearn_difffeat import (
    BlockTimestepDisplay,
    FusionClassifier,
    ImageDiffusionFeatureTransformer,
    LocalSearchCV,
)
from sklearn_difffeat.datasets import load_openclipart

# A label that belongs to a single group is constant in a part of a split by group.
warnings.filterwarnings("ignore", message=".*labels are constant in y")

output = Path("output")
output.mkdir(exist_ok=True)
data = load_openclipart()
train = data.split == "train"
X, Y, groups = data.data["image"][train], data.target[train], data.groups[train]

# %%
# All searches get the same space, the same folds of whole groups and the same score.


def mean_average_precision(model, X, Y):
    kept = Y.any(axis=0)
    return average_precision_score(Y[:, kept], model.predict_proba(X)[:, kept])


transformer = ImageDiffusionFeatureTransformer(cache=output / "features.db")
model = Pipeline([("image", transformer), ("head", FusionClassifier(C=0.01))])
space = {
    "image__block": [0, 1, 2, 3, 4],
    "image__timestep": [0, 100, 200, 300, 600],
}
options = {
    "scoring": mean_average_precision,
    "cv": GroupKFold(3, shuffle=True, random_state=0),
    "refit": False,
}
searches = {}
for name, kind, extra in [
    ("walk from the middle", LocalSearchCV, {}),
    ("walk", LocalSearchCV, {"start": "auto"}),
    ("grid", GridSearchCV, {}),
]:
    started = time.perf_counter()
    searches[name] = kind(model, space, **options, **extra).fit(X, Y, groups=groups)
    found = searches[name]
    timesteps = {params["image__timestep"] for params in found.cv_results_["params"]}
    print(
        f"{name}: mAP {found.best_score_:.4f} at {found.best_params_}, "
        f"{len(found.cv_results_['params'])} candidates, {len(timesteps)} passes, "
        f"{time.perf_counter() - started:.0f} s"
    )

# %%
# Hatched places were not tried. The path begins at the open circle.

figure = plt.figure(figsize=(8, 4.4), dpi=150, layout="constrained")
scores = searches["grid"].cv_results_["mean_test_score"]
limits = {"vmin": np.min(scores), "vmax": np.max(scores)}
for axes, name in zip(figure.subplots(1, 2), ("grid", "walk"), strict=True):
    found = searches[name]
    BlockTimestepDisplay.from_search(
        found, ax=axes, colorbar=False, im_kw=limits, values_format=".2f"
    )
    n_candidates = len(found.cv_results_["params"])
    axes.set_title(
        f"{name}: {n_candidates} candidates, mAP {found.best_score_:.3f}", fontsize=12
    )
figure.savefig(output / "local_search.png")
