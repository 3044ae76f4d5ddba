"""What every model family offers to the extraction engine."""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    import torch

    from sklearn_difffeat.checkpoints._source import Source


# As in cc-by-nc-4.0, stabilityai-nc-research-community, flux-1-dev-non-commercial.
NON_COMMERCIAL = re.compile(r"(\b|_)(nc|non-?commercial|research(-only)?)(\b|_)", re.I)


@dataclass(frozen=True)
class BackboneInfo:
    """What is known of a backbone from its configuration, before any weight is read.

    Attributes
    ----------
    name : str
        The name, hub id or folder that was asked for.
    family : str
        The class of the model, ``"DiTTransformer2DModel"`` or ``"BertForMaskedLM"``.
    modality : {"image", "text"}
    n_blocks : int
        Blocks are numbered 0 (token embeddings) to ``n_blocks``.
    width : int
        Channels of a hidden state, of the widest where blocks differ.
    n_timesteps : int
        Timesteps run from 0 to ``n_timesteps - 1``.
    input_size : int
        Side of the square picture in pixels, or the longest text in tokens.
    input_step : int
        Other sizes have to be a multiple of this: the side of an image token.
    license : str or None
        As the model card states it; None where the card does not say.
    size_mb : float or None
        Size of the weight files that are loaded, in MB; None where neither this
        machine nor the hub can tell.
    fingerprint : str
        Changes when configuration or weights change: the commit for a hub id, a
        digest of the files' contents otherwise.
    revision : str or None
        The commit of a hub id.
    carries_code : bool
        Whether loading runs code that comes with the weights, which has to be allowed
        by ``trust_remote_code=True``.
    widths : tuple of int or None
        Channels of each block, 0 included; None where all have ``width``.
    max_input_size : int or None
        The largest side of a picture that the model can take; None for no bound.
    takes_prompt : bool
        Whether the model is conditioned on a text.
    time_embedding : {"original", "diffusers"} or None
        Of a DiT: how it is told the timestep. ``"original"`` is Meta's code, whose i-th
        of n frequencies is ``10000 ** (-i / n)``, for checkpoints that were converted
        from Meta's; ``"diffusers"`` has ``10000 ** (-i / (n - 1))``, for models that
        were trained with that library. None for families where both agree.

    Examples
    --------
    >>> from sklearn_difffeat import describe_backbone
    >>> info = describe_backbone("mdlm-tiny")
    >>> info.family, info.n_blocks, info.license
    ('BertForMaskedLM', 6, 'bsd-3-clause')
    """

    name: str
    family: str
    modality: str
    n_blocks: int
    width: int
    n_timesteps: int
    input_size: int
    input_step: int
    license: str | None
    size_mb: float | None
    fingerprint: str
    revision: str | None = None
    carries_code: bool = False
    widths: tuple[int, ...] | None = None
    max_input_size: int | None = None
    takes_prompt: bool = False
    time_embedding: str | None = None

    def width_of(self, block: int) -> int:
        """Return the channels of one block's hidden states."""
        return self.widths[block] if self.widths else self.width

    @property
    def non_commercial(self) -> bool:
        """Whether the licence, by its name, forbids commercial use."""
        return bool(NON_COMMERCIAL.search(self.license or ""))


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
        What each text's mask is drawn by, a function of the text alone. ``tokenize``
        need not set it; without it nothing can be masked.
    """

    ids: torch.Tensor
    attention: torch.Tensor
    real: torch.Tensor
    truncated: list[int] = field(default_factory=list)
    keys: np.ndarray | None = None

    def __getitem__(self, rows: slice | np.ndarray) -> Tokens:
        """Return some rows; which texts were cut is not kept."""
        keys = None if self.keys is None else self.keys[rows]
        return Tokens(self.ids[rows], self.attention[rows], self.real[rows], keys=keys)

    def by_length(self) -> list[tuple[torch.Tensor, Tokens]]:
        """Part texts by their length: the rows of each part, and it without padding."""
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

    Attributes
    ----------
    info : BackboneInfo
    stages : sequence of torch.nn.Module
        ``stages[k]`` is the module whose output is block k; 0 embeds the tokens.
    lock : threading.RLock
        Held during a pass: hooks on a shared model see every thread's calls.
    takes_prompt : bool
        Whether ``load`` and ``run`` take a text that the model is conditioned on.
    """

    takes_prompt: ClassVar[bool] = False

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
        return next(self.stages[0].parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' floating type."""
        return next(self.stages[0].parameters()).dtype

    @classmethod
    @abstractmethod
    def describe(cls, source: Source) -> BackboneInfo:
        """Read the configuration; load no weights."""

    @classmethod
    @abstractmethod
    def load(cls, source: Source, device: str, dtype: torch.dtype) -> Backbone:
        """Load the weights, in ``.eval()`` mode and without gradients."""

    def take_prompt(self, source: Source, prompt: str) -> None:
        """Make ready for passes with a prompt; its encoders are read from ``source``.

        A model without texts has nothing to do.
        """
        return

    @abstractmethod
    def activation_bytes(self, size: int) -> int:
        """Estimate the memory that a row takes where the model is widest.

        ``size`` is the side of a picture in pixels, or the length of a text in tokens.
        """

    def _block_bytes(self, n_tokens: int) -> int:
        # Of a Transformer's block: states, queries, keys, values, and the hidden
        # layer, which is four times as wide, before and after its nonlinearity.
        return 16 * n_tokens * self.info.width * self.dtype.itemsize

    def hidden_states(self, output: Any) -> torch.Tensor:
        """Return the (n, tokens, width) hidden states in a stage's output."""
        return output[0] if isinstance(output, tuple) else output


class ImageBackbone(Backbone):
    """A model of pictures: pixels to latents, latents to hidden states.

    Attributes
    ----------
    latent_channels : int
    has_encoder : bool
        Whether latents come from an encoder, so that keeping them saves work.
    """

    latent_channels: int
    has_encoder: bool

    @abstractmethod
    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map pixels (n, 3, size, size) in [-1, 1] to clean float32 latents."""

    @abstractmethod
    def add_noise(
        self, latents: torch.Tensor, noise: torch.Tensor, timestep: int
    ) -> torch.Tensor:
        """Return the latents at ``timestep`` >= 1 of the training schedule."""

    @abstractmethod
    def run(self, latents: torch.Tensor, timestep: int, prompt: str = "") -> Any:
        """Run the model, told that it stands at ``timestep``.

        A model without texts is run unconditionally, whatever the prompt.
        """


class TextBackbone(Backbone):
    """A model of texts: texts to tokens, tokens to hidden states.

    Attributes
    ----------
    mask_token_id : int
    hides_padding : bool
        Whether attention can be kept from padding; where it cannot, texts of one
        length run together.
    """

    mask_token_id: int
    hides_padding: ClassVar[bool] = True

    @abstractmethod
    def tokenize(self, texts: Sequence[str], max_length: int) -> Tokens:
        """Cut texts into at most ``max_length`` tokens, special ones included.

        Padding comes last, and every text has a token to attend to.
        """

    @abstractmethod
    def run(self, tokens: Tokens, timestep: int) -> Any:
        """Run the model on tokens of which ``timestep / n_timesteps`` are masked."""
