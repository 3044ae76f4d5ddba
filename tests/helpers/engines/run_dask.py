"""Fill stores on Dask, whose workers die twice."""

import os

import dask
import dask.dataframe as dd
from dask.distributed import Client, LocalCluster
from partitions import fill_or_die, pictures


def fill(partition, folder):
    store = fill_or_die(partition["image"].tolist(), folder)
    return partition[[]].assign(store=store)


if __name__ == "__main__":
    dask.config.set({"dataframe.convert-string": False})
    with (
        LocalCluster(2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
    ):
        table = dd.from_pandas(pictures(), npartitions=6)
        folder = os.path.abspath("stores")
        table.map_partitions(fill, folder, meta={"store": "object"}).compute()
