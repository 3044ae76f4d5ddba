"""The transformer's jobs and two searches on a backend of joblib that may be far."""

import os
import sys

import joblib
import numpy as np
from counting import VARIABLE, CountedImageTransformer, read_counts
from partitions import pictures
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from sklearn_difffeat import LocalSearchCV


def on_dask():
    from dask.distributed import Client, LocalCluster

    cluster = LocalCluster(2, threads_per_worker=1, dashboard_address=None)
    client = Client(cluster)
    return "dask", lambda: (client.close(), cluster.close())


def on_ray():
    import ray
    from ray.util.joblib import register_ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    register_ray()
    return "ray", ray.shutdown


def check():
    X = pictures()["image"].tolist()
    y = np.arange(len(X)) % 2
    plain = CountedImageTransformer(timestep=[0, 200], dtype="float32")
    expected = plain.fit_transform(X)
    # A path is read here; the workers need not see the file.
    os.makedirs("pictures", exist_ok=True)
    paths = [f"pictures/{i}.png" for i in range(len(X))]
    for path, content in zip(paths, X, strict=True):
        with open(path, "wb") as file:
            file.write(content)
    for cells in (X, paths):
        for cache in (None, True, "jobs.db"):
            transformer = plain.set_params(n_jobs=2, cache=cache)
            found = transformer.fit(cells).transform(cells)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    grid = {"z__block": [1, 2], "z__timestep": [0, 200]}
    scores = {}
    for cache in (None, "search.db"):
        z = CountedImageTransformer(cache=cache, dtype="float32")
        model = Pipeline([("z", z), ("head", RidgeClassifier())])
        for kind in (GridSearchCV, LocalSearchCV):
            before = read_counts(os.environ[VARIABLE]).forwards
            search = kind(model, grid, cv=2, n_jobs=2, error_score="raise").fit(X, y)
            passed = read_counts(os.environ[VARIABLE]).forwards - before
            results = zip(
                map(str, search.cv_results_["params"]),
                search.cv_results_["mean_test_score"],
                strict=True,
            )
            for name, score in results:
                assert abs(scores.setdefault(name, score) - score) < 1e-6, name
            print(kind.__name__, cache, passed)


if __name__ == "__main__":
    backend, close = {"dask": on_dask, "ray": on_ray}[sys.argv[1]]()
    with joblib.parallel_config(backend=backend):
        check()
    close()
