"""Qwen-Image (arXiv 2508.02324): joint blocks of text and picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import QwenImageTransformer2DModel

from sklearn_difffeat.backbones.flux import FluxBackbone


class QwenImageBackbone(FluxBackbone):
    """Latents packed as Flux packs them; joint blocks only."""

    model_class = QwenImageTransformer2DModel
    pipelines = ("QwenImagePipeline",)

    @classmethod
    def blocks_of(cls, model: Any) -> Sequence[torch.nn.Module]:
        return [model.img_in, *model.transformer_blocks]

    @classmethod
    def embed(cls, pipeline: Any, prompt: str) -> dict[str, torch.Tensor]:
        return {"encoder_hidden_states": pipeline.encode_prompt(prompt)[0]}

    def told(self, tokens: torch.Tensor, n_words: int) -> dict[str, Any]:
        return {"img_shapes": [[(1, *tokens.shape[-2:])]] * len(tokens)}
