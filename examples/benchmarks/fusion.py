"""Time and objective of FusionClassifier and of one LogisticRegression per label.

``python examples/benchmarks/fusion.py`` prints the figures of
docs/background/fusion.md; name some of the parts ``small``, ``large`` and ``vg500`` to
run these alone. Every model is fitted in a process of its own, after a fit of 500 rows
that warms it up: with as many threads of matrix products as ``--cores``, or, for
scikit-learn's, as many jobs of one thread each.

The features are synthetic, float32 and standardised, so that all models solve the same
problem at C=1. ``correlated`` columns have the decaying spectrum and the shared
directions of hidden states; ``independent`` columns are white noise, the easiest case
for a solver without a preconditioner. Label rates go from 0.5% to 30%. A model fitted
on some of the labels only is extrapolated to all and marked with ~.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

# Rows, widths of the modalities, labels, and on how many labels each model is fitted.
SHAPES = {
    "small": (5_000, (360, 240), 40, (40, 40, 40, 40, 8)),
    "large": (20_000, (1_152, 768), 80, (80, 20, 10, 5, 3)),
    "vg500": (82_904, (1_152, 768), 500, (500, 10, 0, 0, 0)),
}
MODELS = {
    "FusionClassifier": None,
    "OneVsRest, default": {},
    "OneVsRest, tol=1e-6": {"tol": 1e-6},
    "MultiOutput, tol=1e-6": {"tol": 1e-6},
    "reference": {"tol": 1e-10},
}


def make_features(n, widths, kind, random):
    """Standardised columns of modalities that share 32 directions."""
    if kind == "independent":
        X = random.standard_normal((n, sum(widths)), dtype=np.float32)
    else:
        shared = random.standard_normal((n, 32), dtype=np.float32)
        X = np.empty((n, sum(widths)), dtype=np.float32)
        for start, width in zip(np.cumsum([0, *widths]), widths, strict=False):
            own = random.standard_normal((n, width), dtype=np.float32)
            own[:, :32] = 0.6 * own[:, :32] + 0.8 * shared
            decay = np.arange(1, width + 1) ** -0.75
            mix = np.linalg.qr(random.standard_normal((width, width)))[0]
            X[:, start : start + width] = own @ (decay[:, None] * mix).astype("f4")
    X -= X.mean(axis=0, dtype=np.float64).astype("f4")
    X /= X.std(axis=0, dtype=np.float64).astype("f4")
    return X


def make_data(shape, kind):
    """Features, and labels by a logistic model of 40 shared directions."""
    n, widths, n_labels, _ = SHAPES[shape]
    random = np.random.default_rng(0)
    X = make_features(n, widths, kind, random)
    directions = random.standard_normal((X.shape[1], 40), dtype=np.float32)
    logits = X @ directions @ random.standard_normal((40, n_labels), dtype=np.float32)
    logits *= 3 / logits.std(axis=0)
    logits += random.logistic(size=logits.shape).astype(np.float32)
    rates = np.geomspace(0.005, 0.3, n_labels)
    cuts = [np.quantile(logits[:, i], 1 - rate) for i, rate in enumerate(rates)]
    return X, (logits > cuts).astype(np.uint8)


def objectives(X, Y, coef, intercept):
    """Objective of every label in double precision."""
    total = 0.5 * np.sum(coef.astype(np.float64) ** 2, axis=1)
    for start in range(0, len(X), 4_000):
        rows = slice(start, start + 4_000)
        logits = X[rows].astype(np.float64) @ coef.T + intercept
        total += (np.logaddexp(0, logits) - Y[rows] * logits).sum(axis=0)
    return total


def fit_one(shape, kind, name, n_jobs, path):
    """Fit one model and save its seconds, memory, objectives and probabilities."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.multioutput import MultiOutputClassifier

    from sklearn_difffeat import FusionClassifier

    X, Y = make_data(shape, kind)
    n_fitted = SHAPES[shape][-1][list(MODELS).index(name)]
    labels = np.random.default_rng(1).permutation(Y.shape[1])[:n_fitted]
    Y = Y[:, labels]
    if name == "FusionClassifier":
        model = FusionClassifier(standardize=False)
    else:
        logistic = LogisticRegression(max_iter=10_000, **MODELS[name])
        wrapper = MultiOutputClassifier if "Multi" in name else OneVsRestClassifier
        model = wrapper(logistic, n_jobs=n_jobs)
    if name == "reference":
        X = X.astype(np.float64)
    warnings.simplefilter("ignore")
    few = np.r_[Y.argmax(axis=0), Y.argmin(axis=0), :500]
    model.fit(X[few], Y[few])
    start = time.perf_counter()
    model.fit(X, Y)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if name == "FusionClassifier":
        coef, intercept = model.coef_, model.intercept_
    else:
        coef = np.vstack([fitted.coef_ for fitted in model.estimators_])
        intercept = np.hstack([fitted.intercept_ for fitted in model.estimators_])
    logits = X[:2_000].astype(np.float64) @ coef.T + intercept
    np.savez(
        path,
        seconds=seconds,
        peak=peak,
        objective=objectives(X, Y, coef, intercept),
        probability=1 / (1 + np.exp(-logits)),
    )


