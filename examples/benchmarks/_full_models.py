"""Full-size image models with random weights: saved, and run by a loop of diffusers."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from throughput import VAE, XL

# A timestep of the training schedule, which tells 1,000.
TIMESTEP = 500
MMDIT = {
    "num_layers": 24,
    "num_attention_heads": 24,
    "attention_head_dim": 64,
    "caption_projection_dim": 1536,
    "sample_size": 128,
    "pos_embed_max_size": 192,
}
KLEIN = {
    "num_layers": 5,
    "num_single_layers": 20,
    "num_attention_heads": 24,
    "attention_head_dim": 128,
    "joint_attention_dim": 7680,
    "guidance_embeds": False,
}
# The class's defaults are those of Z-Image.
Z_IMAGE = {"n_layers": 30, "n_refiner_layers": 2}
# Sizes of a rehearsal, which takes seconds; numbers of layers stay as they are.
SMALL = {
    "dit-xl": {"attention_head_dim": 8},
    "sd3-medium": {"attention_head_dim": 8, "caption_projection_dim": 192},
    "flux2-klein-4b": {"num_attention_heads": 2, "joint_attention_dim": 192},
    "z-image": {"dim": 256, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 64},
}
SMALL_VAE = {"block_out_channels": (32, 32, 32, 32)}


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


def qwen3(kind, width, n_layers):
    """Return a narrow text encoder of a width, and a tokenizer that knows letters."""
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer, Qwen3Config

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate([*letters, "<|endoftext|>"])}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[])
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['role'] }}:{{ message['content'] }}"
        "{% endfor %}"
    )
    config = Qwen3Config(
        vocab_size=len(vocabulary),
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=n_layers,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=64,
    )
    return kind(config), tokenizer


def flow(latents, noise):
    """Add the noise of models that were trained by flow matching."""
    sigma = TIMESTEP / 1000
    return (1 - sigma) * latents + sigma * noise


@dataclass
class FullModel(ABC):
    """A model of published sizes, and what a user's loop over its pipeline does.

    Attributes
    ----------
    name : str
    block : int
        The middle one, as the transformer counts them.
    configuration, vae : dict
    condition : Any
        What the loop's prompt was encoded to.
    """

    name: str
    block: int
    configuration: dict
    vae: dict = field(default_factory=lambda: VAE)
    condition: Any = None

    @abstractmethod
    def save(self, folder):
        """Write the pipeline, with random weights."""

    @abstractmethod
    def load(self, folder, dtype):
        """Return the pipeline, and encode the empty prompt."""

    def module(self, model):
        """Return the module whose output is the block's."""
        return model.transformer_blocks[self.block - 1]

    def encode(self, vae, pixels):
        latents = vae.encode(pixels).latent_dist.mode().float()
        shift = vae.config.shift_factor or 0
        return (latents - shift) * vae.config.scaling_factor

    def add_noise(self, pipeline, latents, noise):
        return flow(latents, noise)

    @abstractmethod
    def call(self, model, latents):
        """Run the model on noised latents."""

    def picture(self, output, n_latents):
        """Return the picture's tokens in what the block returns."""
        return output[1] if isinstance(output, tuple) else output


class DiTXL(FullModel):
    def save(self, folder):
        from diffusers import (
            AutoencoderKL,
            DDIMScheduler,
            DiTPipeline,
            DiTTransformer2DModel,
        )

        DiTPipeline(
            random_model(DiTTransformer2DModel, **self.configuration),
            random_model(AutoencoderKL, **self.vae),
            DDIMScheduler(beta_schedule="linear", clip_sample=False),
        ).save_pretrained(folder)

    def load(self, folder, dtype):
        from diffusers import DiTPipeline

        return DiTPipeline.from_pretrained(folder, dtype=dtype)

    def add_noise(self, pipeline, latents, noise):
        import torch

        steps = torch.full((len(latents),), TIMESTEP)
        return pipeline.scheduler.add_noise(latents, noise, steps)

    def call(self, model, latents):
        import torch

        steps = torch.full((len(latents),), TIMESTEP)
        null_class = torch.full_like(steps, 1000)
        model(latents, timestep=steps, class_labels=null_class)


class SD3Medium(FullModel):
    def save(self, folder):
        from diffusers import (
            AutoencoderKL,
            FlowMatchEulerDiscreteScheduler,
            SD3Transformer2DModel,
            StableDiffusion3Pipeline,
        )

        vae = self.vae | {"latent_channels": 16, "scaling_factor": 1.5305}
        (encoder, tokenizer), (encoder_2, tokenizer_2) = clip(768), clip(1280)
        StableDiffusion3Pipeline(
            transformer=random_model(SD3Transformer2DModel, **self.configuration),
            vae=random_model(AutoencoderKL, **vae, shift_factor=0.0609),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            text_encoder=encoder,
            tokenizer=tokenizer,
            text_encoder_2=encoder_2,
            tokenizer_2=tokenizer_2,
            text_encoder_3=None,
            tokenizer_3=None,
        ).save_pretrained(folder)

    def load(self, folder, dtype):
        from diffusers import StableDiffusion3Pipeline

        pipeline = StableDiffusion3Pipeline.from_pretrained(
            folder, dtype=dtype, text_encoder_3=None, tokenizer_3=None
        )
        words, _, pooled, _ = pipeline.encode_prompt(
            "", None, None, do_classifier_free_guidance=False
        )
        self.condition = words, pooled
        return pipeline

    def call(self, model, latents):
        import torch

        n, (words, pooled) = len(latents), self.condition
        model(
            latents,
            timestep=torch.full((n,), TIMESTEP),
            encoder_hidden_states=words.expand(n, -1, -1),
            pooled_projections=pooled.expand(n, -1),
        )


