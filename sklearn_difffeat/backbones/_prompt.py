"""A prompt's encoding by a pipeline's own text encoders, which are not kept."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from types import SimpleNamespace
from typing import Any, ClassVar

import diffusers
import torch
import transformers
from transformers.utils import is_protobuf_available, is_sentencepiece_available

from sklearn_difffeat.backbones._diffusion import DiffusionBackbone
from sklearn_difffeat.backbones._info import BackboneInfo
from sklearn_difffeat.backbones._surroundings import while_reading
from sklearn_difffeat.checkpoints._loading import naming_damage, without_progress_bars
from sklearn_difffeat.checkpoints._parts import read_part
from sklearn_difffeat.checkpoints._source import Source, check_complete
from sklearn_difffeat.checkpoints._weights import find_weights

# As model_index.json states what a pipeline was saved without.
NONE = None, None
TEXT_PARTS = {"processor"} | {
    part + number
    for part in ("tokenizer", "text_encoder")
    for number in ("", "_2", "_3")
}


class _TextProcessor:
    """What a processor of pictures, films and texts does with texts."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def apply_chat_template(self, messages: Any, **options: Any) -> list[Any]:
        return [self.tokenizer.apply_chat_template(messages, **options)]

    def __call__(self, text: list[str], **options: Any) -> Any:
        return self.tokenizer(text, **options)


def _check_sentencepiece(source: Source, folder: str) -> None:
    """Name the packages that are missing, which transformers does not do."""
    files = [f"{folder}/{name}" for name in ("spiece.model", "tokenizer.model")]
    if source.find(f"{folder}/tokenizer.json") or not any(map(source.find, files)):
        return
    if not (is_sentencepiece_available() and is_protobuf_available()):
        raise ImportError(
            f"backbone={source.name!r} has a {folder}/ of SentencePiece, which needs "
            "two more packages: pip install sentencepiece protobuf."
        )


def _load_text_part(
    source: Source, name: str, kind: Any, device: str, dtype: torch.dtype
) -> Any:
    read_part(source, name)
    place = {"subfolder": name, "local_files_only": True}
    if name.startswith(("tokenizer", "processor")):
        _check_sentencepiece(source, name)
        tokenizer = kind.from_pretrained(
            source.snapshot, trust_remote_code=False, **place
        )
        return _TextProcessor(tokenizer) if name == "processor" else tokenizer
    with without_progress_bars():
        model, loading = kind.from_pretrained(
            source.snapshot,
            dtype=dtype,
            variant=find_weights(source, f"{name}/").variant,
            output_loading_info=True,
            **place,
        )
    check_complete(source, {*loading["missing_keys"], *loading["mismatched_keys"]})
    return model.eval().requires_grad_(False).to(device)


class PromptedBackbone(DiffusionBackbone):
    """A text-conditioned model; its text encoders run once per prompt.

    Attributes
    ----------
    pipelines : tuple of str
        The pipelines of diffusers whose models the family is; one of them encodes.
    n_tokens : int
        Tokens of a picture in the pass that is running.
    """

    takes_prompt = True
    pipelines: ClassVar[tuple[str, ...]]
    source: Source
    conditions: dict[str, dict[str, torch.Tensor]]
    n_tokens: int

    @classmethod
    @abstractmethod
    def embed(cls, pipeline: Any, prompt: str) -> dict[str, torch.Tensor]:
        """Encode a prompt, as a batch of one, with the family's own pipeline."""

    @classmethod
    def describe(cls, source: Source) -> BackboneInfo:
        cls._index(source)
        return super().describe(source)

    @classmethod
    def load(
        cls, source: Source, device: str, dtype: torch.dtype, prompt: str = ""
    ) -> PromptedBackbone:
        # The text encoders come first, and are released before the model needs the
        # memory.
        condition = cls.encode_prompt(source, prompt, device, dtype)
        backbone = super().load(source, device, dtype)
        assert isinstance(backbone, PromptedBackbone)
        backbone.source = source
        backbone.conditions = {prompt: condition}
        return backbone

    @classmethod
    def _index(cls, source: Source) -> dict[str, Any]:
        index = read_part(source, "")
        if index.get("_class_name") not in cls.pipelines:
            raise ValueError(
                f"backbone={source.name!r} is a {index.get('_class_name')!r}, whose "
                f"model needs more than a picture and a prompt; use one of "
                f"{list(cls.pipelines)}."
            )
        return index

    @classmethod
    @torch.no_grad()
    def encode_prompt(
        cls, source: Source, prompt: str, device: str, dtype: torch.dtype
    ) -> dict[str, torch.Tensor]:
        """Load a pipeline's tokenizers and text encoders alone, and encode a prompt."""
        index, config = cls._index(source), read_part(source, cls.folder)
        kind = getattr(diffusers, index["_class_name"])
        parts: dict[str, Any] = {}
        for name, parameter in inspect.signature(kind).parameters.items():
            _, class_name = index.get(name, NONE) if name in TEXT_PARTS else NONE
            if class_name is not None:
                # Processors of pictures and texts take torchvision, their tokenizers
                # do not.
                is_processor = class_name.endswith("Processor")
                part_name = "AutoTokenizer" if is_processor else class_name
                part_class = getattr(transformers, part_name)
                parts[name] = _load_text_part(source, name, part_class, device, dtype)
            elif parameter.default is parameter.empty:
                parts[name] = None
            elif name == "requires_safety_checker":
                parts[name] = False
        pipeline = kind(**parts)
        # Where it lacks an encoder, SD3's asks the model how wide the zeros should be.
        pipeline.transformer = SimpleNamespace(config=SimpleNamespace(**config))
        return cls.embed(pipeline, prompt)

    def take_prompt(self, source: Source, prompt: str) -> None:
        # The files may have changed since the model was read.
        self.source = source
        if prompt not in self.conditions:
            with while_reading(), naming_damage(source):
                self.conditions[prompt] = self.encode_prompt(
                    source, prompt, str(self.device), self.dtype
                )

    def activation_bytes(self, size: int) -> int:
        words = (c["encoder_hidden_states"].shape[1] for c in self.conditions.values())
        side = size // self.info.input_step * self.info.tokens_per_step
        n_tokens = side**2 + max(words)
        return max(self._block_bytes(n_tokens), self.codec.activation_bytes(size))

    def run(self, inputs: torch.Tensor, timestep: int, prompt: str = "") -> Any:
        self.take_prompt(self.source, prompt)
        n_rows, _, height, width = inputs.shape
        step = self.info.input_step // self.codec.factor
        # For the hooks of this call only: passes hold the backbone's lock.
        n_steps = (height // step) * (width // step)
        self.n_tokens = n_steps * self.info.tokens_per_step**2
        condition = {
            name: value.expand(n_rows, *value.shape[1:])
            for name, value in self.conditions[prompt].items()
        }
        steps = torch.full((n_rows,), timestep, device=inputs.device)
        return self.call(inputs.to(self.dtype), steps, condition)


def without_padding(embeds: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Drop the tokens that a mask hides: they have no effect, but they take time."""
    real = mask[0].bool()
    real[0] = True
    return embeds[:, real]
