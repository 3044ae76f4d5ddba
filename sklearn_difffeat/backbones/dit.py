"""DiT (Peebles and Xie, arXiv 2212.09748) in the layout of diffusers."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel

from sklearn_difffeat.backbones._base import BackboneInfo, ImageBackbone
from sklearn_difffeat.backbones._source import Source, check_complete


def _configs(source: Source) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the configurations of transformer, scheduler and VAE ({} for none)."""
    transformer = source.read_json("transformer/config.json")
    scheduler = source.read_json("scheduler/scheduler_config.json")
    vae = source.read_json("vae/config.json")
    if transformer is None or scheduler is None:
        part = "transformer/config.json" if transformer is None else "scheduler/"
        raise ValueError(
            f"backbone={source.name!r} lacks {part}; a DiT in diffusers' layout has "
            "transformer/, scheduler/ and, for a latent model, vae/."
        )
    if vae is None and transformer["in_channels"] != 3:
        raise ValueError(
            f"backbone={source.name!r} takes {transformer['in_channels']} latent "
            "channels but has no vae/ to make them; add that folder."
        )
    return transformer, scheduler, vae or {}


def _pixels_per_latent(vae: dict[str, Any]) -> int:
    return 2 ** (len(vae["block_out_channels"]) - 1) if vae else 1


def _scheduler_class(source: Source) -> Any:
    config = source.read_json("scheduler/scheduler_config.json") or {}
    name = config.get("_class_name", "DDPMScheduler")
    kind = getattr(diffusers, name, None)
    if "beta_schedule" not in config or not hasattr(kind, "add_noise"):
        raise ValueError(
            f"backbone={source.name!r} has the scheduler {name!r}, which is not of the "
            "DDPM type that DiT trains with; use the scheduler/ it was published with."
        )
    return kind


class DiTBackbone(ImageBackbone):
    """A class-conditional DiT, run with the null class; latents by its VAE's mode."""

    def __init__(
        self,
        info: BackboneInfo,
        transformer: DiTTransformer2DModel,
        scheduler: Any,
        vae: AutoencoderKL | None,
    ) -> None:
        super().__init__(info, [transformer.pos_embed, *transformer.transformer_blocks])
        self.transformer = transformer
        self.scheduler = scheduler
        self.vae = vae
        self.has_encoder = vae is not None
        self.latent_channels = transformer.config.in_channels
        # The row after the last class is what classifier-free guidance drops to.
        self.null_class = transformer.config.num_embeds_ada_norm

    @classmethod
    def describe(cls, source: Source) -> BackboneInfo:
        transformer, scheduler, vae = _configs(source)
        heads = transformer["num_attention_heads"]
        return BackboneInfo(
            name=source.name,
            family=DiTTransformer2DModel.__name__,
            modality="image",
            n_blocks=transformer["num_layers"],
            width=heads * transformer["attention_head_dim"],
            n_timesteps=scheduler["num_train_timesteps"],
            input_size=transformer["sample_size"] * _pixels_per_latent(vae),
            input_step=transformer["patch_size"] * _pixels_per_latent(vae),
            license=source.license,
            size_mb=source.size_mb,
            fingerprint=source.fingerprint,
        )

    @classmethod
    def load(cls, source: Source, device: str, dtype: torch.dtype) -> DiTBackbone:
        _, _, vae_config = _configs(source)

        def part(kind: Any, folder: str) -> Any:
            model, loading = kind.from_pretrained(
                source.location,
                subfolder=folder,
                torch_dtype=dtype,
                low_cpu_mem_usage=False,
                output_loading_info=True,
                **source.options,
            )
            check_complete(
                source, {*loading["missing_keys"], *loading["mismatched_keys"]}
            )
            return model.eval().requires_grad_(False).to(device)

        scheduler = _scheduler_class(source).from_pretrained(
            source.location, subfolder="scheduler", **source.options
        )
        vae = part(AutoencoderKL, "vae") if vae_config else None
        if vae is not None:
            # Features need no decoder: half of the VAE's memory.
            vae.decoder = None
            if dtype != torch.float32:
                # Convolutions of half precision run faster so, those of float32 do not.
                vae = vae.to(memory_format=torch.channels_last)
        transformer = part(DiTTransformer2DModel, "transformer")
        return cls(cls.describe(source), transformer, scheduler, vae)

    def activation_bytes(self, size: int) -> int:
        blocks = self._block_bytes((size // self.info.input_step) ** 2)
        if self.vae is None:
            return blocks
        channels = self.vae.config.block_out_channels[0]
        return max(blocks, 4 * size**2 * channels * self.dtype.itemsize)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        pixels = pixels.to(self.device)
        if self.vae is None:
            return pixels
        # Latents stay float32: in half precision the noise of low timesteps vanishes.
        latents = self.vae.encode(pixels.to(self.dtype)).latent_dist.mode().float()
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        return (latents - shift) * self.vae.config.scaling_factor

    def add_noise(
        self, latents: torch.Tensor, noise: torch.Tensor, timestep: int
    ) -> torch.Tensor:
        steps = torch.full((len(latents),), timestep, device=latents.device)
        return self.scheduler.add_noise(latents, noise, steps)

    def run(self, latents: torch.Tensor, timestep: int) -> Any:
        steps = torch.full((len(latents),), timestep, device=latents.device)
        return self.transformer(
            latents.to(self.dtype),
            timestep=steps,
            class_labels=torch.full_like(steps, self.null_class),
        )
