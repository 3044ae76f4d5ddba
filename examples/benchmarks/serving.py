"""Seconds from a fresh process to its first prediction, and those of one warm row.

A fused model is fitted on a few drawings and dumped. Fresh processes then import, load
it and predict one row, and go on with single rows. A warm row is compared with the bare
passes that it cannot do without: EfficientNet-Lite0's and the blocks of `dit-tiny` that
are read, and MiniLM's, on inputs that are ready.

    python examples/benchmarks/serving.py
"""

import argparse
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import joblib
import numpy as np
import torch
from _common import print_table, say, timed
from throughput import bare_loop
from transformers import AutoModelForMaskedLM

from sklearn_difffeat import (
    FusionClassifier,
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
    make_fusion_pipeline,
)
from sklearn_difffeat.backbones import load_backbone, locate_backbone
from sklearn_difffeat.datasets import load_openclipart
from sklearn_difffeat.extraction._devices import native_dtype

N_FIT, N_ROWS, N_TOKENS = 200, 60, 16
DTYPE = native_dtype("cpu")
# What a fresh process runs: imports are a part of a cold start.
SCRIPT = """
import sys, time
started = time.perf_counter()
import joblib
X = joblib.load("rows.joblib")
model = joblib.load("model.joblib")
model.predict_proba(X[:1])
cold = time.perf_counter() - started
warm = []
for row in range(1, len(X)):
    started = time.perf_counter()
    model.predict_proba(X[row : row + 1])
    warm.append(time.perf_counter() - started)
joblib.dump((cold, warm), "seconds.joblib")
"""


def make_model(folder):
    """Fit the model that ``make_fusion_pipeline`` makes, and dump it with some rows."""
    X, Y, _ = load_openclipart(return_X_y_groups=True)
    Y = Y[:N_FIT]
    model = make_fusion_pipeline(
        ("image", ImageDiffusionFeatureTransformer(), "image"),
        ("text", TextDiffusionFeatureTransformer(), "text"),
        classifier=FusionClassifier(C=0.1),
    )
    model.fit(X[:N_FIT], Y[:, Y.sum(axis=0) >= 5])
    joblib.dump(model, folder / "model.joblib")
    joblib.dump(X[N_FIT : N_FIT + N_ROWS], folder / "rows.joblib")


def bare_passes(repeats=40):
    """Return the median seconds of the passes of one picture and of one text."""
    picture = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    source, _ = locate_backbone("dit-tiny")
    image = load_backbone(source, device="cpu", dtype=getattr(torch, DTYPE))
    source, _ = locate_backbone("mdlm-tiny")
    text = AutoModelForMaskedLM.from_pretrained(source.location).base_model.eval()
    tokens = torch.randint(1_000, 2_000, (1, N_TOKENS))

    def both():
        with torch.inference_mode():
            text(tokens)
        # The deepest block of the recommended reading.
        bare_loop(image, picture, 3, [0], 1, stops=True)

    return np.median([timed(both)[0] for _ in range(repeats)])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=5)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*labels are constant in y")
    colds, warms = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder)
        for number in range(options.processes):
            subprocess.run([sys.executable, "-c", SCRIPT], cwd=folder, check=True)
            cold, warm = joblib.load(folder / "seconds.joblib")
            colds.append(cold)
            warms += warm
            say(f"    {number + 1}: cold {cold:.1f} s, warm {np.median(warm):.3f} s")
    rows = [
        (
            "import to first prediction",
            f"{np.median(colds):.1f} s",
            f"{max(colds):.1f} s",
        ),
        ("one warm row", ms(np.median(warms)), ms(np.quantile(warms, 0.95))),
        ("the bare passes of one row", ms(bare_passes()), ""),
    ]
    names = ("step", "median", "largest, or 95%")
    table = [dict(zip(names, row, strict=True)) for row in rows]
    print_table(f"{options.processes} fresh processes, {N_ROWS - 1} rows each:", table)


def ms(seconds):
    return f"{1e3 * seconds:.0f} ms"


if __name__ == "__main__":
    main()
