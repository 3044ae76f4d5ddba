"""Fuse image and text features of diffusion models for multi-label classification.

Trains and scores image-only, text-only and fused models on drawings from OpenClipart,
split by group, with the backbones that ship with the package: no network, no GPU,
under five minutes on two cores. Block, timestep, C and the modalities' weights are
chosen on training groups.
"""

import io
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import joblib
import numpy as np
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_difffeat import (
    FeatureStore,
    FusionClassifier,
    FusionClassifierCV,
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
    make_fusion_pipeline,
    multilabel_report,
)
from sklearn_difffeat.datasets import load_openclipart

OUTPUT = Path("output")
# Each row passes each model once per timestep, for all blocks, folds, heads and runs.
CACHE = OUTPUT / "features.db"
C_GRID = [0.001, 0.01, 0.1, 1.0]
WEIGHTS = {"image": [0, 0.25, 0.5, 1.0]}

started = time.perf_counter()


def say(text):
    print(f"[{time.perf_counter() - started:4.0f} s] {text}", flush=True)


# A label that belongs to a single group is constant in a part of a split by group.
warnings.filterwarnings("ignore", message=".*labels are constant in y")
warnings.filterwarnings("ignore", message=".*labels have no positive in Y_true")
# Two descriptions are short essays.
warnings.filterwarnings("ignore", message=".* texts are longer")


def mean_average_precision(model, X, Y):
    print(".", end="", flush=True)
    return multilabel_report(Y, model.predict_proba(X))["mAP"]


def choose_head(features, Y, groups, Cs, weights="auto", **fixed):
    """Choose C and the modalities' weights by folds of the training groups."""
    folds = GroupKFold(3, shuffle=True, random_state=0)
    found = FusionClassifierCV(Cs, weights, cv=folds, **fixed)
    found.fit(features, Y, groups=groups)
    chosen = found.modality_weights_ if weights != "auto" else None
    return FusionClassifier(C=found.C_, modality_weights=chosen, **fixed)


def choose_place(transformer, cells, Y, groups, grid):
    """Choose block and timestep by a grid search over training groups."""
    # Looser than the default: good enough to compare blocks and timesteps.
    head = FusionClassifier(C=0.01, tol=1e-4)
    model = Pipeline([("features", transformer), ("head", head)])
    search = GridSearchCV(
        model,
        {f"features__{name}": values for name, values in grid.items()},
        scoring=mean_average_precision,
        cv=GroupKFold(2, shuffle=True, random_state=0),
        refit=False,
    )
    search.fit(cells, Y, groups=groups)
    print()
    rows = zip(
        search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
    )
    for parameters, score in rows:
        place = ", ".join(f"{k.split('__')[1]} {v}" for k, v in parameters.items())
        say(f"    {place}: mAP {score:.3f}")
    best = {k.split("__")[1]: v for k, v in search.best_params_.items()}
    return transformer.set_params(**best)


def raw_pixels(cells):
    pictures = [Image.open(io.BytesIO(cell)).resize((32, 32)) for cell in cells]
    pixels = np.stack([np.asarray(picture).ravel() for picture in pictures])
    return pixels.astype(np.float32) / 255


def dense(matrix):
    return matrix.toarray()


