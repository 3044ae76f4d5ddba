"""Images a second of the transformer, against a bare loop over the same backbone.

The loop is what one writes by hand: for each batch and timestep it encodes the pixels
(for a latent model), adds the noise, runs the model with a forward hook on the block,
and averages the tokens. It comes in two forms: one runs all blocks, the other stops at
the block asked for. Both sides get the same decoded pixels, batch size, precision and
loaded model, take turns, and have to return the same features. The large model has the
configuration of DiT-XL/2 with the VAE of Stable Diffusion, and random weights.

    python examples/benchmarks/throughput.py --rows 256 --xl-rows 2
"""

import argparse
import tempfile
from contextlib import suppress

import numpy as np
import torch
from _common import interleaved, print_table, save_dit, say

from sklearn_difffeat import ImageDiffusionFeatureTransformer
from sklearn_difffeat.backbones import load_backbone, locate_backbone
from sklearn_difffeat.extraction._devices import native_dtype, usable_device
from sklearn_difffeat.extraction._forward import encode

XL_TIMESTEPS = [50, 100, 200, 300, 500]
XL = {
    "num_layers": 28,
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 8,
    "sample_size": 32,
    "patch_size": 2,
    "num_embeds_ada_norm": 1000,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 256,
    "scaling_factor": 0.18215,
}
LARGE = "DiT-XL/2 + VAE", XL, VAE


class Stop(Exception):
    """Ends a forward pass at the block asked for."""


@torch.inference_mode()
def bare_loop(backbone, pixels, block, timesteps, batch_size, stops):
    """Extract the features of all pixels without the package's engine."""
    caught = []

    def catch(module, args, output):
        caught.append(backbone.hidden_states(output).float().mean(dim=1).cpu().numpy())
        if stops:
            raise Stop

    batches = []
    hook = backbone.stages[block].register_forward_hook(catch)
    for start in range(0, len(pixels), batch_size):
        caught.clear()
        for timestep in timesteps:
            latents = encode(backbone, pixels[start : start + batch_size])
            with suppress(Stop):
                backbone.run(backbone.noised(latents, timestep, 0, 0), timestep)
        batches.append(np.hstack(caught))
    hook.remove()
    return np.vstack(batches)


def compare(name, location, n_rows, timesteps, batch_size, device, repeats):
    """Return the table's rows for one model: the middle block and the last."""
    dtype = native_dtype(device)
    source, info = locate_backbone(location)
    backbone = load_backbone(source, device=device, dtype=getattr(torch, dtype))
    side = info.input_size
    shape = (n_rows, side, side, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    rows = []
    for block in ("middle", "last"):
        ours = ImageDiffusionFeatureTransformer(
            location, block=block, timestep=timesteps, pooling="mean", norm=None,
            batch_size=batch_size, device=device, dtype=dtype,
        ).fit(pixels[:1])  # fmt: skip
        tasks = {"transform": ours.transform}
        for form, stops in (("all", False), ("stops", True)):
            tasks[form] = lambda some, stops=stops, block=ours.block_: bare_loop(
                backbone, some, block, timesteps, batch_size, stops
            )
        say(f"  {name}, block {ours.block_} of {info.n_blocks}, {dtype} on {device}")
        first, *others = [task(pixels[:1]) for task in tasks.values()]
        for other in others:
            np.testing.assert_allclose(first, other, atol=1e-3 * np.abs(first).max())
        seconds = interleaved(
            {form: lambda task=task: task(pixels) for form, task in tasks.items()},
            repeats,
        )
        rate = {form: n_rows / taken for form, taken in seconds.items()}
        rows.append(
            {
                "model": f"{name}, {dtype}",
                "block": f"{ours.block_} of {info.n_blocks}",
                "timesteps": str(len(timesteps)),
                "transform, images/s": f"{rate['transform']:.3g}",
                "loop over all blocks": f"{rate['all']:.3g}",
                "ratio": f"{rate['transform'] / rate['all']:.2f}",
                "loop that stops at the block": f"{rate['stops']:.3g}",
                "ratio to that": f"{rate['transform'] / rate['stops']:.2f}",
            }
        )
    return rows


def lowest_cosine(location, n_rows, timesteps, batch_size, device):
    """Return the smallest cosine of a row's bfloat16 and float32 features."""
    _, info = locate_backbone(location)
    shape = (n_rows, info.input_size, info.input_size, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    pair = [
        ImageDiffusionFeatureTransformer(
            location, block=list(range(info.n_blocks + 1)), timestep=timesteps,
            batch_size=batch_size, device=device, dtype=dtype,
        ).fit_transform(pixels).reshape(-1, info.width)
        for dtype in ("bfloat16", "float32")
    ]  # fmt: skip
    half, full = (np.asarray(features, dtype=np.float64) for features in pair)
    lengths = np.linalg.norm(half, axis=1) * np.linalg.norm(full, axis=1)
    return ((half * full).sum(axis=1) / lengths).min()


def report(
    n_rows=256,
    xl_rows=2,
    *,
    batch_size=32,
    device=None,
    repeats=5,
    xl_repeats=3,
    xl_cosine=False,
    large=LARGE,
):
    """Print the table for both models."""
    device = usable_device(device)
    rows = compare("dit-tiny", "dit-tiny", n_rows, [500], batch_size, device, repeats)
    cosines = {
        "dit-tiny": lowest_cosine("dit-tiny", 32, XL_TIMESTEPS, batch_size, device)
    }
    if xl_rows:
        with tempfile.TemporaryDirectory() as folder:
            say("  saving a DiT with random weights")
            name, transformer, vae = large
            save_dit(folder, transformer, vae, dtype=native_dtype(device))
            rows += compare(
                name, folder, xl_rows, XL_TIMESTEPS, batch_size, device, xl_repeats
            )
            if xl_cosine:
                cosines[name] = lowest_cosine(
                    folder, xl_rows, XL_TIMESTEPS, batch_size, device
                )
    about = (
        f"Images a second on {device}, {n_rows} and {xl_rows} images, at most "
        f"{batch_size} at a time; the loops encode anew for each timestep:"
    )
    print_table(about, rows)
    for name, cosine in cosines.items():
        print(
            f"Smallest cosine of bfloat16 and float32 features, {name}, all blocks, "
            f"{len(XL_TIMESTEPS)} timesteps: {cosine:.5f}\n"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=256, help="images for dit-tiny")
    parser.add_argument("--xl-rows", type=int, default=2, help="0 leaves it out")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--device", help="a torch device; the best one by default")
    parser.add_argument("--repeats", type=int, default=5, help="for dit-tiny")
    parser.add_argument("--xl-repeats", type=int, default=3)
    parser.add_argument("--xl-cosine", action="store_true")
    options = vars(parser.parse_args())
    report(options.pop("rows"), **options)


if __name__ == "__main__":
    main()
