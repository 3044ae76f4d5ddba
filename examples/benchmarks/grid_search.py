"""What a search over blocks and timesteps costs, with and without the feature store.

Searches block x timestep x C of an image pipeline on the bundled drawings: without a
cache, with ``Pipeline(memory=)``, with ``cache=`` a path, and with the same path again.
Counts rows through the model and models loaded, over all processes, and takes the time.
Batch size, precision and head are the same in every row of the table; the time of a
search includes loading models and, with two jobs, starting the workers.

    python examples/benchmarks/grid_search.py --rows 100 --jobs 1
"""

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np
from _common import mean_average_precision, print_table, say, timed
from counting import CountedImageTransformer, counting
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline

from sklearn_difffeat import FusionClassifier
from sklearn_difffeat.datasets import load_openclipart

N_FOLDS = 5
N_LABELS = 8
BATCH_SIZE = 32
C_GRID = [0.03, 0.1, 0.3]
PLACES = {"block": [0, 1, 2, 4], "timestep": [0, 50, 100]}


def load_rows(n_rows):
    """Return pictures spread over the data set, and their most frequent labels."""
    X, Y, _ = load_openclipart(return_X_y_groups=True)
    n_rows = n_rows or len(X)
    rows = np.linspace(0, len(X) - 1, n_rows).astype(int)
    frequent = np.argsort(-Y[rows].sum(axis=0), kind="stable")[:N_LABELS]
    return X["image"].iloc[rows], Y[rows][:, frequent]


def search(X, Y, places, *, cache=None, memory=None, n_jobs=1):
    """Run the grid search; return its scores."""
    features = CountedImageTransformer(
        cache=cache, batch_size=BATCH_SIZE, dtype="float32"
    )
    model = Pipeline(
        [("features", features), ("head", FusionClassifier())], memory=memory
    )
    grid = {f"features__{name}": values for name, values in places.items()}
    found = GridSearchCV(
        model,
        grid | {"head__C": C_GRID},
        scoring=mean_average_precision,
        cv=KFold(N_FOLDS, shuffle=True, random_state=0),
        refit=False,
        n_jobs=n_jobs,
        error_score="raise",
    ).fit(X, Y)
    return found.cv_results_["mean_test_score"]


def compare(X, Y, places, jobs):
    """Return the table's rows: each setup, what it cost, and how plain compares."""
    rows, expected, plain_seconds = [], None, {}
    with tempfile.TemporaryDirectory() as folder:
        one, two = Path(folder, "one.db"), Path(folder, "two.db")
        setups = [
            ("plain", {}),
            ("Pipeline(memory=)", {"memory": folder}),
            ("cache=path", {"cache": one}),
            ("cache=path, again", {"cache": one}),
            ("plain", {"n_jobs": 2}),
            ("cache=path", {"cache": two, "n_jobs": 2}),
        ]
        for name, options in setups:
            n_jobs = options.get("n_jobs", 1)
            if n_jobs not in jobs:
                continue
            with counting() as counts:
                seconds, scores = timed(lambda o=options: search(X, Y, places, **o))
                forwards, loads = counts()
            say(f"    {name}, n_jobs={n_jobs}: {forwards:,} rows, {seconds:.1f} s")
            expected = scores if expected is None else expected
            np.testing.assert_allclose(scores, expected, atol=1e-3)
            if name == "plain":
                plain_seconds[n_jobs] = seconds
            rows.append(
                {
                    "setup": name,
                    "n_jobs": str(n_jobs),
                    "rows through the model": f"{forwards:,}",
                    "loads": str(loads),
                    "seconds": f"{seconds:.1f}",
                    "times faster": f"{plain_seconds[n_jobs] / seconds:.1f}",
                }
            )
    return rows


def report(n_rows, places=PLACES, jobs=(1, 2)):
    """Print the table of one search."""
    X, Y = load_rows(n_rows)
    shape = [*map(len, places.values()), len(C_GRID), N_FOLDS]
    blocks, timesteps, heads, folds = shape
    about = (
        f"Grid search over {blocks} blocks x {timesteps} timesteps x {heads} C, "
        f"{folds} folds, {len(X):,} images, {Y.shape[1]} labels, `dit-tiny`:"
    )
    say(f"  grid search, {len(X):,} images")
    warnings.filterwarnings("ignore", message=".*labels are constant in y")
    print_table(about, compare(X, Y, places, jobs))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=100, help="0 is all")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    report(options.rows, jobs=options.jobs)


if __name__ == "__main__":
    main()
