"""
One label per picture: digits
=============================

Diffusion features also work for single-label data: the same transformer with any
classifier behind it, and top-1 and top-5 accuracy. The embedded backbone was trained on
colour drawings and photographs; the block is chosen by cross-validation on the training
digits.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import top_k_accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_difffeat import ImageDiffusionFeatureTransformer, LocalSearchCV

output = Path("output")
output.mkdir(exist_ok=True)
digits, y = load_digits(return_X_y=True)
pictures = np.repeat(digits.reshape(-1, 8, 8, 1) / 16 * 255, 3, axis=3).astype(np.uint8)
X_train, X_test, y_train, y_test = train_test_split(
    pictures, y, test_size=0.5, stratify=y, random_state=0
)

# %%
# Half of the digits are for training: a local search chooses the block on them.

model = make_pipeline(
    ImageDiffusionFeatureTransformer(timestep=50, cache=output / "digits.db"),
    StandardScaler(),
    LogisticRegression(C=0.01, max_iter=1_000),
)
blocks = {"imagediffusionfeaturetransformer__block": [0, 1, 2, 3, 4]}
search = LocalSearchCV(model, blocks, scoring="accuracy").fit(X_train, y_train)
block = search.best_params_["imagediffusionfeaturetransformer__block"]
probabilities = search.predict_proba(X_test)
for k in (1, 5):
    score = top_k_accuracy_score(y_test, probabilities, k=k)
    print(f"block {block}: top-{k} accuracy {score:.3f}")

# %%
# The blocks that were tried, on the training digits.

tried = search.cv_results_["param_imagediffusionfeaturetransformer__block"]
order = np.argsort(tried)
means, spreads = (
    search.cv_results_[f"{name}_test_score"][order] for name in ("mean", "std")
)
figure, axes = plt.subplots(figsize=(6, 4), dpi=150, layout="constrained")
axes.errorbar(
    tried[order].astype(int), means, spreads, fmt="o-", color="#0072B2", lw=2, capsize=4
)
axes.set_xticks(tried[order].astype(int))
axes.set_xlabel("block", fontsize=12)
axes.set_ylabel("cross-validated top-1 accuracy", fontsize=12)
axes.set_title(
    f"{len(y_train)} training digits, timestep 50: mean and spread of 5 folds",
    fontsize=12,
)
axes.spines[["top", "right"]].set_visible(False)
figure.savefig(output / "digits.png")
