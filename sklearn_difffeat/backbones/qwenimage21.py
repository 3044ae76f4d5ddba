"""Qwen-Image 2.1: one sequence of text and picture, whose text sees no picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from diffusers import QwenImage21Transformer2DModel

from sklearn_difffeat.backbones._diffusion import Shape
from sklearn_difffeat.backbones.qwenimage import QwenImageBackbone

# Side in latents of what the sequence has one place for before it is filled with the
# picture's latents (_IMG_TOKENS_PER_SLOT of diffusers is its square).
PLACE = 2


class QwenImage21Backbone(QwenImageBackbone):
    """A latent is a token and sides are even; the picture's tokens come last."""

    model_class = QwenImage21Transformer2DModel
    pipelines = ("QwenImage21Pipeline",)
    # Of half the side that others have: its VAE shrinks pictures to a sixteenth.
    packed, default_side = 1, 64

    @classmethod
    def shape(cls, config: dict[str, Any]) -> Shape:
        return replace(super().shape(config), step=PLACE, tokens_per_step=PLACE)

    def told(self, tokens: torch.Tensor, n_words: int) -> dict[str, Any]:
        height, width = tokens.shape[-2:]
        places = torch.arange(n_words + height * width // PLACE**2) >= n_words
        return {
            "img_shapes": [[(1, height, width)]] * len(tokens),
            "img_mask": places.to(tokens.device).expand(len(tokens), -1),
        }
