"""LLaDA (Nie et al., arXiv 2502.09992) as ``GSAI-ML/LLaDA-8B-Base`` ships it.

And LLaDA-MoE as ``inclusionAI/LLaDA-MoE-7B-A1B-Base`` does.
"""

from __future__ import annotations

from typing import Any

import torch

from sklearn_difffeat.backbones._base import Tokens
from sklearn_difffeat.backbones._remote import RemoteTextBackbone, Tied, plain_rope


class LLaDABackbone(RemoteTextBackbone):
    """A bidirectional LLaMA; its published code may ignore the attention mask."""

    sizes = "n_layers", "d_model", "max_sequence_length"
    tied = Tied(
        flag="weight_tying",
        embedding="model.transformer.wte.weight",
        head="model.transformer.ff_out",
    )
    hides_padding = False

    @staticmethod
    def find_stages(model: Any) -> list[torch.nn.Module]:
        return [model.model.transformer.wte, *model.model.transformer.blocks]

    @staticmethod
    def find_mask_token(config: Any) -> int:
        # As generate.py of github.com/ML-GSAI/LLaDA has it.
        return getattr(config, "mask_token_id", None) or 126336

    def run(self, inputs: Tokens, timestep: int, prompt: str = "") -> Any:
        return self.model.model(input_ids=inputs.ids)


class LLaDAMoEBackbone(RemoteTextBackbone):
    """A bidirectional Transformer with experts; run without an attention mask."""

    sizes = "num_hidden_layers", "hidden_size", "max_position_embeddings"
    tied = Tied(
        flag="tie_word_embeddings",
        embedding="model.embed_tokens.weight",
        head="lm_head",
    )
    hides_padding = False
    auto_classes = "AutoModelForCausalLM", "AutoModel"

    @staticmethod
    def find_stages(model: Any) -> list[torch.nn.Module]:
        return [model.model.embed_tokens, *model.model.layers]

    @staticmethod
    def find_mask_token(config: Any) -> int:
        # As the example of its model card has it.
        return getattr(config, "mask_token_id", None) or 156895

    @staticmethod
    def adapt(config: Any) -> None:
        plain_rope(config, 10_000.0)

    def run(self, inputs: Tokens, timestep: int, prompt: str = "") -> Any:
        return self.model.model(
            input_ids=inputs.ids,
            use_cache=False,
            output_attentions=False,
            output_hidden_states=False,
            output_router_logits=False,
            return_dict=True,
        )
