"""What the features of an image family have to be: those of its own pipeline.

The pipeline of diffusers encodes the prompt, names the timestep, and calls the model,
whose modules are hooked.
"""

import diffusers
import numpy as np
import torch
from helpers.image_checkpoints import PACKED
from helpers.image_flow_transformers import FLOW_TRANSFORMERS
from helpers.image_parts import qwen_processor

from sklearn_difffeat import ImageDiffusionFeatureTransformer
from sklearn_difffeat.backbones._noise import gaussian_noise

SIDE, TIMESTEP = 32, 300
PICTURES = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
BLOCKS = {
    "dit": ["pos_embed", "transformer_blocks"],
    "pixart-alpha": ["pos_embed", "transformer_blocks"],
    "pixart-sigma": ["pos_embed", "transformer_blocks"],
    "sd3": ["pos_embed", "transformer_blocks"],
    "sd3-without-t5": ["pos_embed", "transformer_blocks"],
    "sd3.5": ["pos_embed", "transformer_blocks"],
    "flux-schnell": ["x_embedder", "transformer_blocks", "single_transformer_blocks"],
    "flux-dev": ["x_embedder", "transformer_blocks", "single_transformer_blocks"],
    "sana": ["patch_embed", "transformer_blocks"],
    "auraflow": ["pos_embed", "joint_transformer_blocks", "single_transformer_blocks"],
    "lumina2": ["x_embedder", "noise_refiner", "layers"],
    "sd1.5": ["conv_in", "down_blocks", "mid_block", "up_blocks"],
    "sd2.1": ["conv_in", "down_blocks", "mid_block", "up_blocks"],
    "sdxl": ["conv_in", "down_blocks", "mid_block", "up_blocks"],
    "chroma": ["x_embedder", "transformer_blocks", "single_transformer_blocks"],
    "cogview4": ["patch_embed", "transformer_blocks"],
    "ddpm": ["conv_in", "down_blocks", "mid_block", "up_blocks"],
    "flux2-dev": ["x_embedder", "transformer_blocks", "single_transformer_blocks"],
    "flux2-klein": ["x_embedder", "transformer_blocks", "single_transformer_blocks"],
    "hunyuan-dit": ["pos_embed", "blocks"],
    "hunyuan-image": ["x_embedder", "transformer_blocks", "single_transformer_blocks"],
    "hunyuan-image-distilled": [
        "x_embedder",
        "transformer_blocks",
        "single_transformer_blocks",
    ],
    "qwen-image": ["img_in", "transformer_blocks"],
    "qwen-image-2.1": ["img_in", "transformer_blocks"],
    "z-image": ["all_x_embedder", "noise_refiner", "layers"],
}
# Pipelines that guide by a second pass, unless they are told not to.
UNGUIDED = {
    "chroma": {"guidance_scale": 1.0},
    "cogview4": {"guidance_scale": 1.0, "timesteps": [TIMESTEP]},
    "flux2-klein": {"guidance_scale": 1.0},
    "hunyuan-dit": {"guidance_scale": 1.0, "use_resolution_binning": False},
    "qwen-image": {"true_cfg_scale": 1.0},
    "qwen-image-2.1": {"true_cfg_scale": 1.0, "use_kv_cache": False},
    "z-image": {"guidance_scale": 0.0},
}


# Pixels to the side of a latent where a pipeline is without a VAE, if they are not 8.
FACTORS = {
    "flux2-dev": 16,
    "flux2-klein": 16,
    "hunyuan-image": 32,
    "hunyuan-image-distilled": 32,
    "qwen-image-2.1": 16,
    "sana": 32,
}


def transformer(folder, **options):
    options = {"image_size": SIDE, "dtype": "float32", "timestep": TIMESTEP} | options
    return ImageDiffusionFeatureTransformer(folder, **options)


def encode(pipeline, pixels):
    """Bring pictures to latents, by the papers' formulas."""
    if not hasattr(pipeline, "vae"):
        return pixels
    config = pipeline.vae.config
    if isinstance(pipeline.vae, diffusers.AutoencoderKLFlux2):
        return pipeline._encode_vae_image(pixels, None)
    if isinstance(pipeline.vae, diffusers.AutoencoderDC):
        return pipeline.vae.encode(pixels).latent * config.scaling_factor
    films = diffusers.AutoencoderKLQwenImage, diffusers.AutoencoderKLQwenImage21
    if isinstance(pipeline.vae, films):
        if isinstance(pipeline.vae, diffusers.AutoencoderKLQwenImage21):
            # Red, green, blue, and opaque, as its pipeline reads pictures.
            pixels = torch.cat([pixels, torch.ones_like(pixels[:, :1])], dim=1)
        mode = pipeline.vae.encode(pixels[:, :, None]).latent_dist.mode()[:, :, 0]
        mean, std = map(torch.tensor, (config.latents_mean, config.latents_std))
        return (mode - mean[:, None, None]) / std[:, None, None]
    mode = pipeline.vae.encode(pixels).latent_dist.mode()
    return (mode - (config.get("shift_factor") or 0)) * config.scaling_factor


