"""Small text-to-image pipelines, saved by diffusers' own pipelines as on the hub."""

import shutil

import diffusers
import torch
import transformers
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLHunyuanImage,
    AutoencoderKLQwenImage,
    AutoencoderKLQwenImage21,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
)
from helpers.representation import RAE, rae
from tokenizers import pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    GlmConfig,
    GlmModel,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"
HEADS = {"num_attention_heads": 2, "attention_head_dim": 8}


def clip_tokenizer():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def clip_encoder(*, projected=False, width=16):
    sizes = {"hidden_size": width, "intermediate_size": 16, "projection_dim": width}
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    config = CLIPTextConfig(vocab_size=514, **sizes, **layers, **ids)
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def t5_tokenizer():
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(letter, -3.0) for letter in LETTERS]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def t5_encoder(width=32):
    return T5EncoderModel(
        T5Config(
            vocab_size=32, d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2
        )
    )


def gemma_tokenizer():
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *LETTERS]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = GemmaTokenizer(vocab=vocabulary, merges=[])
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 2)]
    )
    return tokenizer


def gemma_encoder():
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2}
    sizes = {"hidden_size": 16, "intermediate_size": 16, "head_dim": 8}
    return Gemma2Model(
        Gemma2Config(vocab_size=32, num_key_value_heads=1, **sizes, **layers)
    )


# What a chat template makes of messages, whose contents may be parts.
CHAT = """{% for message in messages %}{{ message['role'] }}:
{%- if message['content'] is string %}{{ message['content'] }}
{%- else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}
{%- endif %}
{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"""
LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
LANGUAGE = {"vocab_size": 260, "hidden_size": 16, "intermediate_size": 16, **LAYERS}


def qwen_tokenizer():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate(letters)}
    vocabulary["<|endoftext|>"] = len(vocabulary)
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[])
    tokenizer.chat_template = CHAT
    return tokenizer


def qwen_processor():
    """Return a tokenizer in the place of Qwen-Image 2.1's processor.

    The processor itself takes torchvision, for films.
    """
    plain = qwen_tokenizer()

    class Qwen2Tokenizer(type(plain)):
        tokenizer = property(lambda self: self)

        def apply_chat_template(self, *args, **options):
            return [super().apply_chat_template(*args, **options)]

    # Saved under the name that it stands for.
    Qwen2Tokenizer.__module__ = type(plain).__module__
    plain.add_special_tokens({"additional_special_tokens": ["<|image_pad|>"]})
    plain.__class__ = Qwen2Tokenizer
    return plain


def glm_tokenizer():
    tokenizer = qwen_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 256)]
    )
    return tokenizer


def qwen3_config(**options):
    return Qwen3Config(**LANGUAGE | {"head_dim": 8} | options)


def qwen_vl():
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2}
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config=LANGUAGE | {"rope_parameters": rope},
            vision_config=vision | {"out_hidden_size": 16},
        )
    )


def qwen3_vl():
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1]}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2}
    vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
    return Qwen3VLForConditionalGeneration(
        Qwen3VLConfig(
            text_config=LANGUAGE | {"rope_parameters": rope, "head_dim": 8},
            vision_config=vision | {"out_hidden_size": 16},
        )
    )


def vae(channels, **options):
    """Return a VAE that shrinks pictures to an eighth, in four levels as SD's."""
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=channels,
        norm_num_groups=4,
        layers_per_block=1,
        **options,
    )


def flow_scheduler():
    return FlowMatchEulerDiscreteScheduler(shift=3.0)


def dit():
    return {
        "transformer": diffusers.DiTTransformer2DModel(
            **HEADS | {"num_layers": 3, "sample_size": 4, "patch_size": 2},
            in_channels=4,
            out_channels=8,
            num_embeds_ada_norm=1000,
        ),
        "scheduler": DDIMScheduler(beta_schedule="linear", clip_sample=False),
        "vae": vae(4, scaling_factor=0.18215),
    }


