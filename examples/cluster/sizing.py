"""What a store of many rows would take: bytes, dollars, hours, with arithmetic alone.

Rates are those that ``throughput.py`` (DiT-XL/2 on two cores) and ``merge.py``
printed. Prices are Amazon's list prices for US East as others report them: S3 Standard
https://devnotes.tech/understanding-aws-s3-pricing-a-complete-cost-breakdown-with-examples
and RDS for PostgreSQL, June 2026,
https://www.usage.ai/blogs/aws/reserved-instances/rds/pricing-calculator/. The worker's
price is an assumption. Give your own::

    python examples/cluster/sizing.py --passes 300 --price 2.5 --workers 64
"""

import argparse
import math

# In US dollars: object storage a GB and month, a hundred thousand requests to write and
# to read, a GB and month of a managed PostgreSQL's disk.
OBJECT_GB, WRITES, READS, POSTGRES_GB = 0.023, 0.5, 0.04, 0.115
GB, HOUR = 1e9, 3600


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=float, default=1e9)
    parser.add_argument("--blocks", type=int, default=28)
    parser.add_argument("--channels", type=int, default=1152)
    parser.add_argument("--timesteps", type=int, default=1)
    parser.add_argument("--passes", type=float, default=1.5,
                        help="a second, of one worker")  # fmt: skip
    parser.add_argument("--price", type=float, default=0.09,
                        help="of one worker's hour, in dollars")  # fmt: skip
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--merged-per-second", type=float, default=16_500,
                        help="rows of 10.8 kB, as merge.py measures")  # fmt: skip
    parser.add_argument("--shard-gb", type=float, default=1.0)
    options = parser.parse_args()

    row = options.blocks * options.channels * 2 * options.timesteps
    size = options.rows * row
    # A row's entry in an index: 16 bytes of digest, 8 of place, and the tree's own.
    index = options.rows * 48
    merge_rate = options.merged_per_second * 10_752
    passes = options.rows * options.timesteps
    hours = passes / options.passes / HOUR
    shards = math.ceil(size / (options.shard_gb * GB))
    for name, value in (
        ("a row, half precision", f"{row / 1e3:,.1f} kB"),
        ("all rows", f"{size / 1e12:,.1f} TB"),
        ("their index of digests", f"{index / GB:,.0f} GB"),
        ("hours of one worker", f"{hours:,.0f}"),
        (
            f"days of {options.workers:,} workers",
            f"{hours / options.workers / 24:,.1f}",
        ),
        ("workers, dollars", f"{hours * options.price:,.0f}"),
        (f"shards of {options.shard_gb:g} GB", f"{shards:,}"),
        ("object storage, dollars a month", f"{size / GB * OBJECT_GB:,.0f}"),
        ("writing the shards, dollars", f"{shards / 1e5 * WRITES:,.2f}"),
        ("reading them once, dollars", f"{shards / 1e5 * READS:,.2f}"),
        (
            "reading each row alone, dollars",
            f"{options.rows / 1e5 * READS:,.0f}",
        ),
        ("Postgres, dollars a month", f"{size / GB * POSTGRES_GB:,.0f}"),
        (
            "index alone in Postgres, dollars a month",
            f"{index / GB * POSTGRES_GB:,.1f}",
        ),
        ("merged into one file, hours", f"{size / merge_rate / HOUR:,.0f}"),
        (
            "rows that one file merges in a day",
            f"{merge_rate * 24 * HOUR / row / 1e6:,.0f} million",
        ),
    ):
        print(f"{name:<42}{value:>16}")


if __name__ == "__main__":
    main()
