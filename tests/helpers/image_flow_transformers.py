"""Small pipelines of Transformers that were trained by flow matching."""

from diffusers import (
    AuraFlowTransformer2DModel,
    AutoencoderDC,
    AutoencoderKLFlux2,
    AutoencoderKLHunyuanImage,
    AutoencoderKLQwenImage,
    AutoencoderKLQwenImage21,
    ChromaTransformer2DModel,
    CogView4Transformer2DModel,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    HunyuanImageTransformer2DModel,
    Lumina2Transformer2DModel,
    QwenImage21Transformer2DModel,
    QwenImageTransformer2DModel,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    ZImageTransformer2DModel,
)
from helpers.image_parts import (
    HEADS,
    clip,
    flow_scheduler,
    flux_vae,
    gemma,
    glm,
    mistral3,
    qwen3,
    qwen3_vl,
    qwen_processor,
    qwen_vl,
    t5,
    texts,
    vae,
)
from transformers import Qwen3ForCausalLM, Qwen3Model

JOINT_AND_SINGLE = HEADS | {"num_layers": 2, "num_single_layers": 2}


def sd3(**options):
    return {
        "transformer": SD3Transformer2DModel(
            **HEADS,
            num_layers=3,
            sample_size=4,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            joint_attention_dim=32,
            caption_projection_dim=16,
            pooled_projection_dim=32,
            pos_embed_max_size=6,
            **options,
        ),
        "scheduler": flow_scheduler(),
        "vae": vae(scaling_factor=1.5305, shift_factor=0.0609),
        **texts(clip(projected=True), clip(projected=True), t5()),
    }


def sd35():
    """Normalised queries and keys, a second attention in the first blocks."""
    return sd3(qk_norm="rms_norm", dual_attention_layers=(0, 1))


def sd3_without_t5():
    return sd3() | {"text_encoder_3": None, "tokenizer_3": None}


def flux(**options):
    return {
        "transformer": FluxTransformer2DModel(
            **JOINT_AND_SINGLE,
            in_channels=16,
            joint_attention_dim=32,
            pooled_projection_dim=16,
            axes_dims_rope=(2, 2, 4),
            **options,
        ),
        "scheduler": flow_scheduler(),
        "vae": flux_vae(),
        **texts(clip(), t5()),
    }


def flux_dev():
    """Distilled with guidance, as Flux-dev."""
    return flux(guidance_embeds=True)


def chroma():
    return {
        "transformer": ChromaTransformer2DModel(
            **JOINT_AND_SINGLE,
            in_channels=16,
            joint_attention_dim=32,
            axes_dims_rope=(2, 2, 4),
            approximator_num_channels=16,
            approximator_hidden_dim=16,
            approximator_layers=1,
        ),
        "scheduler": flow_scheduler(),
        "vae": flux_vae(),
        **texts(t5()),
    }


def flux2(*, guidance=False):
    return {
        "transformer": Flux2Transformer2DModel(
            **JOINT_AND_SINGLE,
            in_channels=16,
            joint_attention_dim=16 * 3,
            timestep_guidance_channels=16,
            axes_dims_rope=(2, 2, 2, 2),
            guidance_embeds=guidance,
        ),
        "scheduler": flow_scheduler(),
        "vae": AutoencoderKLFlux2(
            block_out_channels=(8, 8, 8, 8),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
        ),
        # Of its layers three are read, the deepest of which is the 27th.
        **texts(qwen3(Qwen3ForCausalLM, 27)),
    }


def flux2_dev():
    words = texts(mistral3())
    return flux2(guidance=True) | words


def auraflow():
    return {
        "transformer": AuraFlowTransformer2DModel(
            **HEADS,
            sample_size=4,
            patch_size=2,
            num_mmdit_layers=2,
            num_single_dit_layers=2,
            joint_attention_dim=32,
            caption_projection_dim=16,
            pos_embed_max_size=16,
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=1.73),
        "vae": vae(scaling_factor=0.13025),
        **texts(t5()),
    }


def sana():
    return {
        "transformer": SanaTransformer2DModel(
            **HEADS,
            num_layers=3,
            in_channels=4,
            out_channels=4,
            num_cross_attention_heads=2,
            cross_attention_head_dim=8,
            cross_attention_dim=16,
            caption_channels=16,
            sample_size=4,
            timestep_scale=0.5,
        ),
        "scheduler": DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        "vae": AutoencoderDC(
            latent_channels=4,
            attention_head_dim=4,
            encoder_block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            encoder_layers_per_block=(1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1),
            encoder_qkv_multiscales=((), (), (), ()),
            decoder_qkv_multiscales=((), (), (), ()),
            scaling_factor=0.41407,
        ),
        **texts(gemma()),
    }


