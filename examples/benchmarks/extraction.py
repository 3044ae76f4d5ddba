"""All benchmarks of the extraction engine and its feature store, as four tables.

    python examples/benchmarks/extraction.py > tables.md

Progress goes to the standard error, tables in Markdown to the standard output. With
``--quick`` the sizes are small: good for seeing that everything runs, not for figures.
"""

import argparse

import grid_search
import memory
import throughput
import warm_reads

SMALLER = {"num_layers": 4, "num_attention_heads": 4, "attention_head_dim": 16}
QUICK_LARGE = (
    "4 blocks + small VAE",
    throughput.XL | SMALLER,
    throughput.VAE | {"block_out_channels": (32,) * 4, "layers_per_block": 1},
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--rows", type=int, default=100, help="of the grid search")
    parser.add_argument("--xl-rows", type=int, default=2, help="images for DiT-XL/2")
    parser.add_argument("--device", help="of the throughput; the best one by default")
    options = parser.parse_args()
    if options.quick:
        grid_search.report(15, {"block": [1, 2], "timestep": [0]})
        throughput.report(
            16,
            1,
            batch_size=8,
            device=options.device,
            repeats=1,
            xl_repeats=1,
            large=QUICK_LARGE,
        )
        warm_reads.report(n_rows=2000, repeats=3)
        memory.report([200, 1000])
        return
    grid_search.report(options.rows)
    throughput.report(xl_rows=options.xl_rows, device=options.device)
    warm_reads.report(n_rows=50_000, repeats=15)
    memory.report([1_000, 10_000, 100_000])


if __name__ == "__main__":
    main()
