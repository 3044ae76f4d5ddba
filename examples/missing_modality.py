"""Classify drawings of which some have no text and some no picture.

Half of the held-out items of OpenClipart lose their picture or their text, at random.
A fused model classifies every item from what it has. When copies of the training items
that lack a modality are added to the fit, it is about as good as a model of that
modality alone. C, the weight of the image and the weight of the whole items are chosen
on training groups.

Run ``python examples/missing_modality.py``: a quarter of an hour, mostly fits.
``output/`` keeps the features.
"""

import warnings
from itertools import product
from pathlib import Path

import numpy as np
from sklearn.model_selection import GroupShuffleSplit

from sklearn_difffeat import (
    FusionClassifier,
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
    multilabel_report,
)
from sklearn_difffeat.datasets import load_openclipart

CACHE = Path("output") / "features.db"
MODALITIES = ["image", "text"]
C_GRID = [0.003, 0.01, 0.03, 0.1]
FUSED_GRID = {
    "C": [0.003, 0.01, 0.03, 0.1],
    "image_weight": [0.5, 1.0],
    "whole": [0, 0.03, 0.3],
}

warnings.filterwarnings("ignore", message=".*labels are constant in y")
warnings.filterwarnings("ignore", message=".*labels have no positive in Y_true")
warnings.filterwarnings("ignore", message=".* texts are longer")


def extract(cells):
    """Features of all items, as they are recommended for the two backbones."""
    CACHE.parent.mkdir(exist_ok=True)
    # The default precision differs between machines, and so do the last digits.
    image = ImageDiffusionFeatureTransformer(cache=CACHE, dtype="float32")
    text = TextDiffusionFeatureTransformer(cache=CACHE)
    return (
        np.asarray(image.fit_transform(cells["image"])),
        np.asarray(text.fit_transform(cells["text"])),
    )


def without(X, spans, modality, rows=slice(None)):
    """A copy of X whose rows lack a modality."""
    X = X.copy()
    X[rows, spans[modality]] = np.nan
    return X


def lose_half(X, spans, random):
    """Take the picture or the text, at random, from a random half of the rows."""
    rows = random.permutation(len(X))[: len(X) // 2]
    modality = random.integers(0, 2, len(rows))
    for number, name in enumerate(MODALITIES):
        X = without(X, spans, name, rows[modality == number])
    return X


def fit_fused(X, Y, spans, C, image_weight, whole=1.0):
    """Fit on whole items, and on copies that lack a modality, of weight 1 - whole."""
    model = FusionClassifier(
        modalities=spans, C=C, modality_weights={"image": image_weight}
    )
    if whole == 1:
        return model.fit(X, Y)
    copies = [X, *(without(X, spans, name) for name in MODALITIES)]
    weight = np.repeat([whole, (1 - whole) / 2, (1 - whole) / 2], len(X))
    return model.fit(np.vstack(copies), np.tile(Y, (3, 1)), sample_weight=weight)


def fit_single(X, Y, spans, C):
    """Fit on one modality; rows without it get the frequencies of the labels."""
    return FusionClassifier(modalities={"all": X.shape[1]}, C=C).fit(X, Y)


def score(proba, Y):
    return multilabel_report(Y, proba)["mAP"]


def main():
    data = load_openclipart()
    image, text = extract(data.data)
    X = np.hstack([image, text])
    width = image.shape[1]
    spans = {"image": slice(0, width), "text": slice(width, X.shape[1])}
    Y, train = data.target, data.split == "train"
    X_train, Y_train, groups = X[train], Y[train], data.groups[train]
    splits = GroupShuffleSplit(n_splits=3, test_size=0.3, random_state=0)
    folds = list(splits.split(X_train, groups=groups))
    gaps = []
    for seed, (_, held) in enumerate(folds):
        lost = lose_half(X_train[held], spans, np.random.default_rng(seed))
        gap = np.isnan(lost).any(axis=1)
        gaps.append((lost[gap], Y_train[held][gap]))

    def choose(fit, grid, columns, held_out):
        """Fit the setting with the best mean mAP on what the folds hold out."""

        def mean_score(setting):
            models = [
                fit(X_train[kept][:, columns], Y_train[kept], spans, **setting)
                for kept, _ in folds
            ]
            return np.mean(
                [
                    score(model.predict_proba(X[:, columns]), Y)
                    for model, (X, Y) in zip(models, held_out, strict=True)
                ]
            )

        settings = [dict(zip(grid, v, strict=True)) for v in product(*grid.values())]
        best = max(settings, key=mean_score)
        print(f"  chosen on training groups: {best}", flush=True)
        return fit(X_train[:, columns], Y_train, spans, **best)

    whole = [(X_train[held], Y_train[held]) for _, held in folds]
    models = {}
    for name, fit, grid, columns, held_out in [
        ("image model", fit_single, {"C": C_GRID}, spans["image"], whole),
        ("text model", fit_single, {"C": C_GRID}, spans["text"], whole),
        (
            "fused, whole items",
            fit_fused,
            {**FUSED_GRID, "whole": [1.0]},
            slice(None),
            gaps,
        ),
        ("fused, with copies", fit_fused, FUSED_GRID, slice(None), gaps),
    ]:
        print(name)
        models[name] = choose(fit, grid, columns, held_out), columns

    X_test, Y_test = X[~train], Y[~train]
    rows = {}
    for seed in range(5):
        lost = lose_half(X_test, spans, np.random.default_rng(100 + seed))
        no_image, no_text = (
            np.isnan(lost[:, spans[m]]).any(axis=1) for m in MODALITIES
        )
        parts = (no_image | no_text, no_image, no_text, np.ones(len(lost), dtype=bool))
        probas = {
            name: model.predict_proba(lost[:, columns])
            for name, (model, columns) in models.items()
        }
        probas["text, else image"] = np.where(
            no_text[:, None], probas["image model"], probas["text model"]
        )
        for name, proba in probas.items():
            found = [score(proba[part], Y_test[part]) for part in parts]
            rows.setdefault(name, []).append(found)
    print("\nmAP on held-out groups, mean of 5 draws of what is missing")
    heads = ("half with a gap", "text alone", "picture alone", "all items")
    print(f"{'':<20}" + "".join(f"{head:>17}" for head in heads))
    for name, scores in rows.items():
        print(f"{name:<20}" + "".join(f"{s:17.3f}" for s in np.mean(scores, axis=0)))


if __name__ == "__main__":
    main()
