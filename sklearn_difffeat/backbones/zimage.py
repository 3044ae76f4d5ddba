"""Z-Image (arXiv 2511.22699): one sequence of picture and text, the picture first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ZImageTransformer2DModel
from diffusers.models.transformers.transformer_z_image import SEQ_MULTI_OF

from sklearn_difffeat.backbones._diffusion import Shape
from sklearn_difffeat.backbones._prompt import PromptedBackbone

# Side of a token in latents, frames to a token (ZImageTransformer2DModel.forward), and
# the side in latents of a picture (1024 pixels in ZImagePipeline).
PATCH, FRAMES, SAMPLE_SIZE = 2, 1, 128


class ZImageBackbone(PromptedBackbone):
    """Blocks are counted through those that refine the picture, then the joint ones.

    The blocks that refine the text see no picture and are not counted.
    """

    model_class = ZImageTransformer2DModel
    pipelines = ("ZImagePipeline",)
    flow = True

    @classmethod
    def shape(cls, config: dict[str, Any]) -> Shape:
        n_blocks = config["n_refiner_layers"] + config["n_layers"]
        return Shape(
            widths=(config["dim"],) * (n_blocks + 1),
            channels=config["in_channels"],
            sample_size=SAMPLE_SIZE,
            step=PATCH,
            largest=min(config["axes_lens"][1:]) * PATCH,
        )

    @classmethod
    def blocks_of(cls, model: Any) -> Sequence[torch.nn.Module]:
        embed = model.all_x_embedder[f"{PATCH}-{FRAMES}"]
        return [embed, *model.noise_refiner, *model.layers]

    @classmethod
    def embed(cls, pipeline: Any, prompt: str) -> dict[str, torch.Tensor]:
        (embeds,), _ = pipeline.encode_prompt(prompt, do_classifier_free_guidance=False)
        return {"encoder_hidden_states": embeds[None]}

    def call(
        self, latents: torch.Tensor, steps: torch.Tensor, condition: dict[str, Any]
    ) -> Any:
        # Time runs from noise, 0, to pictures, 1 (diffusers' ZImagePipeline).
        return self.model(
            list(latents.unsqueeze(2)),
            1 - steps.float() / self.info.n_timesteps,
            list(condition["encoder_hidden_states"]),
        )

    def hidden_states(self, output: Any) -> torch.Tensor:
        if output.ndim == 2:
            # Embedded are all rows at once, each with its padding.
            padding = -self.n_tokens % SEQ_MULTI_OF
            output = output.unflatten(0, (-1, self.n_tokens + padding))
        return output[:, : self.n_tokens]