def lumina2():
    return {
        "transformer": Lumina2Transformer2DModel(
            sample_size=4,
            in_channels=4,
            hidden_size=24,
            num_layers=2,
            num_refiner_layers=1,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=8,
            axes_dim_rope=(4, 4, 4),
            axes_lens=(300, 4, 4),
            cap_feat_dim=16,
        ),
        "scheduler": flow_scheduler(),
        "vae": flux_vae(),
        **texts(gemma()),
    }


def z_image():
    return {
        "transformer": ZImageTransformer2DModel(
            in_channels=4,
            dim=24,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=16,
            axes_dims=[4, 4, 4],
            axes_lens=[300, 4, 4],
        ),
        "scheduler": flow_scheduler(),
        "vae": flux_vae(),
        **texts(qwen3(Qwen3Model)),
    }


def cogview4():
    return {
        "transformer": CogView4Transformer2DModel(
            **HEADS,
            in_channels=4,
            out_channels=4,
            num_layers=3,
            text_embed_dim=16,
            time_embed_dim=8,
            condition_dim=4,
            sample_size=4,
            rope_axes_dim=(8, 8),
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True,
            base_shift=0.25,
            max_shift=0.75,
            time_shift_type="linear",
        ),
        "vae": vae(scaling_factor=1.0, shift_factor=0.0),
        **texts(glm()),
    }


QWEN_TRANSFORMER = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "out_channels": 4,
    "num_layers": 3,
    "axes_dims_rope": (4, 4, 4),
}
QWEN_VAE = {
    "base_dim": 8,
    "z_dim": 4,
    "num_res_blocks": 1,
    "latents_mean": [0.5, -0.5, 1.0, 0.0],
    "latents_std": [2.0, 1.5, 0.5, 1.0],
}


def qwen_image():
    return {
        "transformer": QwenImageTransformer2DModel(
            **QWEN_TRANSFORMER, in_channels=16, joint_attention_dim=16
        ),
        "scheduler": flow_scheduler(),
        "vae": AutoencoderKLQwenImage(**QWEN_VAE, dim_mult=[1, 1, 1, 1]),
        **texts(qwen_vl()),
    }


def qwen_image_21():
    return {
        "transformer": QwenImage21Transformer2DModel(
            **QWEN_TRANSFORMER, in_channels=4, context_in_dim=16
        ),
        "scheduler": flow_scheduler(),
        "vae": AutoencoderKLQwenImage21(
            **QWEN_VAE, decoder_base_dim=8, dim_mult=[1, 1, 1, 1, 1]
        ),
        "text_encoder": qwen3_vl(),
        "processor": qwen_processor(),
    }


def hunyuan_image(**options):
    return {
        "transformer": HunyuanImageTransformer2DModel(
            **JOINT_AND_SINGLE,
            in_channels=4,
            out_channels=4,
            num_refiner_layers=1,
            text_embed_dim=16,
            text_embed_2_dim=32,
            rope_axes_dim=(4, 4),
            **options,
        ),
        "scheduler": flow_scheduler(),
        "vae": AutoencoderKLHunyuanImage(
            in_channels=3,
            out_channels=3,
            latent_channels=4,
            block_out_channels=(32,) * 5,
            layers_per_block=1,
            spatial_compression_ratio=16,
            sample_size=32,
            scaling_factor=0.75289,
        ),
        **texts(qwen_vl(), t5()),
    }


def hunyuan_image_distilled():
    return hunyuan_image(guidance_embeds=True, use_meanflow=True)


FLOW_TRANSFORMERS = {
    "sd3": ("StableDiffusion3Pipeline", sd3),
    "sd3-without-t5": ("StableDiffusion3Pipeline", sd3_without_t5),
    "sd3.5": ("StableDiffusion3Pipeline", sd35),
    "flux-schnell": ("FluxPipeline", flux),
    "flux-dev": ("FluxPipeline", flux_dev),
    "chroma": ("ChromaPipeline", chroma),
    "flux2-dev": ("Flux2Pipeline", flux2_dev),
    "flux2-klein": ("Flux2KleinPipeline", flux2),
    "auraflow": ("AuraFlowPipeline", auraflow),
    "sana": ("SanaPipeline", sana),
    "lumina2": ("Lumina2Pipeline", lumina2),
    "z-image": ("ZImagePipeline", z_image),
    "cogview4": ("CogView4Pipeline", cogview4),
    "qwen-image": ("QwenImagePipeline", qwen_image),
    "qwen-image-2.1": ("QwenImage21Pipeline", qwen_image_21),
    "hunyuan-image": ("HunyuanImagePipeline", hunyuan_image),
    "hunyuan-image-distilled": ("HunyuanImagePipeline", hunyuan_image_distilled),
}
