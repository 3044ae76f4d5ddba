"""Lumina-Image 2.0 (Qin et al., arXiv 2503.21758): one sequence of text and picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import Lumina2Transformer2DModel

from sklearn_difffeat.backbones._diffusion import Shape
from sklearn_difffeat.backbones._prompt import PromptedBackbone, without_padding


class Lumina2Backbone(PromptedBackbone):
    """Blocks are counted through those that refine the picture, then the joint ones.

    The blocks that refine the text see no picture and are not counted.
    """

    model_class = Lumina2Transformer2DModel
    pipelines = ("Lumina2Pipeline", "Lumina2Text2ImgPipeline")
    flow = True

    @classmethod
    def shape(cls, config: dict[str, Any]) -> Shape:
        n_blocks = config["num_refiner_layers"] + config["num_layers"]
        return Shape(
            widths=(config["hidden_size"],) * (n_blocks + 1),
            channels=config["in_channels"],
            sample_size=config["sample_size"],
            step=config["patch_size"],
            largest=min(config["axes_lens"][1:]) * config["patch_size"],
        )

    @classmethod
    def blocks_of(cls, model: Any) -> Sequence[torch.nn.Module]:
        return [model.x_embedder, *model.noise_refiner, *model.layers]

    @classmethod
    def embed(cls, pipeline: Any, prompt: str) -> dict[str, torch.Tensor]:
        # Guidance drops the system prompt along with the prompt.
        encoded = pipeline.encode_prompt(prompt, negative_prompt="")
        embeds, mask = encoded[:2] if prompt else encoded[2:]
        return {"encoder_hidden_states": without_padding(embeds, mask)}

    def call(
        self, latents: torch.Tensor, steps: torch.Tensor, condition: dict[str, Any]
    ) -> Any:
        words = condition["encoder_hidden_states"]
        # Time runs from noise, 0, to pictures, 1 (diffusers' Lumina2Pipeline).
        return self.model(
            latents,
            timestep=1 - steps.float() / self.info.n_timesteps,
            encoder_attention_mask=steps.new_ones(words.shape[:2], dtype=torch.bool),
            **condition,
        )

    def hidden_states(self, output: Any) -> torch.Tensor:
        # The picture's tokens stand behind those of the text, where there are any.
        return output[:, -self.n_tokens :]
