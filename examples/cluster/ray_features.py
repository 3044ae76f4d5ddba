"""Features with Ray Data: each batch fills a store; they come together here.

As it is, a Ray of this machine is started. On a cluster, name its head, a folder that
its machines and this one can see, and ``num_gpus=1`` in ``map_batches``: Ray then gives
each actor a GPU of its own::

    python examples/cluster/ray_features.py --cluster auto --stores /shared/stores
"""

import ray
from _driver import TIMESTEPS, main
from sklearn.utils import gen_even_slices

from sklearn_difffeat import ImageDiffusionFeatureTransformer
from sklearn_difffeat.cluster import fill_store


class Fill:
    """An actor: the model stays loaded from batch to batch."""

    def __init__(self, stores, timesteps):
        self.stores, self.timesteps = stores, timesteps
        self.transformer = ImageDiffusionFeatureTransformer()

    def __call__(self, batch):
        store = fill_store(
            self.transformer,
            batch,
            self.stores,
            column="image",
            timesteps=self.timesteps,
        )
        return {"store": [store]}


def precompute(options, X):
    ray.init(
        options.cluster,
        num_cpus=None if options.cluster else options.workers,
        include_dashboard=False,
        logging_level="WARNING",
        log_to_driver=False,
    )
    # For pictures in files: ray.data.read_parquet, a column of paths or bytes.
    blocks = [X.iloc[part] for part in gen_even_slices(len(X), options.partitions)]
    found = ray.data.from_pandas(blocks).map_batches(
        Fill,
        fn_constructor_args=[options.stores, TIMESTEPS],
        batch_size=None,  # a block, whole
        compute=ray.data.ActorPoolStrategy(size=options.workers),
    )
    found.materialize()
    ray.shutdown()


if __name__ == "__main__":
    main("ray", __doc__, precompute)