def sd3(**options):
    return {
        "transformer": diffusers.SD3Transformer2DModel(
            **HEADS | {"num_layers": 3, "sample_size": 4, "patch_size": 2},
            in_channels=4,
            out_channels=4,
            joint_attention_dim=32,
            caption_projection_dim=16,
            pooled_projection_dim=32,
            pos_embed_max_size=6,
            **options,
        ),
        "scheduler": flow_scheduler(),
        "vae": vae(4, scaling_factor=1.5305, shift_factor=0.0609),
        "text_encoder": clip_encoder(projected=True),
        "tokenizer": clip_tokenizer(),
        "text_encoder_2": clip_encoder(projected=True),
        "tokenizer_2": clip_tokenizer(),
        "text_encoder_3": t5_encoder(),
        "tokenizer_3": t5_tokenizer(),
    }


def sd35():
    """Normalised queries and keys, a second attention in the first blocks."""
    return sd3(qk_norm="rms_norm", dual_attention_layers=(0, 1))


def sd3_without_t5():
    return sd3() | {"text_encoder_3": None, "tokenizer_3": None}


def flux(**options):
    return {
        "transformer": diffusers.FluxTransformer2DModel(
            **HEADS,
            in_channels=16,
            num_layers=2,
            num_single_layers=2,
            joint_attention_dim=32,
            pooled_projection_dim=16,
            axes_dims_rope=(2, 2, 4),
            **options,
        ),
        "scheduler": flow_scheduler(),
        "vae": vae(4, scaling_factor=0.3611, shift_factor=0.1159),
        "text_encoder": clip_encoder(),
        "tokenizer": clip_tokenizer(),
        "text_encoder_2": t5_encoder(),
        "tokenizer_2": t5_tokenizer(),
    }


def flux_dev():
    """Distilled with guidance, as Flux-dev."""
    return flux(guidance_embeds=True)


