"""MDLM (Sahoo et al., arXiv 2406.07524) as ``kuleshov-group/mdlm-owt`` ships it."""

from __future__ import annotations

import math
from typing import Any

import torch

from sklearn_difffeat.backbones._base import Tokens
from sklearn_difffeat.backbones._remote import RemoteTextBackbone, Tied
from sklearn_difffeat.checkpoints._source import Source


class MDLMBackbone(RemoteTextBackbone):
    """A DiT over tokens; without attention mask, so texts run by their length."""

    sizes = "n_blocks", "hidden_dim", "model_length"
    tied = Tied(
        flag="tie_word_embeddings",
        embedding="backbone.vocab_embed.embedding",
        head="backbone.output_layer",
    )
    hides_padding = False
    # "gpt2" in MDLM's configs/data/openwebtext.yaml.
    tokenizer_source = (
        "openai-community/gpt2",
        "607a30d783dfa663caf39e06633721c8d4cfcd7e",
    )

    @staticmethod
    def find_stages(model: Any) -> list[torch.nn.Module]:
        return [model.backbone.vocab_embed, *model.backbone.blocks]

    @staticmethod
    def find_mask_token(config: Any) -> int:
        # The one token after the tokenizer's vocabulary (mask_index in diffusion.py of
        # github.com/kuleshov-group/mdlm).
        return config.vocab_size - 1

    @classmethod
    def load(
        cls, source: Source, device: str, dtype: torch.dtype
    ) -> RemoteTextBackbone:
        if dtype != torch.float32:
            raise ValueError(
                f"dtype={str(dtype).removeprefix('torch.')!r} is not for backbone "
                f"{source.name!r}: its code computes in float32; use dtype='float32'."
            )
        return super().load(source, device, dtype)

    def run(self, inputs: Tokens, timestep: int, prompt: str = "") -> Any:
        # The log-linear schedule (LogLinearNoise in noise_schedule.py there, eps 0):
        # 1 - exp(-sigma) of the tokens are masked.
        sigma = -math.log1p(-timestep / self.info.n_timesteps)
        return self.model(
            input_ids=inputs.ids,
            timesteps=torch.full((len(inputs.ids),), sigma, device=self.device),
            output_hidden_states=False,
            return_dict=True,
        )