class Flux2Klein(FullModel):
    def save(self, folder):
        from diffusers import (
            AutoencoderKLFlux2,
            FlowMatchEulerDiscreteScheduler,
            Flux2KleinPipeline,
            Flux2Transformer2DModel,
        )
        from transformers import Qwen3ForCausalLM

        width = self.configuration["joint_attention_dim"] // 3
        # The deepest of the three layers that are read is the 27th.
        encoder, tokenizer = qwen3(Qwen3ForCausalLM, width, 27)
        channels = {"block_out_channels": self.vae["block_out_channels"]}
        vae = random_model(AutoencoderKLFlux2, **channels)
        vae.bn.running_var.abs_().add_(0.5)
        Flux2KleinPipeline(
            transformer=random_model(Flux2Transformer2DModel, **self.configuration),
            vae=vae,
            scheduler=FlowMatchEulerDiscreteScheduler(),
            text_encoder=encoder,
            tokenizer=tokenizer,
            is_distilled=True,
        ).save_pretrained(folder)

    def load(self, folder, dtype):
        from diffusers import Flux2KleinPipeline

        pipeline = Flux2KleinPipeline.from_pretrained(folder, dtype=dtype)
        self.condition = pipeline.encode_prompt("")[0]
        return pipeline

    def module(self, model):
        n_double = len(model.transformer_blocks)
        return model.single_transformer_blocks[self.block - 1 - n_double]

    def encode(self, vae, pixels):
        from torch.nn import functional

        latents = vae.encode(pixels).latent_dist.mode().float()
        packed = functional.pixel_unshuffle(latents, 2)
        mean, variance = vae.bn.running_mean.float(), vae.bn.running_var.float()
        scale = (variance + vae.config.batch_norm_eps).sqrt()
        return (packed - mean[:, None, None]) / scale[:, None, None]

    def call(self, model, latents):
        import torch

        n, side, words = len(latents), latents.shape[-1], self.condition
        places, positions = torch.arange(side), torch.arange(words.shape[1])
        zero = places[:1]
        model(
            latents.flatten(2).mT,
            timestep=torch.full((n,), TIMESTEP / 1000),
            encoder_hidden_states=words.expand(n, -1, -1),
            img_ids=torch.cartesian_prod(zero, places, places, zero),
            txt_ids=torch.cartesian_prod(zero, zero, zero, positions),
        )

    def picture(self, output, n_latents):
        # Behind the text's, and of one latent each.
        return output[:, -n_latents:]


class ZImage(FullModel):
    def save(self, folder):
        from diffusers import (
            AutoencoderKL,
            FlowMatchEulerDiscreteScheduler,
            ZImagePipeline,
            ZImageTransformer2DModel,
        )
        from transformers import Qwen3Model

        width = self.configuration.get("cap_feat_dim", 2560)
        encoder, tokenizer = qwen3(Qwen3Model, width, 2)
        vae = self.vae | {"latent_channels": 16, "scaling_factor": 0.3611}
        ZImagePipeline(
            transformer=random_model(ZImageTransformer2DModel, **self.configuration),
            vae=random_model(AutoencoderKL, **vae, shift_factor=0.1159),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            text_encoder=encoder,
            tokenizer=tokenizer,
        ).save_pretrained(folder)

    def load(self, folder, dtype):
        from diffusers import ZImagePipeline

        pipeline = ZImagePipeline.from_pretrained(folder, dtype=dtype)
        words, _ = pipeline.encode_prompt("", do_classifier_free_guidance=False)
        self.condition = words[0]
        return pipeline

    def module(self, model):
        return model.layers[self.block - 1 - len(model.noise_refiner)]

    def call(self, model, latents):
        import torch

        n = len(latents)
        time = torch.full((n,), 1 - TIMESTEP / 1000)
        model(list(latents.unsqueeze(2)), time, [self.condition] * n)

    def picture(self, output, n_latents):
        # Before the text's, and of 2 x 2 latents each.
        return output[:, : n_latents // 4]


KINDS = {
    "dit-xl": (DiTXL, "DiT-XL/2", 14, XL),
    "sd3-medium": (SD3Medium, "SD3 medium", 12, MMDIT),
    "flux2-klein-4b": (Flux2Klein, "Flux.2 klein 4B", 12, KLEIN),
    "z-image": (ZImage, "Z-Image", 16, Z_IMAGE),
}


def full_model(key, small=False):
    """Return a model by its key, at published sizes or at those of a rehearsal."""
    kind, name, block, configuration = KINDS[key]
    if small:
        return kind(name, block, configuration | SMALL[key], VAE | SMALL_VAE)
    return kind(name, block, configuration)
