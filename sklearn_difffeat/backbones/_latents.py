"""Pictures to latents: VAEs, deep-compression and representation autoencoders, none."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, ClassVar

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLHunyuanImage,
    AutoencoderKLQwenImage,
    AutoencoderKLQwenImage21,
    AutoencoderRAE,
)
from torch import nn
from torch.nn import functional

from sklearn_difffeat.backbones.feature_encoder import EfficientNetLiteEncoder
from sklearn_difffeat.checkpoints._parts import defaults_of, load_part
from sklearn_difffeat.checkpoints._source import Source


class LatentCodec:
    """An autoencoder's configuration, and its encoder once loaded.

    This class is for those that compress pictures, and for models of pixels.

    Parameters
    ----------
    config : dict
        The autoencoder's configuration; empty for a model of pixels.
    model : ModelMixin, optional
        None while only sizes are needed.

    Attributes
    ----------
    channels : int
    factor : int
        Side of a latent in pixels.
    own_width : int or None
        Channels of an encoder's own map, if that map is useful as block 0.
    largest : int or None
        The largest side in pixels; larger pictures are resized to it.
    flat : bool
        Whether it takes pictures; otherwise it takes videos.
    by_channel : bool
        Whether most of its convolutions filter each channel by itself.
    """

    own_width: int | None = None
    largest: int | None = None
    flat: ClassVar[bool] = True
    by_channel: ClassVar[bool] = False

    def __init__(self, config: dict[str, Any], model: Any = None) -> None:
        self.model = model
        self.channels = int(config.get("latent_channels", 3))
        names = "encoder_block_out_channels", "block_out_channels"
        # Channels of each resolution; each is half as fine as the last.
        levels = next((config[name] for name in names if name in config), [3])
        self.factor = 2 ** (len(levels) - 1)
        self._finest = levels[0]
        # A copy in float32, once a picture has exceeded the range of float16.
        self._precise: Any = None

    @classmethod
    def describe(cls, source: Source) -> LatentCodec:
        """Read the configuration only.

        Raises
        ------
        ValueError
            When the autoencoder is of an unknown class.
        """
        codec, config = _read(source)
        return codec(config)

    @classmethod
    def load(cls, source: Source, device: str, dtype: torch.dtype) -> LatentCodec:
        """Load the encoder's weights."""
        codec, config = _read(source)
        if not config:
            return codec(config)
        if dtype == torch.float16 and config.get("force_upcast"):
            # SDXL's activations exceed the range of float16.
            dtype = torch.float32
        kind = CLASSES[config["_class_name"]][0]
        model = load_part(source, kind, "vae", device, dtype)
        # Features need no decoder: half of the memory.
        model.decoder = nn.Identity()
        if codec.flat and (dtype != torch.float32 or codec.by_channel):
            # In this layout convolutions are faster in half precision, and in float32
            # if each channel is filtered by itself; others are not.
            model = model.to(memory_format=torch.channels_last)
        return codec(config, model)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map pixels in [-1, 1] to float32 latents.

        Where float16 cannot hold a picture, an encoder in float32 maps it.
        """
        if self.model is None:
            return pixels
        dtype = self._weight.dtype
        latents = self.latents_by(self.model, pixels.to(dtype))
        if dtype != torch.float16:
            return latents
        lost = ~latents.isfinite().flatten(1).all(dim=1)
        if lost.any():
            if self._precise is None:
                self._precise = deepcopy(self.model).float()
            latents[lost] = self.latents_by(self._precise, pixels[lost].float())
        return latents

    def latents_by(self, model: Any, pixels: torch.Tensor) -> torch.Tensor:
        """Map pixels of a model's precision to float32 latents, the posterior's mode.

        Latents stay float32: in half precision the noise of low timesteps vanishes.
        """
        config = model.config
        encoded = model.encode(pixels)
        kept = hasattr(encoded, "latent_dist")
        latents = (encoded.latent_dist.mode() if kept else encoded.latent).float()
        mean, std = (
            latents.new_tensor(config.get(name) or [empty])
            for name, empty in (("latents_mean", 0.0), ("latents_std", 1.0))
        )
        shift = config.get("shift_factor") or 0.0
        latents = (latents - shift - mean.view(-1, 1, 1)) * config.scaling_factor
        return latents / std.view(-1, 1, 1)

    def activation_bytes(self, size: int) -> int:
        """Estimate the memory of a picture's encoding, at its finest level."""
        if self.model is None:
            return 0
        return 4 * size**2 * self._finest * self._weight.dtype.itemsize

    def own_map(self) -> nn.Module | None:
        """Return what maps latents to the encoder's own map, where it has one."""
        return None

    @property
    def _weight(self) -> torch.Tensor:
        return next(self.model.encoder.parameters())


