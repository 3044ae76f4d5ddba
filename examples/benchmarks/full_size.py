"""Full-size models with random weights, against the loop one writes with diffusers.

The loop loads the whole pipeline, puts a forward hook on the block, and for each
batch encodes the pixels, adds the noise and calls the model, which runs to its last
block. The transformer loads what features need and stops at the block. Both get the
same pixels, noise, batches and precision, each in a fresh process, and have to return
the same features. Sizes are those of DiT-XL/2, Stable Diffusion 3 medium, Flux.2 klein
4B and Z-Image at 256 pixels. Text encoders are small: SD3's have one layer, and T5 is
left out, which its pipeline allows; those of Flux.2 and Z-Image are narrow inside.

    python examples/benchmarks/full_size.py --rows 4 --models dit-xl sd3-medium
    python examples/benchmarks/full_size.py --rows 2 --batch-size 1 \\
        --models flux2-klein-4b z-image --dtypes bfloat16

A checkpoint takes 1.7 (DiT), 4.5 (SD3), 8 (Flux.2) or 13 GB (Z-Image) of disk, and a
process of bfloat16 up to twice as much memory, of which half is the mapped file;
float32 takes twice the weights. ``--rehearse`` runs narrow models in their place.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from _common import in_fresh_process, peak_bytes, print_table, say, timed
from _full_models import KINDS, TIMESTEP, full_model

GB = 1e9
SIDE = 256


def save(key, small, folder):
    full_model(key, small).save(folder)


def run_loop(model, folder, dtype, pixels, batch_size):
    """Return load and run seconds, peak memory and features of the loop."""
    import torch
    from diffusers.utils import logging

    from sklearn_difffeat.backbones._noise import gaussian_noise

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    with torch.inference_mode():
        loading, pipeline = timed(lambda: model.load(folder, getattr(torch, dtype)))
        vae, denoiser = pipeline.vae, pipeline.transformer
        caught = []
        model.module(denoiser).register_forward_hook(
            lambda module, args, output: caught.append(output)
        )

        def run(pixels):
            rows = []
            for start in range(0, len(pixels), batch_size):
                batch = torch.from_numpy(pixels[start : start + batch_size])
                scaled = batch.permute(0, 3, 1, 2) / 127.5 - 1
                latents = model.encode(vae, scaled.to(vae.dtype))
                noise = gaussian_noise(0, 0, tuple(latents.shape[1:]))
                noisy = model.add_noise(pipeline, latents, noise.expand_as(latents))
                model.call(denoiser, noisy.to(vae.dtype))
                tokens = model.picture(caught.pop(), latents[0, 0].numel())
                rows.append(tokens.float().mean(dim=1).numpy())
            return np.vstack(rows)

        # The first pass of a process is slower, whoever makes it.
        run(pixels[:1])
        running, features = timed(lambda: run(pixels))
    return loading, running, peak_bytes(), features


def run_transformer(model, folder, dtype, pixels, batch_size):
    """Return load and run seconds, peak memory and features of the transformer."""
    import torch

    from sklearn_difffeat import ImageDiffusionFeatureTransformer
    from sklearn_difffeat.backbones import load_backbone, locate_backbone

    source, _ = locate_backbone(folder)
    kind = getattr(torch, dtype)
    loading, _ = timed(lambda: load_backbone(source, device="cpu", dtype=kind))
    transformer = ImageDiffusionFeatureTransformer(
        folder, block=model.block, timestep=TIMESTEP, image_size=SIDE,
        batch_size=batch_size, dtype=dtype, device="cpu",
    ).fit(pixels[:1])  # fmt: skip
    transformer.transform(pixels[:1])
    running, features = timed(lambda: transformer.transform(pixels))
    return loading, running, peak_bytes(), features


def compare(model, dtype, folder, pixels, batch_size, repeats):
    """Return the table's row of a model in a precision."""
    sides = {"transform": run_transformer, "loop": run_loop}
    found = {side: [] for side in sides}
    for turn in range(repeats):
        for side, run in sides.items():
            result = in_fresh_process(run, model, folder, dtype, pixels, batch_size)
            found[side].append(result)
            say(
                f"  {model.name}, {dtype}, {turn + 1} of {repeats}, {side}: load "
                f"{result[0]:.1f} s, run {result[1]:.1f} s, {result[2] / GB:.1f} GB"
            )
    ours, theirs = (found[side][0][3] for side in sides)
    tolerance = 2e-3 if dtype == "float32" else 5e-2
    np.testing.assert_allclose(ours, theirs, atol=tolerance * np.abs(theirs).max())
    best = {side: np.min([r[:3] for r in rows], axis=0) for side, rows in found.items()}
    (load, run, peak), (loop_load, loop_run, loop_peak) = best.values()
    return {
        "model": model.name,
        "precision": dtype,
        "block": str(model.block),
        "load, s": f"{load:.1f}",
        "loop: load, s": f"{loop_load:.1f}",
        "images/s": f"{len(pixels) / run:.3f}",
        "loop: images/s": f"{len(pixels) / loop_run:.3f}",
        "ratio": f"{loop_run / run:.2f}",
        "peak GB": f"{peak / GB:.1f}",
        "loop: peak GB": f"{loop_peak / GB:.1f}",
    }


def report(models, dtypes, n_rows, *, batch_size=4, repeats=1, small=False):
    """Print the table."""
    shape = (n_rows, SIDE, SIDE, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    rows = []
    for key in models:
        model = full_model(key, small)
        with tempfile.TemporaryDirectory() as folder:
            say(f"  saving {key}")
            in_fresh_process(save, key, small, folder)
            size = sum(f.stat().st_size for f in Path(folder).rglob("*.safetensors"))
            say(f"  {size / GB:.1f} GB in bfloat16")
            for dtype in dtypes:
                rows.append(compare(model, dtype, folder, pixels, batch_size, repeats))
    kind = "narrow models, random weights" if small else "random weights"
    about = (
        f"{n_rows} pictures of {SIDE} x {SIDE} pixels, {batch_size} at a time, on the "
        f"CPU; {kind}, the middle block, timestep {TIMESTEP}; the faster of {repeats} "
        "fresh process(es) each:"
    )
    print_table(about, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=KINDS, default=["dit-xl"])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--rehearse", action="store_true", help="run narrow models")
    options = parser.parse_args()
    report(
        options.models,
        options.dtypes,
        options.rows,
        batch_size=options.batch_size,
        repeats=options.repeats,
        small=options.rehearse,
    )


if __name__ == "__main__":
    main()
