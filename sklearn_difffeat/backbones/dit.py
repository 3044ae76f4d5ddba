"""DiT (Peebles and Xie, arXiv 2212.09748), run with the null class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DiTTransformer2DModel

from sklearn_difffeat.backbones._diffusion import DiffusionBackbone, Shape


class DiTBackbone(DiffusionBackbone):
    """A class-conditional DiT of latents or pixels."""

    model_class = DiTTransformer2DModel

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
        return [model.pos_embed, *model.transformer_blocks]

    def call(
        self, latents: torch.Tensor, steps: torch.Tensor, condition: dict[str, Any]
    ) -> Any:
        # The row after the last class is what classifier-free guidance drops to.
        null_class = torch.full_like(steps, self.model.config.num_embeds_ada_norm)
        return self.model(latents, timestep=steps, class_labels=null_class)
