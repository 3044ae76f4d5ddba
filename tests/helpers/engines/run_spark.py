"""Fill stores on Spark in local mode, whose Python workers die twice."""

import os

from partitions import pictures
from pyspark.sql import SparkSession


def filler(folder):
    def fill(batches):
        import pandas as pd
        from partitions import fill_or_die

        for batch in batches:
            store = fill_or_die([bytes(cell) for cell in batch["image"]], folder)
            yield pd.DataFrame({"store": [store]})

    return fill


if __name__ == "__main__":
    # A task is tried four times, as on a cluster.
    spark = SparkSession.builder.master("local[2,4]").getOrCreate()
    table = spark.createDataFrame(pictures()).repartition(6)
    table.mapInPandas(filler(os.path.abspath("stores")), "store string").collect()
    spark.stop()
