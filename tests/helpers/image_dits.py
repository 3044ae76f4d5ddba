"""Small pipelines of diffusion Transformers that learned a schedule of betas."""

from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    HunyuanDiT2DModel,
    PixArtTransformer2DModel,
)
from helpers.image_parts import HEADS, UNCHECKED, clip, t5, texts, vae


def dit():
    """What ``facebook/DiT-XL-2-256`` holds, at small widths."""
    return {
        "transformer": DiTTransformer2DModel(
            **HEADS,
            num_layers=3,
            sample_size=4,
            patch_size=2,
            in_channels=4,
            out_channels=8,
            num_embeds_ada_norm=1000,
        ),
        "scheduler": DDIMScheduler(beta_schedule="linear", clip_sample=False),
        "vae": vae(scaling_factor=0.18215),
    }


def pixart(**options):
    return {
        "transformer": PixArtTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            num_layers=3,
            in_channels=4,
            out_channels=8,
            cross_attention_dim=24,
            caption_channels=32,
            **options,
        ),
        "scheduler": DPMSolverMultistepScheduler(beta_schedule="linear"),
        "vae": vae(scaling_factor=0.18215),
        **texts(t5()),
    }


def pixart_1024():
    """Told the resolution, as PixArt alpha of 1,024 pixels."""
    return pixart(sample_size=128)


def pixart_sigma():
    return pixart(sample_size=4, use_additional_conditions=False)


def hunyuan_dit():
    return {
        "transformer": HunyuanDiT2DModel(
            **HEADS,
            hidden_size=16,
            patch_size=2,
            in_channels=4,
            num_layers=4,
            sample_size=4,
            cross_attention_dim=16,
            cross_attention_dim_t5=32,
            pooled_projection_dim=16,
        ),
        "scheduler": DDPMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.03
        ),
        "vae": vae(scaling_factor=0.13025),
        **texts(clip(), t5()),
        **UNCHECKED,
    }


DITS = {
    "dit": ("DiTPipeline", dit),
    "pixart-alpha": ("PixArtAlphaPipeline", pixart_1024),
    "pixart-sigma": ("PixArtSigmaPipeline", pixart_sigma),
    "hunyuan-dit": ("HunyuanDiTPipeline", hunyuan_dit),
}
