"""Masked language models in the layout of transformers, seen as masked diffusion.

A masked language model predicts hidden tokens at one masking rate; a masked diffusion
model (MDLM, arXiv 2406.07524) does so at every rate. Timestep t hides t / 1000 of the
tokens.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer
from transformers.utils import logging

from sklearn_difffeat.backbones._base import BackboneInfo, TextBackbone, Tokens
from sklearn_difffeat.backbones._source import Source, check_complete

N_TIMESTEPS = 1000
VOCABULARIES = ["tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model"]


def _first(config: dict[str, Any], *names: str) -> int:
    return next(config[name] for name in names if name in config)


def _positions(config: dict[str, Any]) -> int:
    positions = _first(config, "max_position_embeddings")
    if config["model_type"] == "roberta":
        # RoBERTa counts positions from padding_idx + 1.
        positions -= config.get("pad_token_id", 1) + 1
    return positions


@contextmanager
def _quiet_unless(on_hub: bool) -> Iterator[None]:
    """Show transformers' progress bars for what may be a download only."""
    shown = logging.is_progress_bar_enabled()
    if not on_hub:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


class MaskedLMBackbone(TextBackbone):
    """BERT, RoBERTa, DistilBERT or ModernBERT with its own tokenizer."""

    def __init__(self, info: BackboneInfo, model: Any, tokenizer: Any) -> None:
        body = model.base_model
        inner = next(
            (getattr(body, name) for name in ("encoder", "transformer") if
             hasattr(body, name)), body,
        )  # fmt: skip
        layers = inner.layer if hasattr(inner, "layer") else inner.layers
        super().__init__(info, [body.embeddings, *layers])
        self.model = body
        self.tokenizer = tokenizer
        # Fast tokenizers set truncation and padding on themselves at each call.
        self._tokenizer_lock = threading.Lock()
        self.mask_token_id = tokenizer.mask_token_id

    @classmethod
    def describe(cls, source: Source) -> BackboneInfo:
        config = source.read_json("config.json")
        assert config is not None  # the registry read the family from it
        if not any(source.find(file) for file in VOCABULARIES):
            raise ValueError(
                f"backbone={source.name!r} holds no tokenizer (none of "
                f"{VOCABULARIES}); save the model's tokenizer beside it."
            )
        architectures = config.get("architectures") or [config["model_type"]]
        return BackboneInfo(
            name=source.name,
            family=architectures[0],
            modality="text",
            n_blocks=_first(config, "num_hidden_layers", "n_layers"),
            width=_first(config, "hidden_size", "dim"),
            n_timesteps=N_TIMESTEPS,
            input_size=_positions(config),
            input_step=1,
            license=source.license,
            size_mb=source.size_mb,
            fingerprint=source.fingerprint,
        )

    @classmethod
    def load(cls, source: Source, device: str, dtype: torch.dtype) -> MaskedLMBackbone:
        options = source.options | {"trust_remote_code": source.trust_remote_code}
        tokenizer = AutoTokenizer.from_pretrained(source.location, **options)
        for token in ("mask", "pad"):
            if getattr(tokenizer, f"{token}_token_id") is None:
                raise ValueError(
                    f"backbone={source.name!r} has a tokenizer without a {token} "
                    "token; use a masked language model."
                )
        with _quiet_unless(source.on_hub):
            model, loading = AutoModelForMaskedLM.from_pretrained(
                source.location, dtype=dtype, output_loading_info=True, **options
            )
        body = f"{model.base_model_prefix}."
        missing = {key for key in loading["missing_keys"] if key.startswith(body)}
        check_complete(source, missing | set(loading["mismatched_keys"]))
        model = model.eval().requires_grad_(False).to(device)
        return cls(cls.describe(source), model, tokenizer)

    def tokenize(self, texts: Sequence[str], max_length: int) -> Tokens:
        n_special = self.tokenizer.num_special_tokens_to_add()
        if max_length <= n_special:
            raise ValueError(
                f"max_length={max_length} leaves no room for a word beside the "
                f"{n_special} special tokens; choose at least {n_special + 1}."
            )
        with self._tokenizer_lock:
            batch = self.tokenizer(
                list(texts),
                truncation=True,
                max_length=max_length,
                padding=True,
                return_special_tokens_mask=True,
                return_tensors="pt",
            )
        encodings = batch.encodings or []
        truncated = [i for i, row in enumerate(encodings) if row.overflowing]
        real = ~batch["special_tokens_mask"].bool() & batch["attention_mask"].bool()
        ids, attention = batch["input_ids"], batch["attention_mask"]
        return Tokens(ids.to(self.device), attention.to(self.device), real, truncated)

    def activation_bytes(self, size: int) -> int:
        return self._block_bytes(size)

    def run(self, tokens: Tokens) -> Any:
        return self.model(input_ids=tokens.ids, attention_mask=tokens.attention)
