"""Dream (Ye et al., arXiv 2508.15487) as ``Dream-org/Dream-v0-Base-7B`` ships it."""

from __future__ import annotations

from typing import Any

import torch

from sklearn_difffeat.backbones._base import Tokens
from sklearn_difffeat.backbones._remote import RemoteTextBackbone, Tied, plain_rope


class DreamBackbone(RemoteTextBackbone):
    """A bidirectional Qwen2; the state at a token predicts the next token."""

    sizes = "num_hidden_layers", "hidden_size", "max_position_embeddings"
    tied = Tied(
        flag="tie_word_embeddings",
        embedding="model.embed_tokens.weight",
        head="lm_head",
    )

    @staticmethod
    def find_stages(model: Any) -> list[torch.nn.Module]:
        return [model.model.embed_tokens, *model.model.layers]

    @staticmethod
    def find_mask_token(config: Any) -> int:
        # As config.json of Dream-v0-Base-7B has it.
        return getattr(config, "mask_token_id", None) or 151666

    @staticmethod
    def adapt(config: Any) -> None:
        # 1e6 as in config.json.
        plain_rope(config, 1e6)

    def run(self, inputs: Tokens, timestep: int, prompt: str = "") -> Any:
        return self.model.model(
            input_ids=inputs.ids,
            attention_mask=inputs.attention[:, None, None, :].bool(),
            use_cache=False,
            output_attentions=False,
            output_hidden_states=False,
            return_dict=True,
        )
