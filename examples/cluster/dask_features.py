"""Features on a Dask cluster: each partition fills a store; they come together here.

As it is, two worker processes of this machine are started. On a cluster, name its
scheduler, and a folder that its machines and this one can see::

    python examples/cluster/dask_features.py --cluster tcp://head:8786 --stores /nfs/s

Start its workers with ``--nthreads 1``: torch has threads of its own. A worker with a
GPU uses it; ``CUDA_VISIBLE_DEVICES`` says which, as dask-cuda's workers set it.
"""

import dask
import dask.dataframe as dd
from _driver import TIMESTEPS, main
from dask.distributed import Client, LocalCluster

from sklearn_difffeat import ImageDiffusionFeatureTransformer
from sklearn_difffeat.cluster import fill_store


def fill(partition, stores, timesteps):
    transformer = ImageDiffusionFeatureTransformer()
    store = fill_store(
        transformer, partition, stores, column="image", timesteps=timesteps
    )
    return partition[[]].assign(store=str(store))


def precompute(options, X):
    cluster = options.cluster or LocalCluster(
        n_workers=options.workers, threads_per_worker=1, dashboard_address=None
    )
    # Bytes are no text. For pictures in files: dd.read_parquet, a column of paths.
    with dask.config.set({"dataframe.convert-string": False}), Client(cluster):
        table = dd.from_pandas(X, npartitions=options.partitions)
        meta = {"store": "object"}
        table.map_partitions(fill, options.stores, TIMESTEPS, meta=meta).compute()
    if not options.cluster:
        cluster.close()


if __name__ == "__main__":
    main("dask", __doc__, precompute)
