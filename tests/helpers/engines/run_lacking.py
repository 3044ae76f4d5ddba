"""A Dask worker that cannot import the package; the caller has to hear of it."""

import joblib
from dask.distributed import Client, LocalCluster

PRELOADED = """
import sys
from importlib.abc import MetaPathFinder

class Lacking(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.startswith("sklearn_difffeat"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Lacking())
"""


def main():
    from sklearn_difffeat import TextDiffusionFeatureTransformer

    transformer = TextDiffusionFeatureTransformer(n_jobs=2)
    options = {"threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(1, preload=[PRELOADED], **options) as cluster, Client(cluster):
        try:
            with joblib.parallel_config(backend="dask"):
                transformer.fit_transform(["a red apple", "two birds"] * 40)
        except ModuleNotFoundError as error:
            print(error)


if __name__ == "__main__":
    main()
