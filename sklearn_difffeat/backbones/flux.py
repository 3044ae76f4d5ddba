"""Flux (Black Forest Labs): double blocks of text and picture, then single ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from torch.nn import functional

from sklearn_difffeat.backbones._diffusion import Shape
from sklearn_difffeat.backbones.sd3 import SD3Backbone

# FluxPipeline of diffusers: its default_sample_size, and the guidance_scale that models
# distilled with guidance are told.
SAMPLE_SIZE, GUIDANCE = 128, 3.5
# Latents to a side of a token (FluxPipeline._pack_latents).
PACKED = 2


class FluxBackbone(SD3Backbone):
    """Latents packed 2 x 2 to a token; blocks counted through both kinds.

    Either kind returns (text, picture), as the joint blocks of SD3 do.
    """

    model_class = FluxTransformer2DModel
    pipelines = ("FluxPipeline",)

    @classmethod
    def shape(cls, config: dict[str, Any]) -> Shape:
        width = config["num_attention_heads"] * config["attention_head_dim"]
        n_blocks = config["num_layers"] + config["num_single_layers"]
        return Shape(
            widths=(width,) * (n_blocks + 1),
            channels=config["in_channels"] // PACKED**2,
            sample_size=SAMPLE_SIZE,
            step=PACKED,
        )

    @classmethod
    def blocks_of(cls, model: Any) -> Sequence[torch.nn.Module]:
        blocks = [*model.transformer_blocks, *model.single_transformer_blocks]
        return [model.x_embedder, *blocks]

    @classmethod
    def embed(cls, pipeline: Any, prompt: str) -> dict[str, torch.Tensor]:
        embeds, pooled, _ = pipeline.encode_prompt(prompt)
        return {"encoder_hidden_states": embeds, "pooled_projections": pooled}

    def call(
        self, latents: torch.Tensor, steps: torch.Tensor, condition: dict[str, Any]
    ) -> Any:
        rows, columns = (side // PACKED for side in latents.shape[-2:])
        zeros = torch.zeros(rows, columns, dtype=torch.float32, device=latents.device)
        down = zeros + torch.arange(rows, device=latents.device)[:, None]
        right = zeros + torch.arange(columns, device=latents.device)
        n_words = condition["encoder_hidden_states"].shape[1]
        guidance = None
        if self.model.config.guidance_embeds:
            guidance = latents.new_full((len(latents),), GUIDANCE)
        return self.model(
            functional.pixel_unshuffle(latents, PACKED).flatten(2).mT,
            timestep=steps.float() / self.info.n_timesteps,
            guidance=guidance,
            img_ids=torch.stack([zeros, down, right], dim=-1).flatten(0, 1),
            txt_ids=zeros.new_zeros(n_words, 3),
            **condition,
        )
