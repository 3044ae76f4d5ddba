"""Full-size models with random weights, against the loop one writes with diffusers.

The loop loads the whole pipeline, puts a forward hook on the block, and for each
batch encodes the pixels, adds the noise and calls the model, which runs to its last
block. The transformer loads what features need and stops at the block. Both get the
same pixels, noise, batches and precision, each in a fresh process, and have to return
the same features. Sizes are those of DiT-XL/2 and of Stable Diffusion 3 medium at 256
pixels; its text encoders have one layer, and T5 is left out, which its pipeline allows.

    python examples/benchmarks/full_size.py --rows 4 --models dit-xl sd3-medium

A checkpoint takes up to 4.5 GB of disk, and a process 2 to 10 GB of memory.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from _common import in_fresh_process, peak_bytes, print_table, say, timed
from throughput import VAE, XL

GB = 1e9
TIMESTEP = 500
SIDE = 256
MMDIT = {
    "num_layers": 24,
    "num_attention_heads": 24,
    "attention_head_dim": 64,
    "caption_projection_dim": 1536,
    "sample_size": 128,
    "pos_embed_max_size": 192,
}


def random_model(kind, **configuration):
    """Build a model in bfloat16, its weights random, without torch's slow defaults."""
    import torch

    with torch.device("meta"):
        model = kind(**configuration)
    torch.nn.Module.to(model, torch.bfloat16)
    model = model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            scale = tensor.shape[-1] ** -0.5 if tensor.ndim > 1 else 0.1
            tensor.data.uniform_(-scale, scale, generator=generator)
    return model


def save_dit_xl(folder):
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        DiTPipeline,
        DiTTransformer2DModel,
    )

    DiTPipeline(
        random_model(DiTTransformer2DModel, **XL),
        random_model(AutoencoderKL, **VAE),
        DDIMScheduler(beta_schedule="linear", clip_sample=False),
    ).save_pretrained(folder)


def clip(width):
    """Return a text encoder of one layer and a tokenizer that knows no word."""
    from transformers import (
        CLIPTextConfig,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
    )

    sizes = {"hidden_size": width, "projection_dim": width, "intermediate_size": 64}
    ids = {"vocab_size": 2, "bos_token_id": 0, "eos_token_id": 1}
    config = CLIPTextConfig(num_hidden_layers=1, num_attention_heads=4, **sizes, **ids)
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
    return CLIPTextModelWithProjection(config), tokenizer


def save_sd3_medium(folder):
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )

    vae = VAE | {"latent_channels": 16, "scaling_factor": 1.5305}
    (encoder, tokenizer), (encoder_2, tokenizer_2) = clip(768), clip(1280)
    StableDiffusion3Pipeline(
        transformer=random_model(SD3Transformer2DModel, **MMDIT),
        vae=random_model(AutoencoderKL, **vae, shift_factor=0.0609),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=encoder,
        tokenizer=tokenizer,
        text_encoder_2=encoder_2,
        tokenizer_2=tokenizer_2,
        text_encoder_3=None,
        tokenizer_3=None,
    ).save_pretrained(folder)


def load_dit_xl(folder, dtype):
    """Return a pipeline, how it noises, and how its model is called."""
    import torch
    from diffusers import DiTPipeline

    pipeline = DiTPipeline.from_pretrained(folder, dtype=dtype)

    def add_noise(latents, noise):
        steps = torch.full((len(latents),), TIMESTEP)
        return pipeline.scheduler.add_noise(latents, noise, steps)

    def call(latents):
        steps = torch.full((len(latents),), TIMESTEP)
        null_class = torch.full_like(steps, 1000)
        pipeline.transformer(latents, timestep=steps, class_labels=null_class)

    return pipeline, add_noise, call


def load_sd3_medium(folder, dtype):
    """Return a pipeline, how it noises, and how its model is called."""
    import torch
    from diffusers import StableDiffusion3Pipeline

    pipeline = StableDiffusion3Pipeline.from_pretrained(
        folder, dtype=dtype, text_encoder_3=None, tokenizer_3=None
    )
    words, _, pooled, _ = pipeline.encode_prompt(
        "", None, None, do_classifier_free_guidance=False
    )

    def add_noise(latents, noise):
        sigma = TIMESTEP / 1000
        return (1 - sigma) * latents + sigma * noise

    def call(latents):
        n = len(latents)
        pipeline.transformer(
            latents,
            timestep=torch.full((n,), TIMESTEP),
            encoder_hidden_states=words.expand(n, -1, -1),
            pooled_projections=pooled.expand(n, -1),
        )

    return pipeline, add_noise, call