def pixart(**options):
    return {
        "transformer": diffusers.PixArtTransformer2DModel(
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
        "vae": vae(4, scaling_factor=0.18215),
        "text_encoder": t5_encoder(),
        "tokenizer": t5_tokenizer(),
    }


def pixart_1024():
    """Told the resolution, as PixArt alpha of 1,024 pixels."""
    return pixart(sample_size=128)


def pixart_sigma():
    return pixart(sample_size=4, use_additional_conditions=False)


def auraflow():
    return {
        "transformer": diffusers.AuraFlowTransformer2DModel(
            **HEADS | {"sample_size": 4, "patch_size": 2},
            num_mmdit_layers=2,
            num_single_dit_layers=2,
            joint_attention_dim=32,
            caption_projection_dim=16,
            pos_embed_max_size=16,
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=1.73),
        "vae": vae(4, scaling_factor=0.13025),
        "text_encoder": t5_encoder(),
        "tokenizer": t5_tokenizer(),
    }


def sana():
    return {
        "transformer": diffusers.SanaTransformer2DModel(
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
        "text_encoder": gemma_encoder(),
        "tokenizer": gemma_tokenizer(),
    }


def lumina2():
    return {
        "transformer": diffusers.Lumina2Transformer2DModel(
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
        "vae": vae(4, scaling_factor=0.3611, shift_factor=0.1159),
        "text_encoder": gemma_encoder(),
        "tokenizer": gemma_tokenizer(),
    }


def unet(*, attention_head_dim=4, **options):
    return diffusers.UNet2DConditionModel(
        sample_size=4,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=attention_head_dim,
        norm_num_groups=4,
        **options,
    )


def stable_diffusion():
    return {
        "unet": unet(cross_attention_dim=16),
        "scheduler": PNDMScheduler(beta_schedule="scaled_linear", steps_offset=1),
        "vae": vae(4, scaling_factor=0.18215),
        "text_encoder": clip_encoder(),
        "tokenizer": clip_tokenizer(),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
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
        "vae": vae(4, scaling_factor=0.13025, force_upcast=True),
        "text_encoder": clip_encoder(),
        "tokenizer": clip_tokenizer(),
        "text_encoder_2": clip_encoder(projected=True),
        "tokenizer_2": clip_tokenizer(),
    }


def chroma():
    return {
        "transformer": diffusers.ChromaTransformer2DModel(
            **HEADS,
            in_channels=16,
            num_layers=2,
            num_single_layers=2,
            joint_attention_dim=32,
            axes_dims_rope=(2, 2, 4),
            approximator_num_channels=16,
            approximator_hidden_dim=16,
            approximator_layers=1,
        ),
        "scheduler": flow_scheduler(),
        "vae": vae(4, scaling_factor=0.3611, shift_factor=0.1159),
        "text_encoder": t5_encoder(),
        "tokenizer": t5_tokenizer(),
    }


def flux2(*, n_words=27, guidance=False):
    width = 16 * 3
    return {
        "transformer": diffusers.Flux2Transformer2DModel(
            **HEADS,
            in_channels=16,
            num_layers=2,
            num_single_layers=2,
            joint_attention_dim=width,
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
        # Of its layers three are read, the deepest of which is n_words.
        "text_encoder": Qwen3ForCausalLM(qwen3_config(num_hidden_layers=n_words)),
        "tokenizer": qwen_tokenizer(),
    }


def flux2_dev():
    text = LANGUAGE | {"model_type": "mistral", "head_dim": 8, "num_hidden_layers": 30}
    vision = {"model_type": "pixtral", "hidden_size": 16, "intermediate_size": 16}
    vision |= {"num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8}
    config = Mistral3Config(text_config=text, vision_config=vision)
    encoder = Mistral3ForConditionalGeneration(config)
    return flux2(guidance=True) | {"text_encoder": encoder}


def qwen_image():
    return {
        "transformer": diffusers.QwenImageTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=16,
            out_channels=4,
            num_layers=3,
            joint_attention_dim=16,
            axes_dims_rope=(4, 4, 4),
        ),
        "scheduler": flow_scheduler(),
        "vae": AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            latents_mean=[0.5, -0.5, 1.0, 0.0],
            latents_std=[2.0, 1.5, 0.5, 1.0],
        ),
        "text_encoder": qwen_vl(),
        "tokenizer": qwen_tokenizer(),
    }


def qwen_image_21():
    return {
        "transformer": diffusers.QwenImage21Transformer2DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=4,
            out_channels=4,
            num_layers=3,
            context_in_dim=16,
            axes_dims_rope=(4, 4, 4),
        ),
        "scheduler": flow_scheduler(),
        "vae": AutoencoderKLQwenImage21(
            base_dim=8,
            decoder_base_dim=8,
            z_dim=4,
            dim_mult=[1, 1, 1, 1, 1],
            num_res_blocks=1,
            latents_mean=[0.5, -0.5, 1.0, 0.0],
            latents_std=[2.0, 1.5, 0.5, 1.0],
        ),
        "text_encoder": qwen3_vl(),
        "processor": qwen_processor(),
    }


def z_image():
    return {
        "transformer": diffusers.ZImageTransformer2DModel(
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
        "vae": vae(4, scaling_factor=0.3611, shift_factor=0.1159),
        "text_encoder": Qwen3Model(qwen3_config()),
        "tokenizer": qwen_tokenizer(),
    }


def cogview4():
    config = GlmConfig(**LANGUAGE | {"head_dim": 8, "pad_token_id": 0})
    return {
        "transformer": diffusers.CogView4Transformer2DModel(
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
        "vae": vae(4, scaling_factor=1.0, shift_factor=0.0),
        "text_encoder": GlmModel(config),
        "tokenizer": glm_tokenizer(),
    }


def hunyuan_dit():
    return {
        "transformer": diffusers.HunyuanDiT2DModel(
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
        "vae": vae(4, scaling_factor=0.13025),
        "text_encoder": clip_encoder(),
        "tokenizer": clip_tokenizer(),
        "text_encoder_2": t5_encoder(),
        "tokenizer_2": t5_tokenizer(),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def hunyuan_image(**options):
    return {
        "transformer": diffusers.HunyuanImageTransformer2DModel(
            **HEADS,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            num_single_layers=2,
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
        "text_encoder": qwen_vl(),
        "tokenizer": qwen_tokenizer(),
        "text_encoder_2": t5_encoder(),
        "tokenizer_2": t5_tokenizer(),
    }


def hunyuan_image_distilled():
    return hunyuan_image(guidance_embeds=True, use_meanflow=True)


def ddpm():
    return {
        "unet": diffusers.UNet2DModel(
            sample_size=32,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
        ),
        "scheduler": DDPMScheduler(),
    }


# Families whose pipelines pack 2 x 2 latents to a token.
PACKED = "flux-schnell", "flux-dev", "chroma", "qwen-image"
# Pipeline and parts by the name of a family.
FAMILIES = {
    "dit": ("DiTPipeline", dit),
    "pixart-alpha": ("PixArtAlphaPipeline", pixart_1024),
    "pixart-sigma": ("PixArtSigmaPipeline", pixart_sigma),
    "sd3": ("StableDiffusion3Pipeline", sd3),
    "sd3-without-t5": ("StableDiffusion3Pipeline", sd3_without_t5),
    "sd3.5": ("StableDiffusion3Pipeline", sd35),
    "flux-schnell": ("FluxPipeline", flux),
    "flux-dev": ("FluxPipeline", flux_dev),
    "sana": ("SanaPipeline", sana),
    "lumina2": ("Lumina2Pipeline", lumina2),
    "auraflow": ("AuraFlowPipeline", auraflow),
    "sd1.5": ("StableDiffusionPipeline", stable_diffusion),
    "sd2.1": ("StableDiffusionPipeline", stable_diffusion_2),
    "sdxl": ("StableDiffusionXLPipeline", sdxl),
    "chroma": ("ChromaPipeline", chroma),
    "cogview4": ("CogView4Pipeline", cogview4),
    "ddpm": ("DDPMPipeline", ddpm),
    "flux2-dev": ("Flux2Pipeline", flux2_dev),
    "flux2-klein": ("Flux2KleinPipeline", flux2),
    "hunyuan-dit": ("HunyuanDiTPipeline", hunyuan_dit),
    "hunyuan-image": ("HunyuanImagePipeline", hunyuan_image),
    "hunyuan-image-distilled": ("HunyuanImagePipeline", hunyuan_image_distilled),
    "qwen-image": ("QwenImagePipeline", qwen_image),
    "qwen-image-2.1": ("QwenImage21Pipeline", qwen_image_21),
    "z-image": ("ZImagePipeline", z_image),
}


def save_pipeline(family, folder):
    """Save a family's small pipeline as its maker would have."""
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    name, build = FAMILIES[family]
    parts = build()
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            _spread(part)
    getattr(diffusers, name)(**parts).save_pretrained(folder)
    return folder


def save_on_representation(family, folder):
    """Save a family's small model with a representation autoencoder for its VAE.

    No pipeline of diffusers builds such a pair. Returns the autoencoder.
    """
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    name, build = FAMILIES[family]
    parts = build()
    denoiser = "unet" if "unet" in parts else "transformer"
    config = dict(parts[denoiser].config)
    config.pop("_use_default_values", None)
    before = config["in_channels"]
    packed = 4 if family in PACKED else 1
    config["in_channels"] = RAE["encoder_hidden_size"] * packed
    if config.get("out_channels"):
        config["out_channels"] = (
            config["out_channels"] * config["in_channels"] // before
        )
    parts[denoiser] = type(parts[denoiser]).from_config(config)
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            _spread(part)
    getattr(diffusers, name)(**parts).save_pretrained(folder)
    shutil.rmtree(folder / "vae")
    encoder = rae().eval()
    encoder.save_pretrained(folder / "vae")
    return encoder


def _spread(module):
    """Draw what is initialised to zero or one, so that nothing is left out unseen."""
    for parameter in module.parameters():
        if parameter.numel() and float(parameter.detach().std(correction=0)) == 0:
            torch.nn.init.normal_(parameter, std=0.1)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
