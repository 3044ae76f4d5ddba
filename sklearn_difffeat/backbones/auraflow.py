"""AuraFlow (Cloneofsimo and fal): joint blocks, then single blocks of one sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AuraFlowTransformer2DModel

from sklearn_difffeat.backbones._diffusion import Shape
from sklearn_difffeat.backbones._prompt import PromptedBackbone


class AuraFlowBackbone(PromptedBackbone):
    """An MMDiT whose text and picture tokens are separated by their position."""

    model_class = AuraFlowTransformer2DModel
    pipelines = ("AuraFlowPipeline",)
    flow = True

    @classmethod
    def shape(cls, config: dict[str, Any]) -> Shape:
        width = config["num_attention_heads"] * config["attention_head_dim"]
        n_blocks = config["num_mmdit_layers"] + config["num_single_dit_layers"]
        side = int(config["pos_embed_max_size"] ** 0.5)
        return Shape(
            widths=(width,) * (n_blocks + 1),
            channels=config["in_channels"],
            sample_size=config["sample_size"],
            step=config["patch_size"],
            largest=side * config["patch_size"],
        )

    @classmethod
    def blocks_of(cls, model: Any) -> Sequence[torch.nn.Module]:
        blocks = [*model.joint_transformer_blocks, *model.single_transformer_blocks]
        return [model.pos_embed, *blocks]

    @classmethod
    def embed(cls, pipeline: Any, prompt: str) -> dict[str, torch.Tensor]:
        embeds, *_ = pipeline.encode_prompt(prompt, do_classifier_free_guidance=False)
        return {"encoder_hidden_states": embeds}

    def call(
        self, latents: torch.Tensor, steps: torch.Tensor, condition: dict[str, Any]
    ) -> Any:
        # 1 is pure noise, 0 the picture.
        time = steps / self.info.n_timesteps
        return self.model(latents, timestep=time.to(latents), **condition)

    def hidden_states(self, output: Any) -> torch.Tensor:
        # Joint blocks return (text, picture); in single ones the picture comes last.
        picture = output[1] if isinstance(output, tuple) else output
        return picture[:, -self.n_tokens :]
