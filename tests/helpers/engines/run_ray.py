"""Fill stores with Ray Data, whose actors die twice."""

import os

import ray
from partitions import fill_or_die, pictures


class Fill:
    def __init__(self, folder):
        self.folder = folder

    def __call__(self, batch):
        return {"store": [fill_or_die(batch["image"].tolist(), self.folder)]}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    table = pictures()
    blocks = [table[start : start + 4] for start in range(0, 24, 4)]
    ray.data.from_pandas(blocks).map_batches(
        Fill,
        fn_constructor_args=[os.path.abspath("stores")],
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=2),
    ).materialize()
    ray.shutdown()
