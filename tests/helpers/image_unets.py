"""Small pipelines of U-Nets."""

from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    UNet2DConditionModel,
    UNet2DModel,
)
from helpers.image_parts import UNCHECKED, clip, texts, vae

SIZES = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


def unet(*, attention_head_dim=4, **options):
    return UNet2DConditionModel(
        **SIZES,
        sample_size=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=attention_head_dim,
        **options,
    )


def stable_diffusion():
    return {
        "unet": unet(cross_attention_dim=16),
        "scheduler": PNDMScheduler(beta_schedule="scaled_linear", steps_offset=1),
        "vae": vae(scaling_factor=0.18215),
        **texts(clip()),
        **UNCHECKED,
    }


def stable_diffusion_2():
    """SD 2.1: heads by block, linear projections, v-prediction."""
    return stable_diffusion() | {
        "unet": unet(
            cross_attention_dim=16,
            attention_head_dim=(2, 4),
            use_linear_projection=True,
        ),
        "scheduler": DDIMScheduler(
            beta_schedule="scaled_linear",
            clip_sample=False,
            prediction_type="v_prediction",
            steps_offset=1,
        ),
    }


def sdxl():
    return {
        "unet": unet(
            cross_attention_dim=32,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=6 * 4 + 16,
        ),
        "scheduler": EulerDiscreteScheduler(beta_schedule="scaled_linear"),
        "vae": vae(scaling_factor=0.13025, force_upcast=True),
        **texts(clip(), clip(projected=True)),
    }


def ddpm():
    return {
        "unet": UNet2DModel(
            **SIZES,
            sample_size=32,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        ),
        "scheduler": DDPMScheduler(),
    }


UNETS = {
    "sd1.5": ("StableDiffusionPipeline", stable_diffusion),
    "sd2.1": ("StableDiffusionPipeline", stable_diffusion_2),
    "sdxl": ("StableDiffusionXLPipeline", sdxl),
    "ddpm": ("DDPMPipeline", ddpm),
}
