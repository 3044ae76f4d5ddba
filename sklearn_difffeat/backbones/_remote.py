"""Masked diffusion language models whose code comes with their weights.

The code is run only for a user who trusts it. Only its class is used: the weights are
put into it here, from safetensors, because such code was written for one version of
transformers, and later versions ask more of a class in ``from_pretrained``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.initialization import no_init_weights
from transformers.modeling_utils import local_torch_dtype

from sklearn_difffeat.backbones._info import BackboneInfo
from sklearn_difffeat.backbones._tokenized import (
    TokenizedBackbone,
    describe_text,
    number,
)
from sklearn_difffeat.checkpoints._source import (
    Source,
    check_complete,
    check_trusted,
    locate,
)
from sklearn_difffeat.checkpoints._weights import fetch_small, weight_files


class Tied(NamedTuple):
    """Which entry of a configuration ties the head to the embedding, and their names.

    The head is a module, by its name in the model; what is tied is its weight.
    """

    flag: str
    embedding: str
    head: str


class RemoteTextBackbone(TokenizedBackbone):
    """Base of a family, which states where things are and how the model is called.

    Attributes
    ----------
    sizes : tuple of str
        Entries of a configuration: number of blocks, width, number of positions.
    tied : Tied
    tokenizer_source : tuple of str or None
        Repository and commit of the tokenizer, where the model's own has none.
    auto_classes : tuple of str
        Under which of these a configuration names the whole model; the first counts.
    """

    sizes: ClassVar[tuple[str, str, str]]
    tied: ClassVar[Tied]
    tokenizer_source: ClassVar[tuple[str, str] | None] = None
    auto_classes: ClassVar[tuple[str, ...]] = (
        "AutoModelForMaskedLM",
        "AutoModel",
        "AutoModelForCausalLM",
    )

    def __init__(self, info: BackboneInfo, model: Any, tokenizer: Any) -> None:
        mask_token_id = self.find_mask_token(model.config)
        super().__init__(info, self.find_stages(model), tokenizer, mask_token_id)
        self.model = model

    @staticmethod
    @abstractmethod
    def find_stages(model: Any) -> list[torch.nn.Module]:
        """Return the embedding of the tokens and the blocks."""

    @staticmethod
    def find_mask_token(config: Any) -> int:
        """Return the token that hides others."""
        return config.mask_token_id

    @staticmethod
    def adapt(config: Any) -> None:
        """Change a configuration that the installed transformers cannot take."""

    @classmethod
    def describe(cls, source: Source) -> BackboneInfo:
        config = source.read_json("config.json") or {}
        n_blocks, width, n_positions = (
            number(source, config, name) for name in cls.sizes
        )
        return describe_text(source, n_blocks, width, n_positions)

    @classmethod
    def load(
        cls, source: Source, device: str, dtype: torch.dtype
    ) -> RemoteTextBackbone:
        tokenizer = cls._load_tokenizer(source)
        kind = _find_class(source, cls.auto_classes)
        config = AutoConfig.from_pretrained(source.snapshot, **source.options)
        cls.adapt(config)
        tied = cls.tied if getattr(config, cls.tied.flag, False) else None
        # transformers 5 cannot read the list of tied weights in such code. No feature
        # needs the head, so it does not matter whether the two share memory.
        config.tie_word_embeddings = False
        with local_torch_dtype(dtype), no_init_weights():
            model = kind(config)
        _fill(model, source, tied)
        model = model.eval().requires_grad_(False).to(device)
        return cls(cls.describe(source), model, tokenizer)

    @classmethod
    def _load_tokenizer(cls, source: Source) -> Any:
        place = source
        if cls.tokenizer_source and not source.find("tokenizer_config.json"):
            name, revision = cls.tokenizer_source
            if not source.on_hub:
                raise ValueError(
                    f"backbone={source.name!r} holds no tokenizer; save that of "
                    f"{name!r} beside the model."
                )
            place = locate(
                name, revision=revision, local_files_only=source.local_files_only
            )
            fetch_small(place)
        tokenizer = AutoTokenizer.from_pretrained(place.snapshot, **source.options)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer


def plain_rope(config: Any, theta: float) -> None:
    """Name a rotary embedding that the installed transformers has.

    transformers 5 has none named "default" any more, which such code asks for; scaled
    linearly by 1, it is the same. ``theta`` is for a configuration without one.
    """
    rope = dict(config.rope_parameters or {})
    if rope.get("rope_type", "default") == "default":
        base = rope.get("rope_theta") or getattr(config, "rope_theta", theta)
        plain = {"rope_type": "linear", "factor": 1.0, "rope_theta": base}
        share = rope.get("partial_rotary_factor") or getattr(
            config, "partial_rotary_factor", None
        )
        if share and share > 0:
            plain["partial_rotary_factor"] = share
        config.rope_parameters = plain


def _find_class(source: Source, names: Sequence[str]) -> Any:
    """Import the model's class from the code beside the weights."""
    config = source.read_json("config.json") or {}
    code = config.get("auto_map") or {}
    reference = next((code[name] for name in names if name in code), None)
    if reference is None:
        raise ValueError(
            f"backbone={source.name!r} is of family {config.get('model_type')!r}, "
            "whose code has to come with it, but config.json names none in auto_map; "
            "download it again."
        )
    check_trusted(source, carries_code=True)
    try:
        return get_class_from_dynamic_module(
            reference, source.snapshot, local_files_only=source.local_files_only
        )
    except ImportError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ImportError(
            f"backbone={source.name!r} has code that cannot be imported ({reason})."
        ) from error


@torch.no_grad()
def _fill(model: torch.nn.Module, source: Source, tied: Tied | None) -> None:
    """Copy the weights in, one tensor at a time; a missing tensor is an error."""
    wanted = model.state_dict()
    filled = set()
    twins = []
    for file in weight_files(source):
        path = source.at_hand(file)
        if path is None or path.suffix != ".safetensors":
            raise ValueError(
                f"backbone={source.name!r} has no safetensors weights, the only ones "
                "loaded for a model with code of its own; convert them."
            )
        with safe_open(path, "pt") as weights:
            for key in wanted.keys() & weights.keys():
                tensor = weights.get_tensor(key)
                if tensor.shape == wanted[key].shape:
                    wanted[key].copy_(tensor)
                    filled.add(wanted[key].data_ptr())
            if tied:
                keys = [key for key in weights.keys() if _is_twin(key, tied)]
                twins += [weights.get_tensor(key) for key in keys]
    # Tied tensors are stored once, under either name.
    missing = {key for key, one in wanted.items() if one.data_ptr() not in filled}
    for key in sorted(missing):
        fitting = [twin for twin in twins if twin.shape == wanted[key].shape]
        if tied and _is_twin(key, tied) and fitting:
            wanted[key].copy_(fitting[0])
            missing.discard(key)
    check_complete(source, missing)


def _is_twin(key: str, tied: Tied) -> bool:
    is_head = key.startswith(f"{tied.head}.") and key.endswith("weight")
    return is_head or key == tied.embedding
