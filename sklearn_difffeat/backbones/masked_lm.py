"""Masked language models in the layout of transformers, seen as masked diffusion.

A masked language model predicts hidden tokens at one masking rate; a masked diffusion
model (MDLM, arXiv 2406.07524) does so at every rate. Timestep t hides t / 1000 of the
tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from sklearn_difffeat.backbones._base import Tokens
from sklearn_difffeat.backbones._info import BackboneInfo
from sklearn_difffeat.backbones._stages import find_stages, hides_padding
from sklearn_difffeat.backbones._tokenized import (
    TokenizedBackbone,
    describe_text,
    number,
)
from sklearn_difffeat.checkpoints._parts import settle
from sklearn_difffeat.checkpoints._source import Source, check_complete
from sklearn_difffeat.checkpoints._weights import find_weights

VOCABULARIES = [
    "tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spm.model",
    "sentencepiece.bpe.model",
]  # fmt: skip
# RoBERTa and models like it count positions from padding_idx + 1, as in fairseq.
COUNTED_FROM_PADDING = {
    "camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta",
    "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip


class MaskedLMBackbone(TokenizedBackbone):
    """An encoder with a masked language model's head, and its own tokenizer.

    BERT, RoBERTa, DeBERTa, EuroBERT and all others that transformers has, if its
    blocks run one after another on one row of states.

    Raises
    ------
    ValueError
        When they do not.
    """

    def __init__(self, info: BackboneInfo, model: Any, tokenizer: Any) -> None:
        body = model.base_model
        stages = find_stages(body, info)
        super().__init__(info, stages, tokenizer, tokenizer.mask_token_id)
        self.model = body
        self.hides_padding = hides_padding(self)

    @classmethod
    def describe(cls, source: Source) -> BackboneInfo:
        config = source.read_json("config.json")
        assert config is not None  # the registry read the family from it
        if not any(source.find(file) for file in VOCABULARIES):
            raise ValueError(
                f"backbone={source.name!r} holds no tokenizer (none of "
                f"{VOCABULARIES}); save the model's tokenizer beside it."
            )
        positions = number(source, config, "max_position_embeddings")
        if config["model_type"] in COUNTED_FROM_PADDING:
            positions -= config.get("pad_token_id", 1) + 1
        n_blocks = number(source, config, "num_hidden_layers", "n_layers")
        width = number(source, config, "hidden_size", "dim")
        return describe_text(source, n_blocks, width, positions)

    @classmethod
    def load(cls, source: Source, device: str, dtype: torch.dtype) -> MaskedLMBackbone:
        tokenizer = AutoTokenizer.from_pretrained(source.snapshot, **source.options)
        for token in ("mask", "pad"):
            if getattr(tokenizer, f"{token}_token_id") is None:
                raise ValueError(
                    f"backbone={source.name!r} has a tokenizer without a {token} "
                    "token; use a masked language model."
                )
        options = source.options
        if source.ported:
            options |= {"trust_remote_code": False}
        model, loading = AutoModelForMaskedLM.from_pretrained(
            source.snapshot,
            dtype=dtype,
            variant=find_weights(source, "").variant,
            output_loading_info=True,
            **options,
        )
        body = f"{model.base_model_prefix}."
        missing = {key for key in loading["missing_keys"] if key.startswith(body)}
        check_complete(source, missing | set(loading["mismatched_keys"]))
        model = settle(model, device)
        return cls(cls.describe(source), model, tokenizer)

    def run(self, inputs: Tokens, timestep: int, prompt: str = "") -> Any:
        return self.model(input_ids=inputs.ids, attention_mask=inputs.attention)
