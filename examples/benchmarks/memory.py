"""Memory and time as the number of rows grows.

Transforms a list of image paths, each a different small file, with a small model, in
a fresh process for every number of rows: without a cache and into an empty store on
disk. The memory is the largest that the process had resident, so it includes Python,
the imported libraries and the matrix returned.

    python examples/benchmarks/memory.py --rows 1000 10000 100000
"""

import argparse
import os
import tempfile
from pathlib import Path

from _common import (
    MB,
    in_fresh_process,
    peak_bytes,
    print_table,
    save_dit,
    say,
    timed,
)

SIDE = 16
FILES_PER_FOLDER = 1000
MODEL = {
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 3,
    "out_channels": 6,
    "sample_size": SIDE,
    "patch_size": 4,
    "num_embeds_ada_norm": 10,
}


def image_path(folder, number):
    group = number // FILES_PER_FOLDER
    return os.path.join(folder, f"{group:03}", f"{number:06}.ppm")


def write_images(folder, count):
    """Write pictures of random pixels."""
    header = b"P6 %d %d 255\n" % (SIDE, SIDE)
    for number in range(count):
        path = image_path(folder, number)
        if number % FILES_PER_FOLDER == 0:
            os.makedirs(os.path.dirname(path))
        Path(path).write_bytes(header + os.urandom(3 * SIDE**2))


def transform(model, images, n_rows, cache):
    """Return the seconds taken, this process's peak memory and the output's size."""
    from sklearn_difffeat import ImageDiffusionFeatureTransformer

    paths = [image_path(images, number) for number in range(n_rows)]
    transformer = ImageDiffusionFeatureTransformer(
        model, cache=cache, dtype="float32"
    ).fit(paths)
    # Loading the model is not what grows.
    transformer.transform(paths[:1])
    seconds, features = timed(lambda: transformer.transform(paths))
    return seconds, peak_bytes(), features.nbytes


def compare(folder, images, sizes):
    """Yield the table's rows."""
    model = str(save_dit(Path(folder, "model"), MODEL))
    for kind in ("None", "path"):
        for n_rows in sizes:
            cache = str(Path(folder, f"{n_rows}.db")) if kind == "path" else None
            arguments = model, str(images), n_rows, cache
            seconds, peak, output = in_fresh_process(transform, *arguments)
            say(f"    cache {kind}, {n_rows:,} rows: {seconds:.1f} s")
            yield {
                "cache": kind,
                "rows": f"{n_rows:,}",
                "seconds": f"{seconds:.1f}",
                "rows/s": f"{n_rows / seconds:.0f}",
                "peak MB": f"{peak / MB:.0f}",
                "output MB": f"{output / MB:.1f}",
                "peak less output, MB": f"{(peak - output) / MB:.0f}",
            }


def report(sizes):
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images")
        say(f"  writing {max(sizes):,} pictures")
        write_images(images, max(sizes))
        rows = list(compare(folder, images, sizes))
    about = (
        f"Peak memory and time of transforming image paths ({SIDE} x {SIDE} pixels, a "
        "model of 2 blocks), each in a fresh process:"
    )
    print_table(about, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    report(parser.parse_args().rows)


if __name__ == "__main__":
    main()
