"""HunyuanDiT (Li et al., arXiv 2405.08748), a DiT that reads two texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import HunyuanDiT2DModel
from diffusers.models.embeddings import get_2d_rotary_pos_embed
from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import (
    get_resize_crop_region_for_grid,
)

from sklearn_difffeat.backbones._prompt import PromptedBackbone

# HunyuanDiTPipeline: positions are those of a picture of 512 pixels, eight to a latent,
# and a picture was cut from one of 1024.
BASE_SIDE, ORIGINAL = 64, 1024


class HunyuanDiTBackbone(PromptedBackbone):
    """A DiT with cross-attention to two texts, and long skips in its second half."""

    model_class = HunyuanDiT2DModel
    pipelines = ("HunyuanDiTPipeline",)

    @classmethod
    def blocks_of(cls, model: Any) -> Sequence[torch.nn.Module]:
        return [model.pos_embed, *model.blocks]

    @classmethod
    def embed(cls, pipeline: Any, prompt: str) -> dict[str, torch.Tensor]:
        # Padding stays: the model has learned tokens in its place.
        clip, t5 = (
            pipeline.encode_prompt(
                prompt, do_classifier_free_guidance=False, text_encoder_index=index
            )
            for index in (0, 1)
        )
        return {
            "encoder_hidden_states": clip[0], "text_embedding_mask": clip[2],
            "encoder_hidden_states_t5": t5[0], "text_embedding_mask_t5": t5[2],
        }  # fmt: skip

    def call(
        self, latents: torch.Tensor, steps: torch.Tensor, condition: dict[str, Any]
    ) -> Any:
        config, n_rows = self.model.config, len(latents)
        side = latents.shape[-1] // config.patch_size
        crops = get_resize_crop_region_for_grid(
            (side, side), BASE_SIDE // config.patch_size
        )
        pixels = latents.shape[-1] * self.codec.factor
        sizes = [ORIGINAL, ORIGINAL, pixels, pixels, 0, 0]
        return self.model(
            latents,
            steps.to(latents.dtype),
            image_meta_size=latents.new_tensor(sizes).repeat(n_rows, 1),
            style=torch.zeros_like(steps),
            image_rotary_emb=get_2d_rotary_pos_embed(
                config.attention_head_dim, crops, (side, side),
                device=latents.device, output_type="pt",
            ),
            # It calls view on them.
            **{name: value.contiguous() for name, value in condition.items()},
        )  # fmt: skip
