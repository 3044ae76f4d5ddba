"""CogView4 (Z.ai): joint blocks of picture and text, which get the picture's size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import CogView4Transformer2DModel, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.cogview4.pipeline_cogview4 import calculate_shift

from sklearn_difffeat.backbones._prompt import PromptedBackbone


class CogView4Backbone(PromptedBackbone):
    """An MMDiT whose timestep counts equal steps, before the noise is shifted.

    Other flow models get the amount of noise as their timestep. This one gets t, and
    the noise is that of t after the scheduler's shift for the picture's size.
    """

    model_class = CogView4Transformer2DModel
    pipelines = ("CogView4Pipeline",)
    flow = True

    @classmethod
    def blocks_of(cls, model: Any) -> Sequence[torch.nn.Module]:
        return [model.patch_embed, *model.transformer_blocks]

    @classmethod
    def embed(cls, pipeline: Any, prompt: str) -> dict[str, torch.Tensor]:
        embeds, _ = pipeline.encode_prompt(prompt, do_classifier_free_guidance=False)
        return {"encoder_hidden_states": embeds}

    def add_noise(
        self, latents: torch.Tensor, noise: torch.Tensor, timestep: int
    ) -> torch.Tensor:
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.noising.config)
        config = scheduler.config
        n_tokens = latents[0, 0].numel() // self.model.config.patch_size**2
        shift = calculate_shift(
            n_tokens, config.base_image_seq_len, config.base_shift, config.max_shift
        )
        even = timestep / self.info.n_timesteps
        scheduler.set_timesteps(timesteps=[timestep], sigmas=[even], mu=shift)
        shifted = float(scheduler.sigmas[0]) * self.info.n_timesteps
        return self.noising.add(latents, noise, shifted)

    def call(
        self, latents: torch.Tensor, steps: torch.Tensor, condition: dict[str, Any]
    ) -> Any:
        # In pixels, and cropped nowhere: the defaults of CogView4Pipeline.
        size = latents.new_tensor(latents.shape[-2:]) * self.codec.factor
        sizes = size.repeat(len(latents), 1)
        return self.model(
            latents,
            timestep=steps.float(),
            original_size=sizes,
            target_size=sizes,
            crop_coords=torch.zeros_like(sizes),
            **condition,
        )
