"""What is known about a backbone before its weights are read."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sklearn_difffeat.backbones._readings import Reading, reading_of

# As in cc-by-nc-4.0, stabilityai-nc-research-community, flux-1-dev-non-commercial.
NON_COMMERCIAL = re.compile(r"(\b|_)(nc|non-?commercial|research(-only)?)(\b|_)", re.I)


@dataclass(frozen=True)
class BackboneInfo:
    """Description of a backbone, read from its configuration without its weights.

    Attributes
    ----------
    name : str
        The name, hub id or folder that was asked for.
    family : str
        The class of the model, ``"DiTTransformer2DModel"`` or ``"BertForMaskedLM"``.
    modality : {"image", "text"}
    n_blocks : int
        Blocks are numbered 0 (token embeddings, or the map of a frozen encoder) to
        ``n_blocks``.
    width : int
        Channels of a hidden state; of the widest one where blocks differ.
    n_timesteps : int
        Timesteps run from 0 to ``n_timesteps - 1``.
    input_size : int
        Side of the square picture in pixels, or the longest text in tokens.
    input_step : int
        Other sizes have to be a multiple of this: the side of an image token, or of
        ``tokens_per_step`` of them.
    license : str or None
        As the model card states it; None where the card states none.
    size_mb : float or None
        Size of the weight files that are loaded, in MB; None where neither this
        machine nor the hub has it.
    fingerprint : str
        Changes when configuration or weights change: the commit for a hub id, a
        digest of the files' contents otherwise.
    revision : str or None
        The commit of a hub id.
    carries_code : bool
        Whether loading runs code that comes with the weights, which needs
        ``trust_remote_code=True``.
    widths : tuple of int or None
        Channels of each block, 0 included; None where all have ``width``.
    max_input_size : int or None
        The largest side of a picture that the model can take; None for no limit.
    takes_prompt : bool
        Whether the model is conditioned on a text.
    tokens_per_step : int
        Image tokens to the side of ``input_step`` pixels.
    time_embedding : {"original", "diffusers"} or None
        For a DiT: how the timestep is encoded. ``"original"`` is as in Meta's code,
        where the i-th of n frequencies is ``10000 ** (-i / n)``, for checkpoints that
        were converted from Meta's; ``"diffusers"`` has ``10000 ** (-i / (n - 1))``, for
        models that were trained with that library. None for families where both
        agree.

    Examples
    --------
    >>> from sklearn_difffeat import describe_backbone
    >>> info = describe_backbone("mdlm-tiny")
    >>> info.family, info.n_blocks, info.license
    ('BertForMaskedLM', 6, 'apache-2.0')
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
    tokens_per_step: int = 1
    time_embedding: str | None = None

    @property
    def reading(self) -> Reading:
        """Block, timestep, pooling and norm that ``"auto"`` means, with the source."""
        return reading_of(self.name, self.modality)

    def width_of(self, block: int) -> int:
        """Return the channels of one block's hidden states."""
        return self.widths[block] if self.widths else self.width

    @property
    def non_commercial(self) -> bool:
        """Whether the license, by its name, forbids commercial use."""
        return bool(NON_COMMERCIAL.search(self.license or ""))
