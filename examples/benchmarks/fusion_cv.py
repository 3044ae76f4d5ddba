"""Time of FusionClassifierCV, and of a fit with unknown labels, beside scikit-learn's.

The first table chooses C and the weight of the image: by FusionClassifierCV, and by
GridSearchCV over FusionClassifier with the same grid, folds and scores. The second
hides a share of the labels of the training rows: FusionClassifier takes them as NaN,
and one LogisticRegression a label is fitted on the rows that know it; it says how far
the probabilities of new rows are from those of the optimum, at most. The features are
the correlated ones of ``fusion.py``. All models run in this process on one thread, and
seconds are those of its processor, so that a busy machine changes no ratio.

    python examples/benchmarks/fusion_cv.py
"""

import argparse
import os
import time

for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import warnings  # noqa: E402

import numpy as np  # noqa: E402
from _common import mean_average_precision, print_table, say  # noqa: E402
from fusion import make_features  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.model_selection import GridSearchCV, KFold  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

from sklearn_difffeat import (  # noqa: E402
    FusionClassifier,
    FusionClassifierCV,
    multilabel_report,
)

CS = [0.001, 0.01, 0.1, 1.0, 10.0]
IMAGE_WEIGHTS = [0.0, 0.1, 0.3, 1.0]


def timed(task):
    """Return the processor's seconds that a task takes, and what it returns."""
    started = time.process_time()
    found = task()
    return time.process_time() - started, found


def make_data(n, widths, n_labels):
    """Correlated features, and labels by a logistic model of 40 directions."""
    random = np.random.default_rng(0)
    X = make_features(n, widths, "correlated", random)
    directions = random.standard_normal((X.shape[1], 40), dtype=np.float32)
    logits = X @ directions @ random.standard_normal((40, n_labels), dtype=np.float32)
    logits *= 3 / logits.std(axis=0)
    logits += random.logistic(size=logits.shape).astype(np.float32)
    rates = np.geomspace(0.02, 0.3, n_labels)
    cuts = [np.quantile(logits[:, i], 1 - rate) for i, rate in enumerate(rates)]
    return X, (logits > cuts).astype(np.uint8)


def choosing(n, widths, n_labels):
    """Print how long the choice takes, and how far its scores are from the grid's."""
    X, Y = make_data(n, widths, n_labels)
    spans = dict(zip(("image", "text"), widths, strict=True))
    cv = KFold(3)
    ours = FusionClassifierCV(CS, {"image": IMAGE_WEIGHTS}, cv=cv, modalities=spans)
    grid = {"modality_weights": [{"image": w} for w in IMAGE_WEIGHTS], "C": CS}
    theirs = GridSearchCV(
        FusionClassifier(modalities=spans),
        grid,
        scoring=mean_average_precision,
        cv=cv,
    )
    seconds = {}
    for name, model in (("FusionClassifierCV", ours), ("GridSearchCV", theirs)):
        seconds[name], _ = timed(lambda m=model: m.fit(X, Y))
        say(f"    {name}: {seconds[name]:.1f} s")
    shape = len(CS), len(IMAGE_WEIGHTS)
    expected = theirs.cv_results_["mean_test_score"].reshape(shape).T
    apart = np.abs(ours.scores_.mean(axis=0) - expected).max()
    best = theirs.best_params_
    chosen = {
        "FusionClassifierCV": (ours.C_, ours.modality_weights_["image"], apart),
        "GridSearchCV": (best["C"], best["modality_weights"]["image"], 0.0),
    }
    rows = [
        {
            "model": name,
            "seconds": f"{seconds[name]:.1f}",
            "times ours": f"{seconds[name] / seconds['FusionClassifierCV']:.1f}",
            "C": f"{C:g}",
            "image weight": f"{weight:g}",
            "largest difference in score": f"{difference:.4f}",
        }
        for name, (C, weight, difference) in chosen.items()
    ]
    about = (
        f"{len(CS)} C x {len(IMAGE_WEIGHTS)} weights x 3 folds, {n:,} rows x "
        f"({widths[0]} + {widths[1]}) columns x {n_labels} labels:"
    )
    print_table(about, rows)


def one_a_label(X, Y, X_test, tol=1e-4):
    """Scores of the test rows, each label fitted on the rows that know it."""
    scores = np.empty((len(X_test), Y.shape[1]))
    scaler = StandardScaler().fit(X)
    X, X_test = scaler.transform(X), scaler.transform(X_test)
    for label, y in enumerate(Y.T):
        known = ~np.isnan(y)
        model = LogisticRegression(tol=tol, max_iter=10_000).fit(X[known], y[known])
        scores[:, label] = model.predict_proba(X_test)[:, 1]
    return scores


def unknown(n, widths, n_labels, share):
    """Print how long a fit on partly known labels takes, and its mAP on new rows."""
    n_test = max(n // 5, 200)
    X, Y = make_data(n + n_test, widths, n_labels)
    hidden = np.random.default_rng(1).random((n, n_labels)) < share
    partly, X_test = np.where(hidden, np.nan, Y[:n]), X[n:]
    X = X[:n]

    def ours(tol):
        return FusionClassifier(tol=tol).fit(X, partly).predict_proba(X_test)

    def theirs(tol):
        return one_a_label(X, partly, X_test, tol)

    # Two pairs that stop about as far from the optimum; both defaults are among them.
    models = {
        "FusionClassifier": (ours, 1e-8),
        "LogisticRegression a label, tol=1e-6": (theirs, 1e-6),
        "FusionClassifier, tol=3e-4": (ours, 3e-4),
        "LogisticRegression a label": (theirs, 1e-4),
    }
    optimum = theirs(1e-9)
    rows, least = [], None
    for name, (fit, tol) in models.items():
        seconds, scores = timed(lambda f=fit, t=tol: f(t))
        say(f"    {name}: {seconds:.1f} s")
        least = seconds if fit is ours else least
        rows.append(
            {
                "model": name,
                "seconds": f"{seconds:.2f}",
                "times ours": f"{seconds / least:.1f}",
                "farthest from the optimum": f"{np.abs(scores - optimum).max():.3f}",
                "mAP": f"{multilabel_report(Y[n:], scores)['mAP']:.3f}",
            }
        )
    about = (
        f"{share:.0%} of the entries unknown, {n:,} rows x ({widths[0]} + {widths[1]}) "
        f"columns x {n_labels} labels, {n_test:,} new rows:"
    )
    print_table(about, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true", help="a look in seconds")
    small = parser.parse_args().small
    warnings.simplefilter("ignore", UserWarning)
    choosing(*((240, (60, 40), 8) if small else (2_400, (896, 768), 80)))
    unknown(*((500, (60, 40), 8) if small else (5_000, (360, 240), 40)), 0.6)


if __name__ == "__main__":
    main()
