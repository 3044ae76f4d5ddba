"""
Labels that share directions
============================

With few positive rows, the direction of a label among 200 features cannot be found
from that label alone. When 100 labels share five directions, a narrow fusion finds
these from all labels together: the L2 penalty on projections and heads is the trace
norm of their product, which penalises each further direction. Here 300 rows are enough
for the narrow fusion, and too few for one logistic regression per label.
"""

import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from sklearn_difffeat import FusionClassifier, multilabel_report

RANK, N_LABELS, N_FEATURES, N_TRAIN, N_TEST = 5, 100, 200, 300, 5_000
FUSION_DIMS = [1, 2, 3, 4, 5, 6, 8, 16, 32, 100]
C_GRID = np.geomspace(0.003, 0.3, 6)
SEEDS = range(3)

# A rare label may have no positive among the rows that choose C.
warnings.filterwarnings("ignore", message=".*labels are constant in y")
warnings.filterwarnings("ignore", message=".*labels have no positive in Y_true")

# %%
# The data: two modalities of 100 features each, and labels of all rates.


def make_data(seed):
    random = np.random.default_rng(seed)
    directions = random.normal(size=(N_FEATURES, RANK))
    weights = directions @ random.normal(size=(RANK, N_LABELS))
    weights *= 3 / np.linalg.norm(weights, axis=0)
    X = random.normal(size=(N_TRAIN + N_TEST, N_FEATURES))
    logits = X @ weights + random.uniform(-3, 0, N_LABELS)
    Y = (logits + random.logistic(size=logits.shape) > 0).astype(int)
    return X[:N_TRAIN], Y[:N_TRAIN], X[N_TRAIN:], Y[N_TRAIN:]


# %%
# Every model gets the C that is best on the last third of its training rows. The test
# rows are only used for the scores.


def mean_average_precision(model, X, Y):
    return multilabel_report(Y, model.predict_proba(X))["mAP"]


def fit_best(X, Y, fusion_dim):
    kept, held = slice(0, 2 * N_TRAIN // 3), slice(2 * N_TRAIN // 3, None)
    models = [
        FusionClassifier(
            modalities={"image": 100, "text": 100}, fusion_dim=fusion_dim, C=C
        )
        for C in C_GRID
    ]
    scores = [
        mean_average_precision(model.fit(X[kept], Y[kept]), X[held], Y[held])
        for model in models
    ]
    return models[int(np.argmax(scores))].fit(X, Y)


scores = []
for seed in SEEDS:
    X, Y, X_test, Y_test = make_data(seed)
    scores.append(
        [
            mean_average_precision(fit_best(X, Y, k), X_test, Y_test)
            for k in [None, *FUSION_DIMS]
        ]
    )
scores = np.array(scores)
for name, column in zip([None, *FUSION_DIMS], scores.T, strict=True):
    print(f"fusion_dim={name}: test mAP {column.mean():.3f}")

# %%
# The curve rises up to the true number of directions, and falls slowly beyond.

figure, axes = plt.subplots(figsize=(6, 4), dpi=150, layout="constrained")
separate, shared = scores[:, 0], scores[:, 1:]
axes.axhspan(separate.min(), separate.max(), color="#D55E00", alpha=0.2, lw=0)
axes.axhline(separate.mean(), color="#D55E00", ls="--", lw=2)
axes.fill_between(
    FUSION_DIMS, shared.min(axis=0), shared.max(axis=0), color="#0072B2", alpha=0.2
)
axes.plot(FUSION_DIMS, shared.mean(axis=0), "o-", color="#0072B2", lw=2)
axes.text(
    100, separate.mean() - 0.012, "fusion_dim=None: each label by itself",
    color="#A84300", ha="right", va="top", fontsize=11,
)  # fmt: skip
axes.text(
    9, shared[:, 6:].max() + 0.015, "fusion_dim=k: labels share directions",
    color="#0072B2", fontsize=11,
)  # fmt: skip
axes.axvline(RANK, color="0.6", lw=1, ls=":")
axes.text(RANK * 1.07, 0.5, "five true directions", color="0.3", fontsize=11)
axes.set_ylim(0.48, 0.86)
axes.set_xscale("log")
axes.set_xticks([1, 2, 5, 10, 20, 50, 100], [1, 2, 5, 10, 20, 50, 100])
axes.minorticks_off()
axes.set_xlabel("fusion_dim", fontsize=12)
axes.set_ylabel("test mAP", fontsize=12)
axes.set_title("100 labels, 300 training rows", fontsize=12)
axes.spines[["top", "right"]].set_visible(False)

output = Path("output")
output.mkdir(exist_ok=True)
figure.savefig(output / "fusion_dim.png")
