"""Pretrain ``dit-tiny``: a pixel-space DiT that predicts the clean picture.

Noise follows the cosine schedule of Nichol and Dhariwal (2021); with patches of 8 x 8
pixels the model predicts the clean sample, weighted by min-SNR (arXiv 2303.09556).
A share of each batch is noise-free and trains the alignment alone.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, DiTTransformer2DModel
from torch import nn
from torch.nn import functional

from sklearn_difffeat.pretraining.export import export
from sklearn_difffeat.pretraining.loop import Losses, Schedule, train
from sklearn_difffeat.pretraining.teachers import standardize

SIZE = 64
CONFIG = {
    "num_attention_heads": 8,
    "attention_head_dim": 32,
    "in_channels": 3,
    "num_layers": 8,
    "sample_size": SIZE,
    "patch_size": 8,
    # One class and the null class: the model is unconditional.
    "num_embeds_ada_norm": 1,
}
NULL_CLASS = 1
SNR_CAP = 5.0
NOISE_FREE_SHARE = 0.35
SHARES = (0.5, 0.2, 0.3)  # OpenClipart, emoji, photographs


def build_model(**changes: Any) -> DiTTransformer2DModel:
    """Return a DiT whose blocks start as the identity (adaLN-Zero)."""
    model = DiTTransformer2DModel(**CONFIG | changes)
    modulations = [block.norm1.linear for block in model.transformer_blocks]
    for layer in [*modulations, model.proj_out_1, model.proj_out_2]:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model


def build_scheduler() -> DDPMScheduler:
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
    )


class Pictures:
    """Draws augmented batches from the packed corpus."""

    def __init__(self, corpus: Path, targets: bool, maps: bool = False) -> None:
        with np.load(corpus / "images.npz") as images:
            self.drawings = torch.from_numpy(images["drawings"])
            self.photos = torch.from_numpy(images["photos"])
            source = images["drawing_source"]
        photo_rows = np.arange(len(self.photos)) + len(self.drawings)
        self.pools = [
            torch.from_numpy(rows)
            for rows in (
                np.flatnonzero(source == 0),
                np.flatnonzero(source),
                photo_rows,
            )
        ]
        self.targets = None
        if targets:
            self.targets = standardize(np.load(corpus / "image-targets.npy"))
        self.maps = None
        if maps:
            self.maps = np.load(corpus / "image-maps.npy", mmap_mode="r")

    def batch(
        self, size: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return pictures (size, 3, 64, 64) in [-1, 1], their rows and their crops."""
        counts = [round(share * size) for share in SHARES[1:]]
        counts.insert(0, size - sum(counts))
        rows = torch.cat([
            pool[torch.randint(len(pool), (count,), generator=generator)]
            for pool, count in zip(self.pools, counts, strict=True)
        ])  # fmt: skip
        n_drawn = len(rows) - counts[2]
        parts = (
            self.drawings[rows[:n_drawn]],
            self.photos[rows[n_drawn:] - len(self.drawings)],
        )
        crops = draw_crops(size, generator)
        pixels = [
            crop(part.permute(0, 3, 1, 2).float() / 127.5 - 1, theta, SIZE)
            for part, theta in zip(
                parts, crops.split([n_drawn, counts[2]]), strict=True
            )
        ]
        return vary_contrast(torch.cat(pixels), generator), rows, crops

    def places(
        self, rows: torch.Tensor, crops: torch.Tensor, side: int
    ) -> torch.Tensor:
        """Return the teacher's features (n, side * side, channels) at each token."""
        assert self.maps is not None
        maps = torch.from_numpy(self.maps[rows.numpy()].astype(np.float32))
        return crop(maps, crops, side).flatten(2).transpose(1, 2)


def draw_crops(n: int, generator: torch.Generator) -> torch.Tensor:
    """Draw affine maps (n, 2, 3): 70-100 % of the side, half flipped."""
    draw = torch.rand(4, n, generator=generator)
    scale = 0.7 + 0.3 * draw[0]
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


