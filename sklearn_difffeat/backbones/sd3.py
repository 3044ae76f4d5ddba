"""Stable Diffusion 3 and 3.5 (Esser et al., arXiv 2403.03206), an MMDiT."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from diffusers import SD3Transformer2DModel

from sklearn_difffeat.backbones._diffusion import Shape
from sklearn_difffeat.backbones._prompt import PromptedBackbone


class SD3Backbone(PromptedBackbone):
    """Joint blocks of text and picture; the picture's tokens are read."""

    model_class = SD3Transformer2DModel
    pipelines: ClassVar[tuple[str, ...]] = ("StableDiffusion3Pipeline",)
    flow = True

    @classmethod
    def shape(cls, config: dict[str, Any]) -> Shape:
        largest = config["pos_embed_max_size"] * config["patch_size"]
        return replace(super().shape(config), largest=largest)

    @classmethod
    def embed(cls, pipeline: Any, prompt: str) -> dict[str, torch.Tensor]:
        embeds, _, pooled, _ = pipeline.encode_prompt(
            prompt, None, None, do_classifier_free_guidance=False
        )
        return {"encoder_hidden_states": embeds, "pooled_projections": pooled}

    def call(
        self, latents: torch.Tensor, steps: torch.Tensor, condition: dict[str, Any]
    ) -> Any:
        return self.model(latents, timestep=steps, **condition)

    def hidden_states(self, output: Any) -> torch.Tensor:
        # A joint block returns (text, picture), and no text from the last one. In one
        # sequence, as Flux.2 and Chroma have it further on, the picture comes last.
        picture = output[1] if isinstance(output, tuple) else output
        return picture[:, -self.n_tokens :]
