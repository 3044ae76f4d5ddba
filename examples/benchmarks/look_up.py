"""What it costs to ask a warm store for large cells, against preparing them.

Every cell has to be identified by its content before the store can be asked. The naive
way is what a transform without a store does first: decode and resize each picture, or
tokenize each text as a whole. Both are timed on the same cells.

    python examples/benchmarks/look_up.py
"""

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np
from _common import MB, interleaved, print_table
from PIL import Image

from sklearn_difffeat import (
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
)

SIZE = 64


def make_pictures(count, height, width):
    """Return smooth pictures: noise would make the files larger than photographs."""
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (count, 30, 40, 3), dtype=np.uint8)
    return [Image.fromarray(one).resize((width, height)) for one in small]


def resized(cells):
    for cell in cells:
        image = cell if isinstance(cell, Image.Image) else Image.open(cell)
        image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def compare(what, cells, naive, transformer, megabytes, repeats):
    """Return the table's row for one kind of cell."""
    transformer.fit(cells).transform(cells)
    taken = interleaved(
        {"naive": naive, "store": lambda: transformer.transform(cells)}, repeats
    )
    return {
        "cells": what,
        "MB": f"{megabytes:.0f}",
        "prepared, s": f"{taken['naive']:.2f}",
        "warm transform, s": f"{taken['store']:.2f}",
        "ratio": f"{taken['naive'] / taken['store']:.1f}",
    }


def report(n_pictures, height, width, n_characters, repeats):
    """Print the table."""
    from transformers import AutoTokenizer

    from sklearn_difffeat.backbones import locate_backbone

    pictures = make_pictures(n_pictures, height, width)
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder, f"{i}.jpg")) for i in range(n_pictures)]
        for picture, path in zip(pictures, paths, strict=True):
            picture.save(path)
        size = sum(Path(path).stat().st_size for path in paths) / MB
        image = ImageDiffusionFeatureTransformer(cache=str(Path(folder, "i.db")))
        raw = n_pictures * height * width * 3 / MB
        shape = f"{n_pictures} of {width} x {height}"
        rows = [
            compare(f"PIL pictures, {shape}", pictures, lambda: resized(pictures),
                    image, raw, repeats),
            compare(f"paths, {shape}", paths, lambda: resized(paths),
                    image, size, repeats),
        ]  # fmt: skip
        words = np.random.default_rng(0).choice(["apple", "bird", "boat"], 10**6)
        text = " ".join(words)[:n_characters]
        source, _ = locate_backbone("mdlm-tiny")
        tokenizer = AutoTokenizer.from_pretrained(source.snapshot)
        texts = TextDiffusionFeatureTransformer(max_length=128)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*longer than")
            rows.append(
                compare(f"one text of {n_characters:,} characters", [text],
                        lambda: tokenizer(text, truncation=True, max_length=128),
                        texts, n_characters / MB, repeats)
            )  # fmt: skip
    rows[-1]["cells"] += " (no store)"
    print_table(
        "Cells prepared as a whole, and a transform of the same cells: from a warm "
        "store, or of a text too long for the model:",
        rows,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--height", type=int, default=2400)
    parser.add_argument("--width", type=int, default=3200)
    parser.add_argument("--characters", type=int, default=4_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    report(
        options.pictures,
        options.height,
        options.width,
        options.characters,
        options.repeats,
    )


if __name__ == "__main__":
    main()