def noisy_latents(pipeline, family, representation=None):
    """Encode the pictures and bring them to the timestep."""
    pixels = torch.from_numpy(PICTURES).permute(0, 3, 1, 2) / 127.5 - 1
    if representation is None:
        latents = encode(pipeline, pixels)
    else:
        # Representation autoencoders take pixels from 0 to 1.
        latents = representation.encode(pixels / 2 + 0.5).latent
    noise = gaussian_noise(0, 0, tuple(latents.shape[1:])).expand_as(latents)
    if family in FLOW_TRANSFORMERS:
        sigma = TIMESTEP / 1000
        if family == "cogview4":
            # Of 4 tokens, where 256 are the base: 0.25 + 0.75 * sqrt(4 / 256).
            shift = 0.34375
            sigma = shift / (shift + 1 / sigma - 1)
        return (1 - sigma) * latents + sigma * noise
    kept = pipeline.scheduler.alphas_cumprod[TIMESTEP]
    return kept.sqrt() * latents + (1 - kept).sqrt() * noise


def one_step(pipeline, family, latents, prompt, factor=None):
    """Have a pipeline take one step from the latents, at the timestep.

    ``factor`` is the side in pixels of a latent to a pipeline that has no VAE.
    """
    n_rows, channels, *sides = latents.shape
    side = SIDE if factor is None else factor * sides[0]
    if family == "dit":
        # Its pipeline takes no latents; it calls the model like this.
        steps, null_class = (torch.full((n_rows,), n) for n in (TIMESTEP, 1000))
        pipeline.transformer(latents, timestep=steps, class_labels=null_class)
        return
    if family == "ddpm":
        # Nor does this one.
        pipeline.unet(latents, torch.tensor(TIMESTEP))
        return
    options = {"height": side, "width": side, "output_type": "latent"}
    options |= UNGUIDED.get(family, {})
    if family in FLOW_TRANSFORMERS:
        if family != "cogview4":
            pipeline.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
        options["sigmas"] = [TIMESTEP / 1000]
        options["num_inference_steps"] = 1
    elif family == "hunyuan-dit":
        step_once = pipeline.scheduler.set_timesteps
        pipeline.scheduler.set_timesteps = lambda n, device: step_once(
            timesteps=[TIMESTEP], device=device
        )
    else:
        config = pipeline.scheduler.config
        pipeline.scheduler = diffusers.DDPMScheduler.from_config(config)
        options["timesteps"] = [TIMESTEP]
    if family.startswith(("pixart", "sana")):
        options["use_resolution_binning"] = False
    if family == "sana":
        options["complex_human_instruction"] = None
    if family == "chroma":
        # At the prompt's own length, where it does not matter that diffusers adds its
        # mask of 0 and 1 to the attention; one token of padding is seen.
        n_words = len(pipeline.tokenizer(prompt).input_ids)
        options["max_sequence_length"] = n_words + 1
    if family in (*PACKED, "qwen-image-2.1"):
        latents = pipeline._pack_latents(latents, n_rows, channels, *sides)
    options |= {"latents": latents, "num_images_per_prompt": n_rows}
    pipeline(prompt=prompt, **options)


@torch.no_grad()
def pipeline_features(folder, family, prompt, representation=None):
    """Return the mean token of every block, in a pass of the family's pipeline.

    Without a prompt it is the pass that guidance calls unconditional. A representation
    autoencoder stands in for the VAE, which the pipeline then lacks.
    """
    absent = ["text_encoder_3", "tokenizer_3"] if family == "sd3-without-t5" else []
    absent += ["vae"] if representation is not None else []
    parts = dict.fromkeys(absent)
    if family == "qwen-image-2.1":
        parts["processor"] = qwen_processor()
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, **parts)
    pipeline.set_progress_bar_config(disable=True)
    latents = noisy_latents(pipeline, family, representation)
    model = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
    model.eval()
    modules = []
    for name in BLOCKS[family]:
        module = getattr(model, name)
        if isinstance(module, torch.nn.ModuleDict):
            module = torch.nn.ModuleList(module.values())
        is_list = isinstance(module, torch.nn.ModuleList)
        modules += list(module) if is_list else [module]
    caught = [[] for _ in modules]
    for outputs, module in zip(caught, modules, strict=True):
        module.register_forward_hook(
            lambda module, args, output, outputs=outputs: outputs.append(output)
        )
    factor = None if representation is None else FACTORS.get(family, 8)
    one_step(pipeline, family, latents, prompt, factor)
    means = []
    for outputs in caught:
        # Guidance is a second call, or a first half of the batch.
        output = outputs[0] if prompt else outputs[-1]
        if hasattr(model, "up_blocks"):
            maps = output[0] if isinstance(output, tuple) else output
            tokens = maps.flatten(2).transpose(1, 2)
        else:
            first = family.startswith(("cogview4", "hunyuan"))
            tokens = output[1 - first] if isinstance(output, tuple) else output
        n_rows = len(PICTURES)
        if family == "z-image":
            # The picture stands first, and is embedded in one row.
            tokens = tokens if tokens.ndim == 3 else tokens.unflatten(0, (n_rows, -1))
            tokens = tokens[:, :4]
        tokens = tokens[-n_rows:] if prompt else tokens[:n_rows]
        if family.startswith(
            ("lumina2", "auraflow", "chroma", "flux2", "qwen-image-2.1")
        ):
            # The text stands before the picture, which has 2 x 2 tokens, or 4 x 4 of
            # a representation whose latents are not packed.
            alone = representation is not None and family.startswith(("flux2", "qwen"))
            tokens = tokens[:, -16 if alone else -4 :]
        means.append(tokens.mean(dim=1))
    return torch.cat(means, dim=1).numpy()
