"""Augmented pictures, with the teacher's features where their tokens lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from sklearn_difffeat.pretraining.corpus import OPENCLIPART

SHARES = (0.12, 0.45, 0.43)  # OpenClipart, emoji and icons, photographs


class Pictures:
    """Draws augmented batches from the packed corpus.

    Parameters
    ----------
    corpus : Path
    targets : bool
        Whether batches come with the teacher's maps.
    size, patch : int
        Side of a picture and of a token, in pixels.
    """

    def __init__(
        self,
        corpus: Path,
        targets: bool,
        size: int = 64,
        patch: int = 8,
    ) -> None:
        self.size, self.side = size, size // patch
        with np.load(corpus / "images.npz") as images:
            self.drawings = torch.from_numpy(images["drawings"])
            self.photos = torch.from_numpy(images["photos"])
            source = images["drawing_source"]
        self.pools = [
            np.flatnonzero(source == OPENCLIPART),
            np.flatnonzero(source != OPENCLIPART),
        ]
        self.maps = None
        if targets:
            self.maps = [
                np.load(corpus / f"{kind}-maps.npy", mmap_mode="r")
                for kind in ("drawings", "photos")
            ]

    def batch(
        self, size: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return pictures, and the teacher's features where their tokens lie.

        Returns
        -------
        pixels : Tensor of shape (size, 3, side, side)
            In [-1, 1].
        places : Tensor of shape (size, channels, tokens, tokens), or None
        """
        counts = [round(share * size) for share in SHARES[1:]]
        counts.insert(0, size - sum(counts))
        n_drawn = size - counts[2]
        clipart, emoji, photos = (
            torch.randint(n, (count,), generator=generator)
            for n, count in zip(
                (*map(len, self.pools), len(self.photos)), counts, strict=True
            )
        )
        rows = (
            np.concatenate([self.pools[0][clipart], self.pools[1][emoji]]),
            photos.numpy(),
        )
        crops = draw_crops(size, generator).split([n_drawn, counts[2]])
        pixels = torch.cat([
            crop(part[chosen].permute(0, 3, 1, 2).float() / 127.5 - 1, theta, self.size)
            for part, chosen, theta in zip(
                (self.drawings, self.photos), rows, crops, strict=True
            )
        ])  # fmt: skip
        order = torch.randperm(size, generator=generator)
        pixels = vary_colour(pixels[order], generator)
        if self.maps is None:
            return pixels, None
        places = torch.cat([
            crop(torch.from_numpy(part[chosen].astype(np.float32)), theta, self.side)
            for part, chosen, theta in zip(self.maps, rows, crops, strict=True)
        ])[order]  # fmt: skip
        paste(pixels, places, generator)
        return pixels, places


def draw_crops(n: int, generator: torch.Generator) -> torch.Tensor:
    """Draw affine maps (n, 2, 3): 55-100 % of the side, half flipped."""
    draw = torch.rand(4, n, generator=generator)
    scale = 0.55 + 0.45 * draw[0]
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = scale * torch.where(draw[3] < 0.5, -1.0, 1.0)
    theta[:, 1, 1] = scale
    theta[:, :, 2] = ((1 - scale) * (2 * draw[1:3] - 1)).T
    return theta


def crop(pictures: torch.Tensor, crops: torch.Tensor, side: int) -> torch.Tensor:
    """Sample pictures, or maps of features, (n, channels, side, side) at the crops."""
    size = [*pictures.shape[:2], side, side]
    grid = functional.affine_grid(crops, size, align_corners=False)
    return functional.grid_sample(
        pictures, grid, mode="bilinear", padding_mode="border", align_corners=False
    )


def vary_colour(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Vary the contrast by a fifth, and that of each colour by a tenth."""
    shape = (len(pixels), 1, 1, 1), (len(pixels), 3, 1, 1)
    spread = [torch.rand(sizes, generator=generator) - 0.5 for sizes in shape]
    contrast = (1 + 0.4 * spread[0]) * (1 + 0.2 * spread[1])
    # White stays white: a darker background would be a cue that no test picture has.
    return (1 - (1 - pixels) * contrast).clamp(-1, 1)


def paste(
    pixels: torch.Tensor, places: torch.Tensor, generator: torch.Generator
) -> None:
    """Paste a rectangle of tokens of the picture before into half the pictures.

    The teacher's features move along, so that few pictures make many (CutMix, arXiv
    1905.04899, by token). Both tensors are changed in place.
    """
    side = places.shape[2]
    patch = pixels.shape[2] // side
    others = pixels.roll(1, 0), places.roll(1, 0)
    draws = torch.rand(len(pixels), 5, generator=generator)
    for row, (chosen, *box) in enumerate(draws.tolist()):
        if chosen < 0.5:
            height, width = (2 + int(5 * share) for share in box[:2])
            top = int(box[2] * (side - height + 1))
            left = int(box[3] * (side - width + 1))
            for part, other, unit in zip(
                (pixels, places), others, (patch, 1), strict=True
            ):
                span = (
                    slice(None),
                    slice(unit * top, unit * (top + height)),
                    slice(unit * left, unit * (left + width)),
                )
                part[row][span] = other[row][span]
