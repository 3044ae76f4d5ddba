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
    BlockTimestepDisplay.from_search(found, ax=axes, values_format=".3f")
    axes.set_title(f"{modality}: best mAP {found.best_score_:.2f}", fontsize=12)
    axes.figure.axes[-1].set_ylabel("cross-validated mAP", fontsize=11)

# %%
# Why a label was found
# ---------------------
#
# The fused model takes block and timestep that are recommended for the two backbones.
# ``modality_contributions`` splits the log odds of each label into a part of the image
# and a part of the text; with the label's intercept they add up to the log odds.

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
# Four test drawings of different kinds, with the labels that the model found (in red
# where these are wrong), and in grey those that it missed. The bar of the text starts
# where that of the image ends. A label is found where the text's bar reaches the black
# line, which is the negative intercept of the label: the rarer a label, the farther it
# is.


def picture(row):
    return Image.open(io.BytesIO(X["image"].iloc[test[row]])).convert("RGB")


def of_different_kinds(rows, n_rows):
    chosen, labels = [], set()
    for row in rows:
        new = set(np.flatnonzero(found[row]))
        if not new & labels:
            chosen.append(row)
            labels |= new
    return chosen[:n_rows]


by_number = np.argsort(-found.sum(axis=1), kind="stable")
figure = plt.figure(figsize=(9, 8), dpi=120, layout="constrained")
grid = figure.subplots(4, 2, width_ratios=[1, 3], sharex="col")
for row, (left, right) in zip(of_different_kinds(by_number, 4), grid, strict=True):
    left.imshow(picture(row))
    left.set_axis_off()
    title = X["text"].iloc[test[row]]
    title = title if len(title) < 60 else f"{title[:58]}..."
    right.set_title(title, fontsize=11, loc="left")
    missed = np.flatnonzero(Y[test[row]] > found[row])
    shown = [*np.flatnonzero(found[row])[:4], *missed][:4]
    places = np.arange(len(shown))
    of_image, of_text = (parts[name][row, shown] for name in ("image", "text"))
    needed = -classifier.centered_intercept_[shown]
    right.barh(places - 0.18, of_image, 0.34, color="#0072B2", label="image")
    right.barh(places + 0.18, of_text, 0.34, of_image, color="#E69F00", label="text")
    right.vlines(needed, places - 0.42, places + 0.42, color="black", label="needed")
    right.set_yticks(places, [names[i].replace("_", " ") for i in shown], fontsize=11)
    for tick, label in zip(right.get_yticklabels(), shown, strict=True):
        is_right = "black" if Y[test[row], label] else "#D55E00"
        tick.set_color(is_right if found[row, label] else "0.55")
    right.set_ylim(3.6, -0.6)
    right.axvline(0, color="0.6", lw=0.8)
    right.spines[["top", "right", "left"]].set_visible(False)
    right.tick_params(left=False)
grid[-1, 1].set_xlabel("contribution to the log odds of the label", fontsize=11)
figure.legend(
    *grid[0, 1].get_legend_handles_labels(), loc="outside upper right", ncols=3,
    frameon=False, fontsize=11,
)  # fmt: skip

# %%
# How the model arranges drawings
# -------------------------------
#
# A t-SNE of the fused representation of the test drawings, coloured by their most
# frequent labels. Drawings with none or several of these labels are grey.

Z = classifier.transform(features)
figure, axes = plt.subplots(figsize=(9, 5.6), dpi=120, layout="constrained")
display = EmbeddingDisplay.from_features(
    Z, Y[test], target_names=names, perplexity=15, ax=axes
)

# %%
# The same map with drawings in their places, spread out: a drawing lies at its rank
# along each axis. Only drawings that do not overlap are shown.

ranks = display.embedding.argsort(axis=0).argsort(axis=0)
places = ranks / len(ranks) * [9, 6.5]
figure, axes = plt.subplots(figsize=(9, 6.5), dpi=120)
figure.subplots_adjust(0.03, 0.03, 0.97, 0.97)
axes.set_xlim(0, 9)
axes.set_ylim(0, 6.5)
drawn = []
for row, place in enumerate(places):
    if all(np.abs(place - other).max() > 0.42 for other in drawn):
        drawn.append(place)
        small = OffsetImage(np.asarray(picture(row)), zoom=0.3)
        axes.add_artist(AnnotationBbox(small, place, frameon=False, pad=0))
axes.set_axis_off()
