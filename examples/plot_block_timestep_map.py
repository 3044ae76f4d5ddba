"""
Where a diffusion model knows most
==================================

Which block and which timestep to read is a property of the model. Here are the maps of
both embedded backbones on the training drawings of OpenClipart: the cross-validated mAP
of one modality alone, for each place. With the store each row passes a model once a
timestep, for all blocks and folds.
"""

import warnings
from pathlib import Path

import matplotlib.pyplot as plt
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline

from sklearn_difffeat import (
    BlockTimestepDisplay,
    FusionClassifier,
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
)
from sklearn_difffeat.datasets import load_openclipart

# Labels of single groups are constant in one part of a split by group: no surprise.
warnings.filterwarnings("ignore", message=".*labels are constant in y")
warnings.filterwarnings("ignore", message=".* texts are longer")

output = Path("output")
output.mkdir(exist_ok=True)
data = load_openclipart()
train = data.split == "train"
X, Y, groups = data.data[train], data.target[train], data.groups[train]

# %%
# One search a modality. Folds hold whole groups, so that no series of drawings is on
# both sides; the test rows stay untouched.


def mean_average_precision(model, X, Y):
    kept = Y.any(axis=0)
    return average_precision_score(Y[:, kept], model.predict_proba(X)[:, kept])


def search(transformer, cells, blocks, timesteps):
    model = Pipeline([("features", transformer), ("head", FusionClassifier(C=0.01))])
    grid = {"features__block": blocks, "features__timestep": timesteps}
    return GridSearchCV(
        model,
        grid,
        scoring=mean_average_precision,
        cv=GroupKFold(3, shuffle=True, random_state=0),
        refit=False,
    ).fit(cells, Y, groups=groups)


image = search(
    ImageDiffusionFeatureTransformer(cache=output / "features.db"),
    X["image"],
    [0, 1, 2, 3, 4],
    [0, 100, 200, 300, 600],
)
text = search(
    TextDiffusionFeatureTransformer(cache=output / "features.db"),
    X["text"],
    [0, 1, 2, 3, 4, 5, 6],
    [0, 100, 300],
)
for name, found in [("image", image), ("text", text)]:
    print(f"{name}: mAP {found.best_score_:.3f} at {found.best_params_}")

# %%
# A star marks the best place.

figure = plt.figure(figsize=(8, 4.4), dpi=150, layout="constrained")
left, right = figure.subplots(1, 2, width_ratios=[6, 3.6])
for axes, found, title in [
    (left, image, "image, dit-tiny"),
    (right, text, "text, mdlm-tiny"),
]:
    BlockTimestepDisplay.from_search(found, ax=axes)
    axes.set_title(title, fontsize=12)
    axes.figure.axes[-1].set_ylabel("cross-validated mAP", fontsize=11)
figure.savefig(output / "block_timestep_map.png")
