"""
Labels in the fused space
=========================

Three classifiers are trained on the training drawings of OpenClipart: on the image, on
the text, and on both. Each projects its features to 64 dimensions. The t-SNE of these
projections of held-out drawings shows how close drawings of one label are, and the
clustering scores put that in numbers. Here the fused space is far tighter than the
image's. Compared with the text's the scores disagree: silhouette and Calinski-Harabasz
are better for the text, Davies-Bouldin for the fusion.
"""

import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GridSearchCV, GroupKFold

from sklearn_difffeat import (
    EmbeddingDisplay,
    FusionClassifier,
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
    clustering_report,
    make_fusion_pipeline,
)
from sklearn_difffeat.datasets import load_openclipart

# A label that belongs to a single group is constant in a part of a split by group.
warnings.filterwarnings("ignore", message=".*labels are constant in y")
warnings.filterwarnings("ignore", message=".* texts are longer")

output = Path("output")
output.mkdir(exist_ok=True)
data = load_openclipart()
train, test = data.split == "train", data.split == "test"

# %%
# Block and timestep are those recommended for the two backbones. The weight of the
# image, the weaker modality, is chosen on the training rows.

parts = {
    "image": (
        "image",
        ImageDiffusionFeatureTransformer(cache=output / "features.db"),
        "image",
    ),
    "text": (
        "text",
        TextDiffusionFeatureTransformer(cache=output / "features.db"),
        "text",
    ),
}


def mean_average_precision(model, X, Y):
    kept = Y.any(axis=0)
    return average_precision_score(Y[:, kept], model.predict_proba(X)[:, kept])


weights = GridSearchCV(
    make_fusion_pipeline(*parts.values(), classifier=FusionClassifier(C=0.01)),
    {
        "classifier__modality_weights": [
            {"image": weight} for weight in (0.25, 0.5, 0.7, 1.0)
        ]
    },
    scoring=mean_average_precision,
    cv=GroupKFold(3, shuffle=True, random_state=0),
    refit=False,
).fit(data.data[train], data.target[train], groups=data.groups[train])
chosen = weights.best_params_["classifier__modality_weights"]
print(f"weight of the image in the fusion: {chosen['image']}")

projected = {}
for name, modalities in [
    ("image", ["image"]),
    ("text", ["text"]),
    ("fused", ["image", "text"]),
]:
    model = make_fusion_pipeline(
        *(parts[m] for m in modalities),
        classifier=FusionClassifier(
            fusion_dim=64,
            C=0.01,
            modality_weights=chosen if len(modalities) == 2 else None,
            random_state=0,
        ),
    )
    model.fit(data.data[train], data.target[train])
    projected[name] = model.transform(data.data[test])

# %%
# The seven labels with most held-out drawings, and of these the drawings that have
# exactly one of them: only these belong to a single cluster.

Y = data.target[test]
shown = np.argsort(-Y.sum(axis=0), kind="stable")[:7]
print(f"{'':<8}{'silhouette':>12}{'Davies-Bouldin':>16}{'Calinski-Harabasz':>19}")
reports = {name: clustering_report(Z, Y[:, shown]) for name, Z in projected.items()}
for name, report in reports.items():
    print(
        f"{name:<8}{report['silhouette']:12.3f}{report['davies_bouldin']:16.2f}"
        f"{report['calinski_harabasz']:19.1f}"
    )
print(f"{reports['fused']['n_rows']} held-out drawings")

# %%
# The same drawings in the space of each model.

rows = Y[:, shown].sum(axis=1) == 1
figure = plt.figure(figsize=(8, 3.6), dpi=150, layout="constrained")
for axes, (name, Z) in zip(figure.subplots(1, 3), projected.items(), strict=True):
    EmbeddingDisplay.from_features(
        Z[rows],
        Y[rows][:, shown],
        target_names=[data.target_names[i] for i in shown],
        ax=axes,
        legend=False,
    )
    score = reports[name]["silhouette"]
    axes.set_title(f"{name}\nsilhouette {score:.3f}", fontsize=12)
handles, labels = axes.get_legend_handles_labels()
figure.legend(
    handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=11,
    markerscale=1.4,
)  # fmt: skip
figure.savefig(output / "fusion_embedding.png")
