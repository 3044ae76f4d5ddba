"""Flux.2, dev and klein (Black Forest Labs), on latents that its VAE packs itself."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import Flux2Transformer2DModel

from sklearn_difffeat.backbones.flux import FluxBackbone

# The guidance_scale that models distilled with guidance get (Flux2Pipeline).
GUIDANCE = 4.0


class Flux2Backbone(FluxBackbone):
    """As Flux, except that positions have four axes, of which the last counts words."""

    model_class = Flux2Transformer2DModel
    pipelines = ("Flux2KleinPipeline", "Flux2Pipeline")
    # Of half the side: 2 x 2 latents are packed before noise is added.
    packed, default_side = 1, 64

    @classmethod
    def embed(cls, pipeline: Any, prompt: str) -> dict[str, torch.Tensor]:
        return {"encoder_hidden_states": pipeline.encode_prompt(prompt)[0]}

    def told(self, tokens: torch.Tensor, n_words: int) -> dict[str, Any]:
        rows, columns, words = (
            torch.arange(n, device=tokens.device) for n in (*tokens.shape[-2:], n_words)
        )
        zero = rows[:1]
        told: dict[str, Any] = {
            "img_ids": torch.cartesian_prod(zero, rows, columns, zero),
            "txt_ids": torch.cartesian_prod(zero, zero, zero, words),
        }
        if self.model.config.guidance_embeds:
            told["guidance"] = tokens.new_full((len(tokens),), GUIDANCE)
        return told
