"""HunyuanImage 2.1 (Tencent): double and single blocks on few latents."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import HunyuanImageTransformer2DModel

from sklearn_difffeat.backbones._prompt import without_padding
from sklearn_difffeat.backbones.flux import FluxBackbone

# The distilled_guidance_scale of HunyuanImagePipeline, which passes it times 1000.
GUIDANCE = 3.25 * 1000


class HunyuanImageBackbone(FluxBackbone):
    """Double and single blocks, which all return (picture, text)."""

    model_class = HunyuanImageTransformer2DModel
    pipelines = ("HunyuanImagePipeline",)
    packed, default_side = 1, 64

    @classmethod
    def embed(cls, pipeline: Any, prompt: str) -> dict[str, torch.Tensor]:
        words, mask, glyphs, glyph_mask = pipeline.encode_prompt(prompt)
        condition = {"encoder_hidden_states": without_padding(words, mask)}
        if glyph_mask.any():
            # Words that the prompt has in quotation marks, to be drawn.
            condition["encoder_hidden_states_2"] = without_padding(glyphs, glyph_mask)
        return condition

    def call(
        self, latents: torch.Tensor, steps: torch.Tensor, condition: dict[str, Any]
    ) -> Any:
        config = self.model.config
        time = steps.to(latents.dtype)
        masks = {
            name.replace("hidden_states", "attention_mask"): steps.new_ones(
                words.shape[:2]
            )
            for name, words in condition.items()
        }
        return self.model(
            latents,
            time,
            # The step ends at the clean picture, for a model that also gets the end of
            # a step.
            timestep_r=torch.zeros_like(time) if config.use_meanflow else None,
            guidance=torch.full_like(time, GUIDANCE)
            if config.guidance_embeds
            else None,
            **condition,
            **masks,
        )

    def hidden_states(self, output: Any) -> torch.Tensor:
        return output[0] if isinstance(output, tuple) else output
