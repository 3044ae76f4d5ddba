"""Flux (Black Forest Labs) and Chroma: double blocks of text and picture, then single.

Chroma (Lodestone Rock) is Flux without a pooled text and without guidance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import ChromaTransformer2DModel, FluxTransformer2DModel
from torch.nn import functional

from sklearn_difffeat.backbones._diffusion import Shape
from sklearn_difffeat.backbones._prompt import without_padding
from sklearn_difffeat.backbones.sd3 import SD3Backbone

# The guidance_scale that models distilled with guidance get (FluxPipeline).
GUIDANCE = 3.5


class FluxBackbone(SD3Backbone):
    """Latents packed to tokens; blocks counted through both kinds.

    Attributes
    ----------
    packed : int
        Side of a token in latents (FluxPipeline._pack_latents).
    default_side : int
        Side in latents of a picture (FluxPipeline.default_sample_size).
    """

    model_class = FluxTransformer2DModel
    pipelines: ClassVar[tuple[str, ...]] = ("FluxPipeline",)
    packed: ClassVar[int] = 2
    default_side: ClassVar[int] = 128

    @classmethod
    def shape(cls, config: dict[str, Any]) -> Shape:
        width = config["num_attention_heads"] * config["attention_head_dim"]
        n_blocks = config["num_layers"] + config.get("num_single_layers", 0)
        return Shape(
            widths=(width,) * (n_blocks + 1),
            channels=config["in_channels"] // cls.packed**2,
            sample_size=cls.default_side,
            step=cls.packed,
        )

    @classmethod
    def blocks_of(cls, model: Any) -> Sequence[torch.nn.Module]:
        blocks = [*model.transformer_blocks, *model.single_transformer_blocks]
        return [model.x_embedder, *blocks]

    @classmethod
    def embed(cls, pipeline: Any, prompt: str) -> dict[str, torch.Tensor]:
        embeds, pooled, _ = pipeline.encode_prompt(prompt)
        return {"encoder_hidden_states": embeds, "pooled_projections": pooled}

    def call(
        self, latents: torch.Tensor, steps: torch.Tensor, condition: dict[str, Any]
    ) -> Any:
        n_words = condition["encoder_hidden_states"].shape[1]
        tokens = functional.pixel_unshuffle(latents, self.packed)
        return self.model(
            tokens.flatten(2).mT,
            timestep=steps.float() / self.info.n_timesteps,
            **self.told(tokens, n_words),
            **condition,
        )

    def told(self, tokens: torch.Tensor, n_words: int) -> dict[str, Any]:
        """Return positions and guidance for packed latents, of which a token is one."""
        rows, columns = tokens.shape[-2:]
        zeros = torch.zeros(rows, columns, dtype=torch.float32, device=tokens.device)
        down = zeros + torch.arange(rows, device=tokens.device)[:, None]
        right = zeros + torch.arange(columns, device=tokens.device)
        told = {
            "img_ids": torch.stack([zeros, down, right], dim=-1).flatten(0, 1),
            "txt_ids": zeros.new_zeros(n_words, 3),
        }
        if self.model.config.get("guidance_embeds"):
            told["guidance"] = tokens.new_full((len(tokens),), GUIDANCE)
        return told


class ChromaBackbone(FluxBackbone):
    """Flux without a pooled text; it sees the first token of padding, but no more."""

    model_class = ChromaTransformer2DModel
    pipelines = ("ChromaPipeline",)

    @classmethod
    def embed(cls, pipeline: Any, prompt: str) -> dict[str, torch.Tensor]:
        encoded = pipeline.encode_prompt(prompt, do_classifier_free_guidance=False)
        # Handed on, diffusers' mask of 0 and 1 would be added to the attention.
        return {"encoder_hidden_states": without_padding(encoded[0], encoded[2])}
