"""What every model family offers to extraction."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from sklearn_difffeat.backbones._info import BackboneInfo
from sklearn_difffeat.backbones._noise import gaussian_noise, hide_tokens
from sklearn_difffeat.backbones._pooling import pool_image_tokens, pool_text_tokens

if TYPE_CHECKING:
    from sklearn_difffeat.checkpoints._source import Source


@dataclass
class Tokens:
    """A batch of tokenized texts: ids, attention mask and which tokens to pool.

    Attributes
    ----------
    ids, attention : torch.Tensor
        Integer tensors of shape (n, length).
    real : torch.Tensor
        Boolean (n, length); False at padding and special tokens.
    truncated : list of int
        Positions in the batch of the texts that were cut.
    keys : ndarray of shape (n, 2), uint64, or None
        The numbers from which each text's mask is drawn; they depend only on the text.
        ``tokenize`` need not set them, but without them nothing can be masked.
    """

    ids: torch.Tensor
    attention: torch.Tensor
    real: torch.Tensor
    truncated: list[int] = field(default_factory=list)
    keys: np.ndarray | None = None

    def __getitem__(self, rows: slice | np.ndarray) -> Tokens:
        """Return some rows, without the record of which texts were cut."""
        keys = None if self.keys is None else self.keys[rows]
        return Tokens(self.ids[rows], self.attention[rows], self.real[rows], keys=keys)

    def by_length(self) -> list[tuple[torch.Tensor, Tokens]]:
        """Group texts by length: the rows of each group, and its unpadded tokens."""
        lengths = self.attention.sum(dim=1).cpu()
        parts = []
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero().flatten()
            part = self[rows.numpy()]
            ids, attention, real = (
                one[:, :length] for one in (part.ids, part.attention, part.real)
            )
            parts.append((rows, Tokens(ids, attention, real, keys=part.keys)))
        return parts


class Backbone(ABC):
    """A loaded model: its blocks as modules, and one way to run it.

    A pass makes inputs ``clean``, brings them to a timestep (``noised``), calls ``run``
    and has ``pool`` reduce what it finds in the stages' outputs. A family of pictures
    derives from :class:`ImageBackbone`, one of texts from :class:`TextBackbone`.

    Attributes
    ----------
    info : BackboneInfo
    stages : sequence of torch.nn.Module
        ``stages[k]`` is the module whose output is block k; 0 embeds the tokens.
    lock : threading.RLock
        Held during a pass, because hooks on a shared model see the calls of all
        threads.
    takes_prompt : bool
        Whether ``load`` and ``run`` take a text that the model is conditioned on.
    has_encoder : bool
        Whether clean inputs come from an encoder, so that keeping them saves work.
    """

    takes_prompt: ClassVar[bool] = False
    has_encoder: bool = False

    def __init__(self, info: BackboneInfo, stages: Sequence[torch.nn.Module]) -> None:
        self.info = info
        self.stages = tuple(stages)
        self.lock = threading.RLock()

    @property
    def locks(self) -> list[Any]:
        """Every lock of the model; free when no thread is using it."""
        return [self.lock]

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.stages[-1].parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' floating type."""
        return next(self.stages[-1].parameters()).dtype

    @classmethod
    @abstractmethod
    def describe(cls, source: Source) -> BackboneInfo:
        """Read the configuration; load no weights.

        Raises
        ------
        ValueError
            When the configuration lacks something, or does not fit the family.
        """

    @classmethod
    @abstractmethod
    def load(cls, source: Source, device: str, dtype: torch.dtype) -> Backbone:
        """Load the weights, in ``.eval()`` mode and without gradients.

        Raises
        ------
        ValueError
            When weights are missing or do not fit the configuration.
        """

    def take_prompt(self, source: Source, prompt: str) -> None:
        """Prepare for passes with a prompt; its encoders are read from ``source``.

        A model without texts has nothing to do.
        """
        return

    @abstractmethod
    def activation_bytes(self, size: int) -> int:
        """Estimate the memory, in bytes, that a row takes where the model is widest.

        ``size`` is the side of a picture in pixels, or the length of a text in tokens.
        """

    def _block_bytes(self, n_tokens: int) -> int:
        # Of a Transformer's block: states, queries, keys, values, and the hidden
        # layer, which is four times as wide, before and after its nonlinearity.
        return 16 * n_tokens * self.info.width * self.dtype.itemsize

    @abstractmethod
    def clean(self, inputs: Any) -> Any:
        """Turn n rows that a reader prepared into clean inputs, before noise."""

    def latents_of(self, flat: np.ndarray) -> torch.Tensor:
        """Return clean inputs from their stored form, (n, values of a row), float32."""
        raise TypeError("Only models with an encoder have latents to keep.")

    def parts(self, inputs: Any) -> list[tuple[torch.Tensor, Any]]:
        """Split clean inputs into parts that may run together.

        Returns
        -------
        list of (rows, inputs)
            ``rows`` are positions in the batch, an integer tensor; every row is in one
            part.
        """
        return [(torch.arange(0), inputs)]

    @abstractmethod
    def noised(self, inputs: Any, timestep: int, seed: int, draw: int) -> Any:
        """Add the noise of a timestep to clean inputs; timestep 0 adds none.

        The noise depends on the seed, the draw and a row's own content or shape, never
        on the batch.
        """

    @abstractmethod
    def run(self, inputs: Any, timestep: int, prompt: str = "") -> Any:
        """Run the model on inputs at a timestep, and give it that timestep.

        A model without texts ignores the prompt.
        """

    def hidden_states(self, output: Any) -> torch.Tensor:
        """Return the (n, tokens, width) hidden states in a stage's output."""
        return output[0] if isinstance(output, tuple) else output

    @abstractmethod
    def pool(
        self, hidden: torch.Tensor, inputs: Any, pooling: str | tuple[str, int]
    ) -> torch.Tensor:
        """Pool (n, tokens, width) hidden states of inputs to float32 (n, n_pooled)."""