def vary_contrast(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Vary the contrast by a fifth."""
    contrast = 0.8 + 0.4 * torch.rand(len(pixels), 1, 1, 1, generator=generator)
    # White stays white: a darker background would be a cue that no test picture has.
    return (1 - (1 - pixels) * contrast).clamp(-1, 1)


class AlignedDiT(nn.Module):
    """A DiT and, given a teacher, the maps from a block to its features.

    Parameters
    ----------
    model : DiTTransformer2DModel
    width, map_width : int or None
        Channels of the teacher's pooled feature and of its map; None for no teacher.
    block : int
        The block aligned, counted from 1.
    """

    def __init__(
        self,
        model: DiTTransformer2DModel,
        width: int | None,
        map_width: int | None,
        block: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.align_block = block
        self.projector = nn.Linear(model.inner_dim, width) if width else None
        self.map_projector = None
        if map_width:
            self.map_projector = nn.Sequential(
                nn.Linear(model.inner_dim, 2 * model.inner_dim),
                nn.SiLU(),
                nn.Linear(2 * model.inner_dim, map_width),
            )

    def forward(
        self, noisy: torch.Tensor, timestep: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Return the clean pictures and the projected block: pooled, by token."""
        caught = []
        layer = self.model.transformer_blocks[self.align_block - 1]
        hook = layer.register_forward_hook(lambda *call: caught.append(call[-1]))
        labels = torch.full_like(timestep, NULL_CLASS)
        predicted = self.model(noisy, timestep=timestep, class_labels=labels).sample
        hook.remove()
        pooled = places = None
        if self.projector is not None:
            pooled = self.projector(caught[0].float().mean(1))
        if self.map_projector is not None:
            places = self.map_projector(caught[0])
        return predicted, pooled, places


def misalignment(projected: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return one minus the cosine, averaged."""
    return (1 - functional.cosine_similarity(projected, target, dim=-1)).mean().cpu()


def pretrain_image(
    corpus: str | Path,
    out: str | Path,
    schedule: Schedule,
    *,
    align: float = 1.0,
    align_map: float = 0.0,
    align_block: int = 6,
    clean_share: float = NOISE_FREE_SHARE,
    diffusion: float = 1.0,
    device: str = "cpu",
    **changes: Any,
) -> Path:
    """Train or resume, and export to ``out/export`` in the hub's layout.

    Parameters
    ----------
    corpus, out : path
        The packed corpus, and the folder of this run.
    schedule : Schedule
    align : float
        Weight of the alignment of the pooled block with the teacher's pooled feature.
    align_map : float
        Weight of the alignment of each token with the teacher's map at its place. With
        both weights 0, plain diffusion is trained without a teacher.
    align_block : int
        The block aligned, counted from 1.
    clean_share : float
        Share of a batch that stays noise-free, at timestep 0; the diffusion loss is
        that of the rest.
    diffusion : float
        Weight of the diffusion loss.
    device : str
    **changes
        Entries of the model's configuration to change.

    Returns
    -------
    Path
        The exported folder.
    """
    torch.manual_seed(schedule.seed)
    pictures = Pictures(Path(corpus), targets=align > 0, maps=align_map > 0)
    width, map_width = (
        None if targets is None else targets.shape[1]
        for targets in (pictures.targets, pictures.maps)
    )
    model = build_model(**changes)
    trained = AlignedDiT(model, width, map_width, align_block).to(device)
    ema = copy.deepcopy(trained).requires_grad_(False)
    scheduler = build_scheduler()
    alpha_bar = scheduler.alphas_cumprod
    snr = alpha_bar / (1 - alpha_bar)
    side = model.config.sample_size // model.config.patch_size
    n_clean = round(clean_share * schedule.batch_size)

    def losses_of(generator: torch.Generator) -> Losses:
        drawn = pictures.batch(schedule.batch_size, generator)
        order = torch.randperm(schedule.batch_size, generator=generator)
        clean, rows, crops = (part[order] for part in drawn)
        timestep = torch.randint(1000, (len(rows),), generator=generator)
        timestep[:n_clean] = 0
        noise = torch.randn(clean.shape, generator=generator)
        noisy = scheduler.add_noise(clean, noise, timestep)
        noisy[:n_clean] = clean[:n_clean]
        with torch.autocast(device, dtype=torch.bfloat16):
            predicted, pooled, places = trained(noisy.to(device), timestep.to(device))
        weight = snr[timestep].clamp(max=SNR_CAP) / SNR_CAP
        error = (predicted.float().cpu() - clean).square().mean((1, 2, 3))
        losses = {"diffusion": (weight * error)[n_clean:].mean()}
        losses["loss"] = diffusion * losses["diffusion"]
        if pooled is not None and pictures.targets is not None:
            target = pictures.targets[rows].to(device)
            losses["alignment"] = misalignment(pooled, target)
            losses["loss"] = losses["loss"] + align * losses["alignment"]
        if places is not None:
            target = pictures.places(rows, crops, side).to(device)
            losses["map alignment"] = misalignment(places.float(), target)
            losses["loss"] = losses["loss"] + align_map * losses["map alignment"]
        return losses

    recipe = {
        "align": align,
        "align_map": align_map,
        "align_block": align_block,
        "clean_share": clean_share,
        "diffusion": diffusion,
    }
    train(losses_of, trained, ema, schedule, Path(out), recipe)
    return export(
        Path(out),
        {"transformer": ema.model, "scheduler": scheduler},
    )
