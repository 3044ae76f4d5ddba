"""A frozen classifier's feature map as the latent of a diffusion Transformer.

Such a pair is a representation autoencoder (arXiv 2510.11690) without its decoder. The
encoder here is EfficientNet-Lite (Tan and Le, arXiv 1905.11946, without squeezing and
with ReLU6), its batch norms folded into the convolutions before them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import EncoderOutput
from torch import nn
from torch.nn import functional

# Lite0's stages: blocks, kernel, stride, expansion, channels.
LITE0 = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip
IMAGENET_MEAN, IMAGENET_STD = 0.498, 0.502


class Convolution(nn.Conv2d):
    """A convolution with TensorFlow's padding: at stride 2, more at the far side."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride > 1:
            height, width = (
                max(0, kernel - ((side - 1) % stride + 1)) for side in x.shape[-2:]
            )
            top, left = height // 2, width // 2
            x = functional.pad(x, (left, width - left, top, height - top))
        return super().forward(x)


class InvertedBottleneck(nn.Sequential):
    """Widen, filter each channel, narrow; added to the input where shapes agree."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int
    ) -> None:
        width = inputs * expansion
        widen = (
            [Convolution(inputs, width, 1), nn.ReLU6(inplace=True)]
            if expansion > 1
            else []
        )
        filters = Convolution(width, width, kernel, stride, groups=width)
        super().__init__(
            *widen, filters, nn.ReLU6(inplace=True), Convolution(width, outputs, 1)
        )
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = super().forward(x)
        return found + x if self.adds else found


class EfficientNetLiteEncoder(ModelMixin, ConfigMixin):
    """Pixels to latents, the maps of some stages, and from these to features.

    Parameters
    ----------
    stages : sequence of (int, int, int, int, int)
        Blocks, kernel, stride, expansion and channels of each stage.
    stem_channels : int
        Of the first convolution, of stride 2.
    earlier : sequence of int
        The stages, counted from 0, whose maps join the last one's, brought to its size
        by their maxima.
    latent_channels : int
        Those of the last stage and of the earlier ones, in this order.
    feature_channels : int
        Those of the head, a convolution of 1 x 1 over the last stage, which the
        classifier pools, and twice those of the earlier stages, in this order: the
        second time with the opposite sign, so that a maximum over the tokens also gives
        their lowest values.
    block_out_channels : sequence of int
        Channels at each resolution, from the finest on: its length gives the factor.
    scaling_factor : float
        1: latents are scaled by channel, with the buffers.

    Attributes
    ----------
    latents_mean, latents_std : Tensor of shape (latent_channels, 1, 1)
        Of the latents before they are scaled, over what was trained on.

    Raises
    ------
    ValueError
        When the channels do not add up.
    """

    @register_to_config
    def __init__(
        self,
        stages: Sequence[Sequence[int]] = LITE0,
        stem_channels: int = 32,
        earlier: Sequence[int] = (),
        latent_channels: int = 320,
        feature_channels: int = 1280,
        block_out_channels: Sequence[int] = (32, 16, 24, 40, 112, 320),
        scaling_factor: float = 1.0,
    ) -> None:
        super().__init__()
        layers = [Convolution(3, stem_channels, 3, 2), nn.ReLU6(inplace=True)]
        width = stem_channels
        self.ends: dict[int, int] = {}
        for stage, (n_blocks, kernel, stride, expansion, channels) in enumerate(stages):
            for block in range(n_blocks):
                step = stride if block == 0 else 1
                layers.append(
                    InvertedBottleneck(width, channels, kernel, step, expansion)
                )
                width = channels
            self.ends[len(layers) - 1] = stage
        joined = sum(stages[stage][-1] for stage in earlier)
        if latent_channels != width + joined:
            raise ValueError(
                f"latent_channels={latent_channels}, but the stages kept have "
                f"{width + joined} channels."
            )
        head_channels = feature_channels - 2 * joined
        self.encoder = nn.Sequential(*layers)
        self.head = nn.Sequential(
            Convolution(width, head_channels, 1), nn.ReLU6(inplace=True)
        )
        self.register_buffer("latents_mean", torch.zeros(latent_channels, 1, 1))
        self.register_buffer("latents_std", torch.ones(latent_channels, 1, 1))

    def encode(self, pixels: torch.Tensor) -> EncoderOutput:
        """Map pixels in [-1, 1] to latents, (n, latent_channels, side, side)."""
        x = (pixels / 2 + 0.5 - IMAGENET_MEAN) / IMAGENET_STD
        maps: dict[int, torch.Tensor] = {}
        for number, layer in enumerate(self.encoder):
            x = layer(x)
            if self.ends.get(number) in self.config.earlier:
                maps[self.ends[number]] = x
        kept = [
            functional.adaptive_max_pool2d(maps[stage], x.shape[-2:])
            for stage in self.config.earlier
        ]
        found = torch.cat([x, *kept], dim=1)
        return EncoderOutput(latent=(found - self.latents_mean) / self.latents_std)

    def features(self, latents: torch.Tensor) -> torch.Tensor:
        """Map latents to the head's and the stages' map, (n, feature_channels, ...)."""
        maps = latents * self.latents_std + self.latents_mean
        last = self.config.stages[-1][-1]
        kept = maps[:, last:]
        return torch.cat([self.head(maps[:, :last]), kept, -kept], dim=1)
