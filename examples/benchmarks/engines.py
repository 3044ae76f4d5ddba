"""Rows a second on one and two workers of each engine, against a plain loop.

The loop is ``precompute`` in this process. Each engine runs its recipe of
``examples/cluster`` in a fresh process: it starts, fills stores and stops, all of which
counts. What is left when the passes are taken away is its overhead.

    python examples/benchmarks/engines.py --rows 400
"""

import argparse
import os
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from _common import in_fresh_process, print_table, say, timed

CLUSTER = Path(__file__).parents[1] / "cluster"
ENGINES = ("loky", "dask", "ray", "spark")


def run(engine, n_rows, n_workers, stores):
    """Return the seconds of one engine, or of the plain loop."""
    # Each worker computes in one thread, as on a cluster's cores.
    os.environ["OMP_NUM_THREADS"] = "1"
    # The engines' own processes have to find the recipe, too.
    os.environ["PYTHONPATH"] = str(CLUSTER)
    sys.path.insert(0, str(CLUSTER))
    from _driver import TIMESTEPS, load

    from sklearn_difffeat import ImageDiffusionFeatureTransformer

    X, _, _ = load(n_rows)
    if engine in ("loop", "loky"):
        transformer = ImageDiffusionFeatureTransformer(
            cache=Path(stores, "all.db"), n_jobs=n_workers
        )
        return timed(lambda: transformer.precompute(X, timesteps=TIMESTEPS))[0]
    options = argparse.Namespace(
        stores=Path(stores), partitions=8, workers=n_workers, cluster=None
    )
    recipe = import_module(f"{engine}_features")
    return timed(lambda: recipe.precompute(options, X))[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--engines", nargs="*", default=ENGINES)
    options = parser.parse_args()
    rows = []
    for engine in ("loop", *options.engines):
        for n_workers in (1,) if engine == "loop" else (1, 2):
            with tempfile.TemporaryDirectory() as stores:
                seconds = in_fresh_process(run, engine, options.rows, n_workers, stores)
            say(f"{engine}, {n_workers}: {seconds:.1f} s")
            if engine == "loop":
                plain = seconds
            rows.append(
                {
                    "engine": engine,
                    "workers": str(n_workers),
                    "rows/s": f"{options.rows / seconds:.1f}",
                    "seconds": f"{seconds:.1f}",
                    "over the loop's share": f"{seconds - plain / n_workers:.1f} s",
                }
            )
    print_table(f"{options.rows} pictures, two timesteps each, all blocks", rows)


if __name__ == "__main__":
    main()
