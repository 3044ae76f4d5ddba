"""The U-Nets of Stable Diffusion 1.5, 2.1 and XL (arXiv 2112.10752, 2307.01952)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from sklearn_difffeat.backbones._diffusion import DiffusionBackbone, Shape
from sklearn_difffeat.backbones._prompt import PromptedBackbone
from sklearn_difffeat.checkpoints._source import Source


class UNetBlocks(DiffusionBackbone):
    """Blocks are counted down, through the middle, and up; positions are tokens."""

    folder = "unet"

    @classmethod
    def shape(cls, config: dict[str, Any]) -> Shape:
        down = tuple(config["block_out_channels"])
        middle = (down[-1],) if config.get("mid_block_type", True) else ()
        return Shape(
            widths=(down[0], *down, *middle, *reversed(down)),
            channels=config["in_channels"],
            sample_size=config["sample_size"],
            step=2 ** (len(down) - 1),
        )

    @classmethod
    def blocks_of(cls, model: Any) -> Sequence[torch.nn.Module]:
        middle = [] if model.mid_block is None else [model.mid_block]
        return [model.conv_in, *model.down_blocks, *middle, *model.up_blocks]

    def hidden_states(self, output: Any) -> torch.Tensor:
        # A block on the way down also returns what goes across to the way up.
        features = output[0] if isinstance(output, tuple) else output
        return features.flatten(2).mT

    def activation_bytes(self, size: int) -> int:
        n_tokens = (size // self.codec.factor) ** 2
        # On the way up, the finest level holds what came across as well; 16 as for a
        # Transformer's block.
        finest = 2 * self.info.width_of(0)
        blocks = 16 * n_tokens * finest * self.dtype.itemsize
        return max(blocks, self.codec.activation_bytes(size))


class UNetBackbone(UNetBlocks, PromptedBackbone):
    """The U-Nets that cross-attend to a text."""

    model_class = UNet2DConditionModel
    pipelines = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")

    @classmethod
    def encode_prompt(
        cls, source: Source, prompt: str, device: str, dtype: torch.dtype
    ) -> dict[str, torch.Tensor]:
        index = cls._index(source)
        zeroed = index.get("force_zeros_for_empty_prompt", True)
        if prompt or index["_class_name"] == cls.pipelines[0] or not zeroed:
            return super().encode_prompt(source, prompt, device, dtype)
        # SDXL was trained with zeros for no text (force_zeros_for_empty_prompt of its
        # pipeline), for which one token is enough. The rest of the pooled input is the
        # six sizes below.
        config = source.read_json("unet/config.json") or {}
        times = 6 * config["addition_time_embed_dim"]
        pooled = config["projection_class_embeddings_input_dim"] - times
        zeros = torch.zeros(1, config["cross_attention_dim"] + pooled, device=device)
        words, pooled_words = zeros.to(dtype).split(
            [config["cross_attention_dim"], pooled], dim=1
        )
        return {"encoder_hidden_states": words[None], "text_embeds": pooled_words}

    @classmethod
    def embed(cls, pipeline: Any, prompt: str) -> dict[str, torch.Tensor]:
        embeds, _, *pooled = pipeline.encode_prompt(
            prompt,
            device=pipeline.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        if not pooled:
            return {"encoder_hidden_states": embeds}
        return {"encoder_hidden_states": embeds, "text_embeds": pooled[0]}

    def call(
        self, latents: torch.Tensor, steps: torch.Tensor, condition: dict[str, Any]
    ) -> Any:
        added = None
        if "text_embeds" in condition:
            height, width = (side * self.codec.factor for side in latents.shape[-2:])
            # SDXL (arXiv 2307.01952, section 2.2) gets the original size, the cropping,
            # and the present size.
            sizes = latents.new_tensor([height, width, 0, 0, height, width])
            added = {
                "text_embeds": condition["text_embeds"],
                "time_ids": sizes.repeat(len(latents), 1),
            }
        return self.model(
            latents,
            timestep=steps,
            encoder_hidden_states=condition["encoder_hidden_states"],
            added_cond_kwargs=added,
        )
