"""Merging stores that workers filled: rows a second, memory, and a merge cut off.

Four stores of rows as wide as those of ``mdlm-tiny`` (7 blocks x 384, float32) are made
of random numbers and merged, each time in a process of its own, beside a plain copy of
the same files, which is the least that a merge could cost.

    python examples/benchmarks/merge.py --rows 25000
"""

import argparse
import multiprocessing
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from _common import MB, in_fresh_process, peak_bytes, print_table, say, timed

from sklearn_difffeat import FeatureStore
from sklearn_difffeat.store._chunk import Chunk, Pass
from sklearn_difffeat.store._rows import StoredRows

BLOCKS, WIDTH, BATCH = 7, 384, 32


def fill(path, n_rows, seed):
    """Keep rows of random numbers, in batches, as a transformer does."""
    random = np.random.default_rng(seed)
    space = StoredRows.space({"kind": "features", "backbone": "random"})
    store = StoredRows(path)
    for start in range(0, n_rows, BATCH):
        count = min(BATCH, n_rows - start)
        values = random.standard_normal((BLOCKS, count, WIDTH), dtype=np.float32)
        digests = [random.bytes(16) for _ in range(count)]
        cut = np.zeros(count, dtype=bool)
        store.put([Chunk(Pass(space, 0, 0), digests, cut, dict(enumerate(values)))])
    FeatureStore(path).close()


def merge(target, sources):
    """Return the seconds of a merge, and the bytes that it needed above the start."""
    store = FeatureStore(target)
    before = peak_bytes()
    seconds, _ = timed(lambda: store.merge(*sources))
    return seconds, peak_bytes() - before


def merge_and_die(target, sources, seconds):
    """Kill a process that merges, after so many seconds; return the rows it brought."""
    process = multiprocessing.get_context("spawn").Process(
        target=merge, args=(target, sources)
    )
    process.start()
    # Starting takes about as long as importing the package.
    time.sleep(3 + seconds)
    process.kill()
    process.join()
    store = FeatureStore(target)
    n_rows = int(store.describe()["rows"].sum())
    store.close()
    return n_rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=25_000, help="of each store")
    options = parser.parse_args()
    n_all = 4 * options.rows
    with tempfile.TemporaryDirectory() as folder:
        sources = [os.path.join(folder, f"part-{i}.db") for i in range(4)]
        for seed, path in enumerate(sources):
            say(f"filling {path}")
            fill(path, options.rows, seed)
        size = sum(Path(path).stat().st_size for path in sources)
        copied, _ = timed(
            lambda: [shutil.copyfile(path, f"{path}.copy") for path in sources]
        )
        rows = []

        def tell(what, n_rows, seconds, n_bytes):
            rows.append(
                {
                    "merge of": what,
                    "rows/s": f"{n_rows / seconds:,.0f}",
                    "seconds": f"{seconds:.1f}",
                    "MB above the start": f"{n_bytes / MB:.0f}",
                }
            )

        for count in (1, 2, 4):
            target = os.path.join(folder, f"all-{count}.db")
            found = in_fresh_process(merge, target, sources[:count])
            tell(f"{count} stores", count * options.rows, *found)
        whole, _ = found
        tell("4, once more", n_all, *in_fresh_process(merge, target, sources))
        cut = os.path.join(folder, "cut.db")
        n_before = merge_and_die(cut, sources, whole / 2)
        rest = in_fresh_process(merge, cut, sources)
        assert FeatureStore(cut).describe()["rows"].tolist() == [n_all]
        tell(f"4, after a kill at {n_before:,} rows", n_all - n_before, *rest)
    print_table(
        f"Stores of {options.rows:,} rows, {size / MB:,.0f} MB in four; a plain copy "
        f"of these files takes {copied:.1f} s, the merge {whole / copied:.1f} times it",
        rows,
    )


if __name__ == "__main__":
    main()