class ImageBackbone(Backbone):
    """A model of pictures: pixels to latents, latents to hidden states.

    Attributes
    ----------
    latent_channels : int
    """

    latent_channels: int

    @abstractmethod
    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map pixels (n, 3, size, size) in [-1, 1] to clean float32 latents.

        Latents have shape (n, latent_channels, side, side), on the model's device.
        """

    @abstractmethod
    def add_noise(
        self, latents: torch.Tensor, noise: torch.Tensor, timestep: int
    ) -> torch.Tensor:
        """Return the latents at ``timestep`` >= 1 of the training schedule."""

    def clean(self, inputs: np.ndarray) -> torch.Tensor:
        """Turn pixels (n, size, size, 3), uint8, into clean float32 latents."""
        pixels = torch.from_numpy(inputs).permute(0, 3, 1, 2).float() / 127.5 - 1
        return self.encode(pixels)

    def latents_of(self, flat: np.ndarray) -> torch.Tensor:
        side = math.isqrt(flat.shape[1] // self.latent_channels)
        latents = torch.from_numpy(flat).view(-1, self.latent_channels, side, side)
        return latents.to(self.device)

    def noised(
        self, inputs: torch.Tensor, timestep: int, seed: int, draw: int
    ) -> torch.Tensor:
        """Add the one Gaussian noise of a seed and draw, which all rows share."""
        if not timestep:
            return inputs
        noise = gaussian_noise(seed, draw, tuple(inputs.shape[1:]))
        return self.add_noise(inputs, noise.to(inputs).expand_as(inputs), timestep)

    def pool(
        self, hidden: torch.Tensor, inputs: Any, pooling: str | tuple[str, int]
    ) -> torch.Tensor:
        return pool_image_tokens(hidden, pooling)


class TextBackbone(Backbone):
    """A model of texts: texts to tokens, tokens to hidden states.

    Attributes
    ----------
    mask_token_id : int
    hides_padding : bool
        Whether an attention mask can hide the padding; if not, texts of one length run
        together.
    """

    mask_token_id: int
    hides_padding: bool = True

    @abstractmethod
    def tokenize(self, texts: Sequence[str], max_length: int) -> Tokens:
        """Cut texts into at most ``max_length`` tokens, special ones included.

        Padding comes last, and every text has a token to attend to.
        """

    def clean(self, inputs: Tokens) -> Tokens:
        return inputs

    def parts(self, inputs: Tokens) -> list[tuple[torch.Tensor, Tokens]]:
        return super().parts(inputs) if self.hides_padding else inputs.by_length()

    def noised(self, inputs: Tokens, timestep: int, seed: int, draw: int) -> Tokens:
        """Mask ``timestep / n_timesteps`` of the real tokens, by each text's key."""
        rate = timestep / self.info.n_timesteps
        masked = hide_tokens(inputs.real, inputs.keys, rate, seed, draw)
        ids = inputs.ids.masked_fill(masked.to(self.device), self.mask_token_id)
        return replace(inputs, ids=ids)

    def pool(
        self, hidden: torch.Tensor, inputs: Tokens, pooling: str | tuple[str, int]
    ) -> torch.Tensor:
        real = inputs.real.to(self.device)
        return pool_text_tokens(hidden, real, inputs.attention, str(pooling))
