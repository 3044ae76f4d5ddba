"""The U-Nets of DDPM (Ho et al., arXiv 2006.11239) and others that read no text."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet2DModel

from sklearn_difffeat.backbones._info import BackboneInfo
from sklearn_difffeat.backbones.unet import UNetBlocks
from sklearn_difffeat.checkpoints._parts import read_part
from sklearn_difffeat.checkpoints._source import Source

PIPELINES = "DDPMPipeline", "DDIMPipeline"


class DDPMBackbone(UNetBlocks):
    """A U-Net of pixels, without latents and without classes."""

    model_class = UNet2DModel

    @classmethod
    def describe(cls, source: Source) -> BackboneInfo:
        index = source.read_json("model_index.json") or {}
        config = read_part(source, cls.folder)
        classes = config.get("class_embed_type") or config.get("num_class_embeds")
        named = index.get("_class_name", PIPELINES[0])
        if classes or named not in PIPELINES:
            needed = "takes a class" if classes else f"belongs to a {named!r}"
            raise ValueError(
                f"backbone={source.name!r} has a U-Net that {needed}; use one of "
                f"{list(PIPELINES)} that makes pictures from noise alone."
            )
        return super().describe(source)

    def call(
        self, latents: torch.Tensor, steps: torch.Tensor, condition: dict[str, Any]
    ) -> Any:
        return self.model(latents, timestep=steps)
