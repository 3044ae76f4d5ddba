"""What diffusion models of pictures have in common; a family adds what differs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from sklearn_difffeat.backbones._base import ImageBackbone
from sklearn_difffeat.backbones._info import BackboneInfo
from sklearn_difffeat.backbones._latents import LatentCodec
from sklearn_difffeat.backbones._noising import Noising
from sklearn_difffeat.checkpoints._parts import defaults_of, load_part, read_part
from sklearn_difffeat.checkpoints._source import Source
from sklearn_difffeat.checkpoints._weights import size_in_mb


@dataclass(frozen=True)
class Shape:
    """What a family reads from its model's configuration.

    Attributes
    ----------
    widths : tuple of int
        Channels of every block, from 0, the token embeddings, on.
    channels : int
        Of the latents that the model takes.
    sample_size : int
        Side in latents of the pictures that the model was trained on.
    step : int
        Sides have to be a multiple of this number of latents: the side of a token, or
        of ``tokens_per_step`` tokens.
    largest : int or None
        The largest side in latents that the model has positions for.
    tokens_per_step : int
        Tokens to the side of a step.
    """

    widths: tuple[int, ...]
    channels: int
    sample_size: int
    step: int
    largest: int | None = None
    tokens_per_step: int = 1


class DiffusionBackbone(ImageBackbone):
    """A diffusion model in the layout of diffusers, with its VAE and noise schedule.

    A family names its model's class and folder and the kind of its noise, reads a
    :class:`Shape`, lists the blocks, and says how the model is called.

    Attributes
    ----------
    model_class : type
    folder : str
        Where the model's weights lie.
    flow : bool
        Whether it was trained by flow matching; DDPM's noise otherwise.
    reads_encoder : bool
        Whether block 0 is the encoder's own map, if the encoder has one.
    """

    model_class: ClassVar[Any]
    folder: ClassVar[str] = "transformer"
    flow: ClassVar[bool] = False
    reads_encoder: ClassVar[bool] = False

    def __init__(
        self, info: BackboneInfo, model: Any, codec: LatentCodec, noising: Noising
    ) -> None:
        super().__init__(info, self.blocks_of(model))
        self.model = model
        self.codec = codec
        self.noising = noising
        self.has_encoder = codec.model is not None
        self.latent_channels = codec.channels

    @classmethod
    def shape(cls, config: dict[str, Any]) -> Shape:
        """Read sizes from the model's configuration; by default as DiT names them."""
        width = config["num_attention_heads"] * config["attention_head_dim"]
        return Shape(
            widths=(width,) * (config["num_layers"] + 1),
            channels=config["in_channels"],
            sample_size=config["sample_size"],
            step=config["patch_size"],
        )

    @classmethod
    def blocks_of(cls, model: Any) -> Sequence[torch.nn.Module]:
        """List the module that embeds the tokens, and the blocks in their order."""
        return [model.pos_embed, *model.transformer_blocks]

    @abstractmethod
    def call(
        self, latents: torch.Tensor, steps: torch.Tensor, condition: dict[str, Any]
    ) -> Any:
        """Call the model on noisy latents of its own precision.

        ``steps`` is the timestep, once for each row; ``condition`` what a prompt was
        encoded to, one row for each picture.
        """

    @classmethod
    def describe(cls, source: Source) -> BackboneInfo:
        shape = cls.shape(defaults_of(cls.model_class) | read_part(source, cls.folder))
        noising = Noising.describe(source, flow=cls.flow)
        codec = LatentCodec.describe(source)
        if shape.channels != codec.channels:
            has_vae = codec.factor > 1
            made = f"its vae/ makes {codec.channels}" if has_vae else "has no vae/"
            raise ValueError(
                f"backbone={source.name!r} takes {shape.channels} latent channels but "
                f"{made}; use a text-to-image or class-conditional model with its own "
                "vae/."
            )
        sides = [codec.largest, shape.largest and shape.largest * codec.factor]
        largest = min((side for side in sides if side is not None), default=None)
        size = shape.sample_size * codec.factor
        widths = shape.widths
        if cls.reads_encoder and codec.own_width is not None:
            widths = (codec.own_width, *widths[1:])
        return BackboneInfo(
            name=source.name,
            family=cls.model_class.__name__,
            modality="image",
            n_blocks=len(widths) - 1,
            width=max(widths),
            n_timesteps=noising.n_timesteps,
            input_size=size if codec.largest is None else min(size, codec.largest),
            input_step=shape.step * codec.factor,
            license=source.license,
            size_mb=size_in_mb(source),
            fingerprint=source.fingerprint,
            widths=None if len(set(widths)) == 1 else widths,
            max_input_size=largest,
            takes_prompt=cls.takes_prompt,
            tokens_per_step=shape.tokens_per_step,
        )

    @classmethod
    def load(cls, source: Source, device: str, dtype: torch.dtype) -> DiffusionBackbone:
        info = cls.describe(source)
        noising = Noising.describe(source, flow=cls.flow)
        codec = LatentCodec.load(source, device, dtype)
        model = load_part(source, cls.model_class, cls.folder, device, dtype)
        return cls(info, model, codec, noising)

    def activation_bytes(self, size: int) -> int:
        blocks = self._block_bytes((size // self.info.input_step) ** 2)
        return max(blocks, self.codec.activation_bytes(size))

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.codec.encode(pixels.to(self.device))

    def add_noise(
        self, latents: torch.Tensor, noise: torch.Tensor, timestep: int
    ) -> torch.Tensor:
        return self.noising.add(latents, noise, timestep)

    def run(self, inputs: torch.Tensor, timestep: int, prompt: str = "") -> Any:
        steps = torch.full((len(inputs),), timestep, device=inputs.device)
        return self.call(inputs.to(self.dtype), steps, {})
