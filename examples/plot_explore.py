"""
A look into a fused model
=========================

Four pictures of one model of drawings and their titles: which block and timestep give
the best features, why the model finds a label, and how it arranges drawings that it has
never seen. A quarter of OpenClipart is enough for that, and takes about a minute on one
core.
"""

import io
import warnings

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from PIL import Image
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline

from sklearn_difffeat import (
    BlockTimestepDisplay,
    EmbeddingDisplay,
    FusionClassifier,
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
    make_fusion_pipeline,
)
from sklearn_difffeat.datasets import load_openclipart

# A rare label may be constant in the rows of a fold.
warnings.filterwarnings("ignore", message=".*labels are constant in y")
warnings.filterwarnings("ignore", message=".* texts are longer")

data = load_openclipart()
train = np.flatnonzero(data.split == "train")[::4]
test = np.flatnonzero(data.split == "test")[::4]
common = data.target[train].sum(axis=0) >= 10
X, Y, groups = data.data, data.target[:, common], data.groups
names = np.array(data.target_names)[common]
print(f"{len(train)} training and {len(test)} test drawings, {len(names)} labels")

# %%
# Where to read
# -------------
#
# A grid search over block and timestep for each modality. With ``cache=True`` each
# drawing passes the model once per timestep, for all blocks and folds. Folds hold whole
# groups, so that no series of drawings is on both sides. A star marks the best place.


def mean_average_precision(model, X, Y):
    kept = Y.any(axis=0)
    return average_precision_score(Y[:, kept], model.predict_proba(X)[:, kept])


def search(transformer, modality, blocks, timesteps):
    head = FusionClassifier(C=0.01, tol=1e-4)
    grid = {"features__block": blocks, "features__timestep": timesteps}
    return GridSearchCV(
        Pipeline([("features", transformer), ("head", head)]),
        grid,
        scoring=mean_average_precision,
        cv=GroupKFold(3, shuffle=True, random_state=0),
        refit=False,
    ).fit(X[modality].iloc[train], Y[train], groups=groups[train])


image = ImageDiffusionFeatureTransformer(cache=True)
text = TextDiffusionFeatureTransformer(cache=True)
figure = plt.figure(figsize=(9, 4.2), dpi=120, layout="constrained")
left, right = figure.subplots(1, 2, width_ratios=[4.6, 3.6])
for axes, modality, found in [
    (left, "image", search(image, "image", [0, 1, 2, 3, 4], [0, 100, 200, 400])),
    (right, "text", search(text, "text", [0, 1, 2, 3, 4, 5, 6], [0, 100, 300])),
]:
    BlockTimestepDisplay.from_search(found, ax=axes, values_format=".2f")
    axes.set_title(f"{modality}: best mAP {found.best_score_:.2f}", fontsize=12)
    axes.figure.axes[-1].set_ylabel("cross-validated mAP", fontsize=11)

# %%
# Why a label was found
# ---------------------
#
# The fused model reads both modalities where this is recommended for the two backbones.
# ``modality_contributions`` splits the log odds of each label into a part of the image
# and a part of the text. Together with the label's intercept they add up to the log
# odds, so a label is found where the bars outweigh an intercept that is far below 0.

model = make_fusion_pipeline(
    ("image", image, "image"),
    ("text", text, "text"),
    classifier=FusionClassifier(C=0.01, fusion_dim=64, modality_weights={"image": 0.5}),
)
model.fit(X.iloc[train], Y[train])
features = model["features"].transform(X.iloc[test])
classifier = model["classifier"]
found = classifier.predict(features)
parts = classifier.modality_contributions(features)
print(f"test mAP {mean_average_precision(classifier, features, Y[test]):.3f}")

# %%
# Four test drawings: the labels that the model found, and below them those that it
# missed, in grey.


def picture(row):
    return Image.open(io.BytesIO(X["image"].iloc[test[row]])).convert("RGB")


COLORS = {"image": "#0072B2", "text": "#E69F00"}
many = np.flatnonzero(found.sum(axis=1) >= 2)
chosen = many[np.linspace(0, len(many) - 1, 6).astype(int)[1:5]]
figure = plt.figure(figsize=(9, 8.4), dpi=120, layout="constrained")
grid = figure.subplots(4, 2, width_ratios=[1, 3])
for row, (left, right) in zip(chosen, grid, strict=True):
    left.imshow(picture(row))
    left.set_axis_off()
    title = X["text"].iloc[test[row]]
    right.set_title(
        title if len(title) < 60 else f"{title[:58]}...", fontsize=11, loc="left"
    )
    missed = np.flatnonzero((Y[test[row]] == 1) & (found[row] == 0))
    shown = [*np.flatnonzero(found[row])[:4], *missed[:2]]
    for place, label in enumerate(shown):
        for offset, (name, color) in zip((-0.2, 0.2), COLORS.items(), strict=True):
            right.barh(
                place + offset,
                parts[name][row, label],
                height=0.36,
                color=color,
                label=name if place == 0 else None,
            )
    right.set_yticks(range(len(shown)), names[shown], fontsize=11)
    for tick, label in zip(right.get_yticklabels(), shown, strict=True):
        tick.set_color("black" if found[row, label] else "0.55")
    right.invert_yaxis()
    right.axvline(0, color="0.4", lw=0.8)
    right.spines[["top", "right", "left"]].set_visible(False)
    right.tick_params(left=False)
grid[0, 1].legend(frameon=False, loc="lower right", fontsize=11)
grid[-1, 1].set_xlabel("contribution to the log odds of the label", fontsize=11)
limits = [axes.get_xlim() for axes in grid[:, 1]]
for axes in grid[:, 1]:
    axes.set_xlim(min(low for low, _ in limits), max(high for _, high in limits))

# %%
# How the model arranges drawings
# -------------------------------
#
# A t-SNE of the fused representation of the test drawings, coloured by their most
# frequent labels. Drawings with none or several of these labels are grey.

Z = classifier.transform(features)
display = EmbeddingDisplay.from_features(Z, Y[test], target_names=names)
display.figure_.set_size_inches(9, 6)
display.figure_.set_dpi(120)

# %%
# The same map, with the drawings in their places.

points = display.embedding
figure, axes = plt.subplots(figsize=(9, 8), dpi=120, layout="constrained")
for row, point in enumerate(points):
    small = picture(row).resize((64, 64))
    image_box = OffsetImage(np.asarray(small), zoom=0.45, alpha=0.95)
    axes.add_artist(AnnotationBbox(image_box, point, frameon=False))
axes.update_datalim(points)
axes.autoscale()
axes.margins(0.05)
axes.set_axis_off()
