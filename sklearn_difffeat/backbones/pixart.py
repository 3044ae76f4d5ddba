"""PixArt alpha and sigma (Chen et al., arXiv 2310.00426 and 2403.04692)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from diffusers import PixArtTransformer2DModel

from sklearn_difffeat.backbones._prompt import PromptedBackbone, without_padding


class PixArtBackbone(PromptedBackbone):
    """A DiT with cross-attention to a text.

    Without a prompt it sees what diffusers' pipelines give for none, the empty string
    as T5 encodes it. PixArt's own code has a stored null caption in its place, which
    converted checkpoints do not hold.
    """

    model_class = PixArtTransformer2DModel
    pipelines: ClassVar[tuple[str, ...]] = (
        "PixArtAlphaPipeline",
        "PixArtSigmaPipeline",
    )

    @classmethod
    def embed(cls, pipeline: Any, prompt: str) -> dict[str, torch.Tensor]:
        embeds, mask, *_ = pipeline.encode_prompt(
            prompt, do_classifier_free_guidance=False
        )
        return {"encoder_hidden_states": without_padding(embeds, mask)}

    def call(
        self, latents: torch.Tensor, steps: torch.Tensor, condition: dict[str, Any]
    ) -> Any:
        size: dict[str, Any] = {"resolution": None, "aspect_ratio": None}
        if self.model.use_additional_conditions:
            # Height and width in pixels, and the ratio of the two (img_hw, aspect_ratio
            # in PixArtMS.py of github.com/PixArt-alpha/PixArt-alpha).
            n_rows, _, height, width = latents.shape
            pixels = latents.new_tensor([height, width]) * self.codec.factor
            size["resolution"] = pixels.repeat(n_rows, 1)
            size["aspect_ratio"] = latents.new_ones(n_rows, 1)
        return self.model(latents, timestep=steps, added_cond_kwargs=size, **condition)