MODELS = {
    "dit-xl": ("DiT-XL/2", 14, save_dit_xl, load_dit_xl),
    "sd3-medium": ("SD3 medium", 12, save_sd3_medium, load_sd3_medium),
}


def run_loop(model, folder, dtype, pixels, batch_size):
    """Return load and run seconds, peak memory and features of the loop."""
    import torch
    from diffusers.utils import logging

    from sklearn_difffeat.backbones._noise import gaussian_noise

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    _, block, _, load = MODELS[model]
    with torch.inference_mode():
        loading, loaded = timed(lambda: load(folder, getattr(torch, dtype)))
        pipeline, add_noise, call = loaded
        caught = []
        pipeline.transformer.transformer_blocks[block - 1].register_forward_hook(
            lambda module, args, output: caught.append(output)
        )

        def run(pixels):
            rows = []
            for start in range(0, len(pixels), batch_size):
                batch = torch.from_numpy(pixels[start : start + batch_size])
                scaled = batch.permute(0, 3, 1, 2) / 127.5 - 1
                vae = pipeline.vae
                latents = vae.encode(scaled.to(vae.dtype)).latent_dist.mode().float()
                shift = vae.config.shift_factor or 0
                latents = (latents - shift) * vae.config.scaling_factor
                noise = gaussian_noise(0, 0, tuple(latents.shape[1:]))
                noisy = add_noise(latents, noise.expand_as(latents))
                call(noisy.to(vae.dtype))
                tokens = caught.pop()
                tokens = tokens[1] if isinstance(tokens, tuple) else tokens
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

    block = MODELS[model][1]
    source, _ = locate_backbone(folder)
    kind = getattr(torch, dtype)
    loading, _ = timed(lambda: load_backbone(source, device="cpu", dtype=kind))
    transformer = ImageDiffusionFeatureTransformer(
        folder, block=block, timestep=TIMESTEP, image_size=SIDE,
        batch_size=batch_size, dtype=dtype, device="cpu",
    ).fit(pixels[:1])  # fmt: skip
    transformer.transform(pixels[:1])
    running, features = timed(lambda: transformer.transform(pixels))
    return loading, running, peak_bytes(), features


def compare(model, dtype, folder, pixels, batch_size, repeats):
    """Return the table's row of a model in a precision."""
    name, block, _, _ = MODELS[model]
    sides = {"transform": run_transformer, "loop": run_loop}
    found = {side: [] for side in sides}
    for turn in range(repeats):
        for side, run in sides.items():
            result = in_fresh_process(run, model, folder, dtype, pixels, batch_size)
            found[side].append(result)
            say(
                f"  {name}, {dtype}, {turn + 1} of {repeats}, {side}: load "
                f"{result[0]:.1f} s, run {result[1]:.1f} s, {result[2] / GB:.1f} GB"
            )
    ours, theirs = (found[side][0][3] for side in sides)
    tolerance = 2e-3 if dtype == "float32" else 5e-2
    np.testing.assert_allclose(ours, theirs, atol=tolerance * np.abs(theirs).max())
    best = {side: np.min([r[:3] for r in rows], axis=0) for side, rows in found.items()}
    (load, run, peak), (loop_load, loop_run, loop_peak) = best.values()
    return {
        "model": name,
        "precision": dtype,
        "block": str(block),
        "load, s": f"{load:.1f}",
        "loop: load, s": f"{loop_load:.1f}",
        "images/s": f"{len(pixels) / run:.3f}",
        "loop: images/s": f"{len(pixels) / loop_run:.3f}",
        "ratio": f"{loop_run / run:.2f}",
        "peak GB": f"{peak / GB:.1f}",
        "loop: peak GB": f"{loop_peak / GB:.1f}",
    }


def report(models, dtypes, n_rows, *, batch_size=4, repeats=1):
    """Print the table."""
    shape = (n_rows, SIDE, SIDE, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    rows = []
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            say(f"  saving {model}")
            in_fresh_process(MODELS[model][2], folder)
            size = sum(f.stat().st_size for f in Path(folder).rglob("*.safetensors"))
            say(f"  {size / GB:.1f} GB in bfloat16")
            for dtype in dtypes:
                rows.append(compare(model, dtype, folder, pixels, batch_size, repeats))
    about = (
        f"{n_rows} pictures of {SIDE} x {SIDE} pixels, {batch_size} at a time, on the "
        f"CPU; random weights, the middle block, timestep {TIMESTEP}; the faster of "
        f"{repeats} fresh process(es) each:"
    )
    print_table(about, rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["dit-xl"])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    report(
        options.models,
        options.dtypes,
        options.rows,
        batch_size=options.batch_size,
        repeats=options.repeats,
    )


if __name__ == "__main__":
    main()