def draw(X, Y, scores, names, path):
    """Draw twelve test items with the labels found, missed and wrongly given."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7.2), dpi=120)
    figure.subplots_adjust(left=0.02, right=0.98, top=0.89, bottom=0.11)
    figure.suptitle("Held-out items: labels in black are right, red wrong, grey missed")
    rows = np.random.default_rng(3).choice(len(X), 12, replace=False)
    grid = figure.subplots(3, 4, gridspec_kw={"hspace": 0.72})
    for row, axes in zip(rows, grid.flat, strict=True):
        axes.imshow(Image.open(io.BytesIO(X["image"].iloc[row])))
        axes.set_axis_off()
        text = X["text"].iloc[row]
        axes.set_title(text if len(text) < 30 else f"{text[:28]}...", fontsize=9)
        found = np.flatnonzero(scores[row] >= 0.5)
        shown = [(names[i], "black" if Y[row, i] else "tab:red") for i in found]
        missed = np.setdiff1d(np.flatnonzero(Y[row]), found)
        shown += [(names[i], "0.45") for i in missed]
        for line, (label, color) in enumerate(shown[:4]):
            axes.text(
                0.5, -0.02 - 0.13 * line, label, color=color, fontsize=9,
                ha="center", va="top", transform=axes.transAxes,
            )  # fmt: skip
    figure.savefig(path)


def main():
    OUTPUT.mkdir(exist_ok=True)
    data = load_openclipart()
    X, Y, groups = data.data, data.target, data.groups
    train, test = data.split == "train", data.split == "test"
    X_train, Y_train, groups_train = X[train], Y[train], groups[train]
    X_test, Y_test = X[test], Y[test]
    say(
        f"{len(X_train):,} training and {len(X_test):,} test items of "
        f"{len(set(groups)):,} groups, {Y.shape[1]} labels"
    )
    models = {}

    say("raw pixels and TF-IDF words, with the same head")
    small = {
        "raw pixels": (
            make_pipeline(FunctionTransformer(raw_pixels), PCA(128, random_state=0)),
            "image",
            [0.03, 0.3],
        ),
        "TF-IDF words": (
            make_pipeline(
                TfidfVectorizer(dtype=np.float32), FunctionTransformer(dense)
            ),
            "text",
            [100, 300],
        ),
    }
    for name, (features, column, grid) in small.items():
        Z = features.fit_transform(X_train[column])
        head = choose_head(Z, Y_train, groups_train, grid, standardize=False)
        model = make_pipeline(features, head)
        models[name] = model.fit(X_train[column], Y_train), column

    say("grid search over the image's block, noise-free")
    image = choose_place(
        # The default precision differs between machines, and so do the last digits.
        ImageDiffusionFeatureTransformer(cache=CACHE, dtype="float32"),
        X_train["image"],
        Y_train,
        groups_train,
        {"timestep": [0], "block": [0, [0, 3]]},
    )
    say("grid search over the text's block and timestep")
    text = choose_place(
        TextDiffusionFeatureTransformer(cache=CACHE),
        X_train["text"],
        Y_train,
        groups_train,
        {"timestep": [0, 100], "block": [6, [0, 3, 6]]},
    )
    say(
        f"image: block {image.block}, timestep {image.timestep}; "
        f"text: block {text.block}, timestep {text.timestep}"
    )

    parts = {"image": ("image", image, "image"), "text": ("text", text, "text")}
    say("choosing the heads' C and the modalities' weights, on stored features")
    Z = make_fusion_pipeline(*parts.values())["features"].fit_transform(X_train)
    spans = Z.modalities
    Z = {
        "diffusion, image": Z[:, spans["image"]],
        "diffusion, text": Z[:, spans["text"]],
        "diffusion, fused": Z,
    }
    chosen = {
        "diffusion, image": ["image"],
        "diffusion, text": ["text"],
        "diffusion, fused": ["image", "text"],
    }
    for name, modalities in chosen.items():
        weights = WEIGHTS if len(modalities) > 1 else "auto"
        head = choose_head(Z[name], Y_train, groups_train, C_GRID, weights)
        weights = f", {head.modality_weights}" if head.modality_weights else ""
        say(f"fitting the pipeline: {name}, C {head.C}{weights}")
        model = make_fusion_pipeline(*(parts[m] for m in modalities), classifier=head)
        models[name] = model.fit(X_train, Y_train), ["image", "text"]

    say("scoring on the held-out groups")
    probabilities = {
        name: model.predict_proba(X_test[columns])
        for name, (model, columns) in models.items()
    }
    print(f"\n{'held-out groups':<18}{'mAP':>8}{'CF1':>8}{'OF1':>8}")
    for name, probability in probabilities.items():
        scores = multilabel_report(Y_test, probability)
        columns = "".join(f"{scores[key]:8.3f}" for key in ("mAP", "CF1", "OF1"))
        print(f"{name:<18}{columns}")
    print()

    fused, _ = models["diffusion, fused"]
    expected = probabilities["diffusion, fused"]
    draw(X_test, Y_test, expected, data.target_names, OUTPUT / "quickstart.png")
    say(f"picture: {OUTPUT / 'quickstart.png'}")

    joblib.dump(fused, OUTPUT / "model.joblib")
    joblib.dump((X_test[:200], expected[:200]), OUTPUT / "expected.joblib")
    code = (
        "import joblib, numpy, sys; "
        "X, p = joblib.load(f'{sys.argv[1]}/expected.joblib'); "
        "model = joblib.load(f'{sys.argv[1]}/model.joblib'); "
        "numpy.testing.assert_allclose(model.predict_proba(X), p, atol=1e-4)"
    )
    with tempfile.TemporaryDirectory() as elsewhere:
        # CACHE is relative: there, the store is empty and all is computed anew.
        Path(elsewhere, CACHE.parent).mkdir()
        command = [sys.executable, "-W", "ignore", "-c", code, OUTPUT.resolve()]
        subprocess.run(command, check=True, cwd=elsewhere)
    size = (OUTPUT / "model.joblib").stat().st_size / 1e6
    say(f"model.joblib ({size:.1f} MB) predicts the same in a fresh process")
    size = FeatureStore(CACHE).size / 1e6
    say(f"{CACHE} ({size:.0f} MB) keeps the features of every block: run this again")


if __name__ == "__main__":
    main()
