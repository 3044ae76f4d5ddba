"""Features on Spark: each partition fills a store; they come together here.

As it is, Spark runs in local mode; it needs Java. On a cluster, submit this file, and
name a folder that its machines and the driver can see::

    spark-submit examples/cluster/spark_features.py --cluster yarn --stores /shared/s

For GPUs, set ``spark.executor.resource.gpu.amount`` and its like for tasks; a task
finds its own by ``TaskContext.get().resources()["gpu"].addresses``, which is to be
given as the transformer's ``device="cuda:..."``.
"""

from _driver import TIMESTEPS, main
from pyspark.sql import SparkSession


def filler(stores, timesteps):
    """Return what Spark runs on each partition; nothing of this file is imported."""

    def fill(batches):
        import pandas as pd

        from sklearn_difffeat import ImageDiffusionFeatureTransformer
        from sklearn_difffeat.cluster import fill_store

        transformer = ImageDiffusionFeatureTransformer()
        for batch in batches:
            store = fill_store(
                transformer, batch, stores, column="image", timesteps=timesteps
            )
            yield pd.DataFrame({"store": [store]})

    return fill


def precompute(options, X):
    # A partition that is lost is tried again, four times in all, as on a cluster.
    master = options.cluster or f"local[{options.workers},4]"
    spark = (
        SparkSession.builder.master(master)
        .config("spark.ui.enabled", "false")
        # A batch is as large as a partition.
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", "10000")
        .getOrCreate()
    )
    # For pictures in files: spark.read.parquet, or format("binaryFile").
    table = spark.createDataFrame(X).repartition(options.partitions)
    fill = filler(str(options.stores), TIMESTEPS)
    table.mapInPandas(fill, "store string").collect()
    spark.stop()


if __name__ == "__main__":
    main("spark", __doc__, precompute)
