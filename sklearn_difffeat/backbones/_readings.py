"""The block and timestep recommended for each backbone, with the source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reading:
    """The block, timestep, pooling and norm that ``"auto"`` means.

    Attributes
    ----------
    block, timestep, pooling : int, str, tuple or list of them
        As a transformer takes them.
    norm : "l2" or None
    source : str
        Who found it, and on which data.

    Examples
    --------
    >>> from sklearn_difffeat import describe_backbone
    >>> describe_backbone("mdlm-tiny").reading.timestep
    0
    """

    block: Any
    timestep: Any
    pooling: Any
    norm: str | None
    source: str


PRIORS = {
    "image": Reading(
        "middle", "middle", "mean", None, "prior of Diff-Feat (arXiv 2509.15553)"
    ),
    "text": Reading("last", 0, "mean", None, "prior of Diff-Feat (arXiv 2509.15553)"),
}

DIT_XL = Reading(
    12,
    121,
    "mean",
    None,
    'block: "Layer 12" of 28, Diff-Feat (arXiv 2509.15553), best across its data sets; '
    "timestep: DDAE (arXiv 2303.09769), for CIFAR",
)
# DIFT counts the blocks on the way up from 0; 1 is block 7 of these models.
SD_2_1 = Reading(
    7,
    261,
    "mean",
    None,
    "DIFT (arXiv 2306.03881), up_ft_index 1, for matching; it averages 8 draws",
)

FOLDS = "folds of OpenClipart's training groups (docs/background/embedded_pair.md)"

# By name or hub id.
KNOWN = {
    "dit-tiny": Reading([0, 3], 0, "max", "l2", FOLDS),
    "mdlm-tiny": Reading([0, 3, 6], 0, "mean", "l2", FOLDS),
    "facebook/DiT-XL-2-256": DIT_XL,
    "facebook/DiT-XL-2-512": DIT_XL,
    "stabilityai/stable-diffusion-2-1": SD_2_1,
    "stabilityai/stable-diffusion-2-1-base": SD_2_1,
}


def reading_of(name: str, modality: str) -> Reading:
    """Return the reading recommended for a backbone: a known one, or the prior."""
    return KNOWN.get(name, PRIORS[modality])