def in_a_process(shape, kind, name, cores):
    """What :func:`fit_one` saves."""
    threads, n_jobs = (cores, 1) if name == "FusionClassifier" else (1, cores)
    libraries = ("OMP", "OPENBLAS", "MKL")
    threads = {f"{library}_NUM_THREADS": str(threads) for library in libraries}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.npz"
        command = [sys.executable, __file__, "--fit", shape, kind, name]
        command += [str(n_jobs), str(path)]
        subprocess.run(command, env={**os.environ, **threads}, check=True)
        with np.load(path) as saved:
            return dict(saved)


def benchmark(shape, kind, cores):
    """Print the table of one shape."""
    n, widths, n_labels, counts = SHAPES[shape]
    print(
        f"\n{n:,} rows x {' + '.join(f'{w:,}' for w in widths)} {kind} columns x "
        f"{n_labels} labels, {cores} core(s)\n\n"
        "| model | seconds | times ours | objective | probability |\n"
        "|---|---|---|---|---|",
        flush=True,
    )
    ours, k = None, counts[-1]
    reference = in_a_process(shape, kind, "reference", cores) if k else None
    for name, n_fitted in zip(list(MODELS)[:-1], counts, strict=False):
        if not n_fitted:
            continue
        found = in_a_process(shape, kind, name, cores)
        seconds = found["seconds"] * n_labels / n_fitted
        ours = ours or seconds
        mark = "" if n_fitted == n_labels else "~"
        worst, apart = "", ""
        if reference is not None:
            excess = found["objective"][:k] / reference["objective"] - 1
            worst = f"{excess.max():+.1e}"
            difference = found["probability"][:, :k] - reference["probability"]
            apart = f"{np.abs(difference).max():.1e}"
        print(
            f"| {name} | {mark}{seconds:,.1f} | {mark}{seconds / ours:.1f} "
            f"| {worst} | {apart} |",
            flush=True,
        )
        if name == "FusionClassifier":
            peak = f"Peak memory of FusionClassifier's process: {found['peak']:.1f} GiB"
    print(f"\n{peak}, of which the features are {n * sum(widths) * 4 / 2**30:.1f} GiB.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(SHAPES))
    parser.add_argument("--kinds", nargs="+", default=["correlated", "independent"])
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--fit", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fit:
        *what, n_jobs, path = arguments.fit
        fit_one(*what, int(n_jobs), path)
        return
    print(
        "objective: the largest relative excess over the reference, one "
        "LogisticRegression(tol=1e-10) per label in float64 on some labels; "
        "probability: the largest difference from its, on 2,000 rows"
    )
    for part in arguments.parts or SHAPES:
        for kind in arguments.kinds:
            benchmark(part, kind, arguments.cores)


if __name__ == "__main__":
    main()
