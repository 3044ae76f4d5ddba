"""Sana (Xie et al., arXiv 2410.10629): linear attention on few latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import SanaTransformer2DModel

from sklearn_difffeat.backbones._diffusion import Shape
from sklearn_difffeat.backbones._prompt import PromptedBackbone, without_padding


class SanaBackbone(PromptedBackbone):
    """Blocks with linear attention and a mixing convolution."""

    model_class = SanaTransformer2DModel
    pipelines = ("SanaPipeline",)
    flow = True

    @classmethod
    def shape(cls, config: dict[str, Any]) -> Shape:
        width = config["num_attention_heads"] * config["attention_head_dim"]
        return Shape(
            widths=(width,) * (config["num_layers"] + 1),
            channels=config["in_channels"],
            sample_size=config["sample_size"],
            step=config["patch_size"],
        )

    @classmethod
    def blocks_of(cls, model: Any) -> Sequence[torch.nn.Module]:
        return [model.patch_embed, *model.transformer_blocks]

    @classmethod
    def embed(cls, pipeline: Any, prompt: str) -> dict[str, torch.Tensor]:
        embeds, mask, *_ = pipeline.encode_prompt(
            prompt, do_classifier_free_guidance=False
        )
        return {"encoder_hidden_states": without_padding(embeds, mask)}

    def call(
        self, latents: torch.Tensor, steps: torch.Tensor, condition: dict[str, Any]
    ) -> Any:
        scaled = steps.float() * self.model.config.timestep_scale
        return self.model(latents, timestep=scaled, **condition)
