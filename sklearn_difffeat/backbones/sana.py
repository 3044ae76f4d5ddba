"""Sana (Xie et al., arXiv 2410.10629): linear attention on few latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import SanaTransformer2DModel

from sklearn_difffeat.backbones.pixart import PixArtBackbone


class SanaBackbone(PixArtBackbone):
    """Like PixArt, with linear attention and a mixing convolution in its blocks."""

    model_class = SanaTransformer2DModel
    pipelines = ("SanaPipeline",)
    flow = True

    @classmethod
    def blocks_of(cls, model: Any) -> Sequence[torch.nn.Module]:
        return [model.patch_embed, *model.transformer_blocks]

    def call(
        self, latents: torch.Tensor, steps: torch.Tensor, condition: dict[str, Any]
    ) -> Any:
        # SanaPipeline of diffusers; the published configurations state the factor.
        scaled = steps.float() * self.model.config.timestep_scale
        return self.model(latents, timestep=scaled, **condition)