class PatchedCodec(LatentCodec):
    """The VAE of Flux.2, whose latents are packed 2 x 2, then normalised."""

    def __init__(self, config: dict[str, Any], model: Any = None) -> None:
        super().__init__(config, model)
        self._packed = config["patch_size"][0]
        self.channels *= self._packed**2
        self.factor *= self._packed

    def latents_by(self, model: Any, pixels: torch.Tensor) -> torch.Tensor:
        latents = model.encode(pixels).latent_dist.mode().float()
        # Its buffers alone are used, as diffusers' Flux2Pipeline does.
        norm = model.bn
        mean, variance = norm.running_mean.float(), norm.running_var.float()
        return functional.batch_norm(
            functional.pixel_unshuffle(latents, self._packed),
            mean, variance, eps=norm.eps,
        )  # fmt: skip


class FilmCodec(LatentCodec):
    """The VAEs of Qwen-Image, for which a picture is a video of one frame.

    That of 2.1 also has a channel of opacity, which is 1 all over.
    """

    flat = False

    def __init__(self, config: dict[str, Any], model: Any = None) -> None:
        super().__init__(config, model)
        self.channels = config["z_dim"]
        self.factor = 2 ** len(config["temperal_downsample"])
        self._finest = config["base_dim"]

    def latents_by(self, model: Any, pixels: torch.Tensor) -> torch.Tensor:
        opacity = model.config.get("in_channels", 3) - pixels.shape[1]
        seen = functional.pad(pixels, (0, 0, 0, 0, 0, opacity), value=1.0)
        encoded = model.encode(seen.unsqueeze(2))
        latents = encoded.latent_dist.mode().float().squeeze(2)
        mean, std = (
            latents.new_tensor(model.config[name]).view(-1, 1, 1)
            for name in ("latents_mean", "latents_std")
        )
        return (latents - mean) / std


class FeatureCodec(LatentCodec):
    """A frozen classifier, whose last stage is the latent."""

    by_channel = True

    def __init__(self, config: dict[str, Any], model: Any = None) -> None:
        super().__init__(config, model)
        self.own_width = config["feature_channels"]

    def latents_by(self, model: Any, pixels: torch.Tensor) -> torch.Tensor:
        # The encoder normalises them.
        return model.encode(pixels).latent.float()

    def own_map(self) -> nn.Module:
        """Return the classifier's head, without its pooling."""
        return _OwnMap(self.model)


class RepresentationCodec(LatentCodec):
    """A representation autoencoder: a frozen ViT (RAE, arXiv 2510.11690)."""

    def __init__(self, config: dict[str, Any], model: Any = None) -> None:
        super().__init__(config, model)
        self.channels = self.own_width = config["encoder_hidden_size"]
        self.factor = config["encoder_patch_size"]
        # Every picture is resized to this, so a larger one adds nothing.
        self.largest = config["encoder_input_size"]
        self._n_tokens = (self.largest // self.factor) ** 2

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return super().encode(pixels / 2 + 0.5)

    def latents_by(self, model: Any, pixels: torch.Tensor) -> torch.Tensor:
        latents = model.encode(pixels).latent.float()
        if latents.ndim == 3:
            side = int(latents.shape[1] ** 0.5)
            latents = latents.mT.unflatten(2, (side, side))
        return latents

    def activation_bytes(self, size: int) -> int:
        if self.model is None:
            return 0
        # As of any Transformer: states, queries, keys, values and the hidden layer.
        return 16 * self._n_tokens * self.channels * self._weight.dtype.itemsize

    def own_map(self) -> nn.Module:
        """Return the identity: the latents are the encoder's map."""
        return nn.Identity()


class _OwnMap(nn.Module):
    def __init__(self, encoder: EfficientNetLiteEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.encoder.features(latents)


# By the name in vae/config.json.
CLASSES: dict[str, tuple[Any, type[LatentCodec]]] = {
    "AutoencoderKL": (AutoencoderKL, LatentCodec),
    "AutoencoderDC": (AutoencoderDC, LatentCodec),
    "AutoencoderKLFlux2": (AutoencoderKLFlux2, PatchedCodec),
    "AutoencoderKLHunyuanImage": (AutoencoderKLHunyuanImage, LatentCodec),
    "AutoencoderKLQwenImage": (AutoencoderKLQwenImage, FilmCodec),
    "AutoencoderKLQwenImage21": (AutoencoderKLQwenImage21, FilmCodec),
    "AutoencoderRAE": (AutoencoderRAE, RepresentationCodec),
    "EfficientNetLiteEncoder": (EfficientNetLiteEncoder, FeatureCodec),
}


def _read(source: Source) -> tuple[type[LatentCodec], dict[str, Any]]:
    config = source.read_json("vae/config.json") or {}
    if not config:
        return LatentCodec, config
    name = config.get("_class_name")
    if name not in CLASSES:
        raise ValueError(
            f"backbone={source.name!r} has a VAE of class {name!r}; those known are "
            f"{sorted(CLASSES)}."
        )
    kind, codec = CLASSES[name]
    return codec, defaults_of(kind) | config
