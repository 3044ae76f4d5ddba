"""BD3-LM (arXiv 2503.09573), SDAR (arXiv 2510.06303) and LLaDA 2 (inclusionAI)."""

from __future__ import annotations

from typing import Any

import torch

from sklearn_difffeat.backbones._base import Tokens
from sklearn_difffeat.backbones._blocks_of_text import BlockDiffusionBackbone
from sklearn_difffeat.backbones._remote import Tied, plain_rope
from sklearn_difffeat.backbones.mdlm import MDLMBackbone


class BD3LMBackbone(BlockDiffusionBackbone, MDLMBackbone):
    """MDLM by blocks, as ``kuleshov-group/bd3lm-owt-block_size16`` ships it."""

    @staticmethod
    def adapt(config: Any) -> None:
        # The other backend compiles kernels for one length.
        config.attn_backend = "sdpa"

    def run(self, inputs: Tokens, timestep: int, prompt: str = "") -> Any:
        body = self.model.backbone
        # Of these two it makes one for its longest text when it is built.
        body.mask, body.n = self.attention(inputs.ids), inputs.ids.shape[1] // 2
        return super().run(inputs, timestep, prompt)


class SDARBackbone(BlockDiffusionBackbone):
    """A Qwen3 by blocks, as ``JetLM/SDAR-4B-Chat`` ships it; its masks are boolean."""

    sizes = "num_hidden_layers", "hidden_size", "max_position_embeddings"
    tied = Tied(
        flag="tie_word_embeddings",
        embedding="model.embed_tokens.weight",
        head="lm_head",
    )
    auto_classes = ("AutoModelForCausalLM",)

    @staticmethod
    def find_stages(model: Any) -> list[torch.nn.Module]:
        return [model.model.get_input_embeddings(), *model.model.layers]

    @staticmethod
    def find_block_size(config: Any) -> int:
        # config.json of SDAR-4B-Chat.
        return getattr(config, "block_size", None) or 4

    @staticmethod
    def find_mask_token(config: Any) -> int:
        return getattr(config, "mask_token_id", None) or 151669

    @staticmethod
    def adapt(config: Any) -> None:
        plain_rope(config, 1e6)

    def run(self, inputs: Tokens, timestep: int, prompt: str = "") -> Any:
        mask = self.attention(inputs.ids).expand(len(inputs.ids), 1, -1, -1)
        return self.model.model(
            input_ids=inputs.ids,
            attention_mask=self.as_taken(mask),
            position_ids=self.positions(inputs.ids),
            use_cache=False,
            output_attentions=False,
            output_hidden_states=False,
        )

    def as_taken(self, mask: torch.Tensor) -> torch.Tensor:
        """Return a boolean mask as the model takes it."""
        return mask


class LLaDA2Backbone(SDARBackbone):
    """Experts by blocks, as ``inclusionAI/LLaDA2.0-mini`` ships it; masks are added."""

    tied = Tied(
        flag="tie_word_embeddings",
        embedding="model.word_embeddings.weight",
        head="lm_head",
    )

    @staticmethod
    def find_block_size(config: Any) -> int:
        # block_length of its generate.
        return getattr(config, "block_size", None) or 32

    @staticmethod
    def find_mask_token(config: Any) -> int:
        # mask_id of its generate.
        return getattr(config, "mask_token_id", None) or 156895

    def as_taken(self, mask: torch.Tensor) -> torch.Tensor:
        zeros = torch.zeros(mask.shape, dtype=self.dtype, device=mask.device)
        return zeros.masked_fill(~mask, torch.finfo(self.dtype).min)
