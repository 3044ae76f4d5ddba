"""Pictures to latents: VAEs, deep-compression autoencoders, or none."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderDC, AutoencoderKL

from sklearn_difffeat.checkpoints._parts import load_part
from sklearn_difffeat.checkpoints._source import Source

AUTOENCODERS = {"AutoencoderKL": AutoencoderKL, "AutoencoderDC": AutoencoderDC}


def _level_channels(config: dict[str, Any]) -> list[int]:
    """Return the channels of each resolution; each is half as fine as the last."""
    names = "encoder_block_out_channels", "block_out_channels"
    return next(list(config[name]) for name in names if name in config)


class LatentCodec:
    """What an autoencoder's configuration tells, and its encoder once loaded.

    Parameters
    ----------
    config : dict or None
        The autoencoder's configuration; None for a model of pixels.
    model : AutoencoderKL or AutoencoderDC, optional
        None while only sizes are asked for.

    Attributes
    ----------
    channels : int
    factor : int
        Side of a latent in pixels.
    """

    def __init__(self, config: dict[str, Any] | None, model: Any = None) -> None:
        self.model = model
        self.channels = 3 if config is None else config["latent_channels"]
        self._levels = [] if config is None else _level_channels(config)
        self.factor = 2 ** (len(self._levels) - 1) if self._levels else 1

    @classmethod
    def describe(cls, source: Source) -> LatentCodec:
        """Read the configuration only.

        Raises
        ------
        ValueError
            When the autoencoder is of an unknown class.
        """
        config = source.read_json("vae/config.json")
        if config is not None and config.get("_class_name") not in AUTOENCODERS:
            raise ValueError(
                f"backbone={source.name!r} has a VAE of class "
                f"{config.get('_class_name')!r}; those known are "
                f"{sorted(AUTOENCODERS)}."
            )
        return cls(config)

    @classmethod
    def load(cls, source: Source, device: str, dtype: torch.dtype) -> LatentCodec:
        """Load the encoder's weights."""
        config = source.read_json("vae/config.json")
        if config is None:
            return cls(None)
        if dtype == torch.float16 and config.get("force_upcast"):
            # SDXL's activations exceed the range of float16.
            dtype = torch.float32
        kind = AUTOENCODERS[config["_class_name"]]
        model = load_part(source, kind, "vae", device, dtype)
        # Features need no decoder: half of the memory.
        model.decoder = None
        if dtype != torch.float32:
            # Convolutions of half precision run faster so, those of float32 do not.
            model = model.to(memory_format=torch.channels_last)
        return cls(config, model)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map pixels in [-1, 1] to float32 latents, by the posterior's mode."""
        if self.model is None:
            return pixels
        config = self.model.config
        weight = next(self.model.encoder.parameters())
        encoded = self.model.encode(pixels.to(weight.dtype))
        kept = hasattr(encoded, "latent_dist")
        # Latents stay float32: in half precision the noise of low timesteps vanishes.
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
        width = self._levels[0]
        itemsize = next(self.model.encoder.parameters()).dtype.itemsize
        return 4 * size**2 * width * itemsize
