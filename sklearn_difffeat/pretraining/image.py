"""Pretrain ``dit-tiny``: a pixel-space DiT that predicts the clean picture.

Noise follows the cosine schedule of Nichol and Dhariwal (2021); with patches of 8 x 8
pixels the model predicts the clean sample, weighted by min-SNR (arXiv 2303.09556).
A share of each batch is noise-free and trains the alignment alone.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, DiTTransformer2DModel
from torch import nn
from torch.nn import functional

from sklearn_difffeat.backbones import locate_backbone
from sklearn_difffeat.pretraining.export import export
from sklearn_difffeat.pretraining.loop import Losses, Schedule, train
from sklearn_difffeat.pretraining.pictures import Pictures
from sklearn_difffeat.pretraining.teachers import native_autocast

CONFIG: dict[str, int] = {
    "num_attention_heads": 8,
    "attention_head_dim": 32,
    "in_channels": 3,
    "num_layers": 8,
    "sample_size": 64,
    "patch_size": 8,
    # One class and the null class: the model is unconditional.
    "num_embeds_ada_norm": 1,
}
NULL_CLASS = 1
SNR_CAP = 5.0
NOISE_FREE_SHARE = 0.6


def build_model(start_from: str | None = None, **changes: Any) -> DiTTransformer2DModel:
    """Return a DiT with trained weights, or one whose blocks start as the identity.

    The identity is that of adaLN-Zero.
    """
    if start_from:
        trained = DiTTransformer2DModel.from_pretrained(
            locate_backbone(start_from)[0].location,
            subfolder="transformer",
            dtype=torch.float32,
            low_cpu_mem_usage=False,
        )
        # A copy does not remember, and so does not save, where it was loaded from.
        config = {k: v for k, v in trained.config.items() if not k.startswith("_")}
        model = DiTTransformer2DModel(**config)
        model.load_state_dict(trained.state_dict())
        return model
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


class AlignedDiT(nn.Module):
    """A DiT and, given a teacher, the linear maps from a block to its features.

    Parameters
    ----------
    model : DiTTransformer2DModel
    width : int or None
        Channels of the teacher's features; None for no teacher.
    block : int
        The block aligned, counted from 1.
    """

    def __init__(
        self, model: DiTTransformer2DModel, width: int | None, block: int
    ) -> None:
        super().__init__()
        self.model = model
        self.align_block = block
        self.projector = nn.Linear(model.inner_dim, width) if width else None
        self.map_projector = nn.Linear(model.inner_dim, width) if width else None

    def forward(
        self, noisy: torch.Tensor, timestep: torch.Tensor, n_clean: int
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Return what is predicted of all but the first ``n_clean`` pictures, and the
        projected block of all: pooled, by token.

        The noise-free pictures train the alignment alone, so their pass ends there.
        """
        caught = []
        layer = self.model.transformer_blocks[self.align_block - 1]
        labels = torch.full_like(timestep, NULL_CLASS)
        if self.projector is not None:
            hidden = self.model.pos_embed(noisy[:n_clean])
            for block in self.model.transformer_blocks[: self.align_block]:
                hidden = block(
                    hidden, timestep=timestep[:n_clean], class_labels=labels[:n_clean]
                )
            caught.append(hidden)
        hook = layer.register_forward_hook(lambda *call: caught.append(call[-1]))
        predicted = self.model(
            noisy[n_clean:], timestep=timestep[n_clean:], class_labels=labels[n_clean:]
        ).sample
        hook.remove()
        if self.projector is None or self.map_projector is None:
            return predicted, None, None
        tokens = torch.cat(caught).float()
        return predicted, self.projector(tokens.mean(1)), self.map_projector(tokens)


def misalignment(projected: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return one minus the cosine, averaged."""
    return (1 - functional.cosine_similarity(projected, target, dim=-1)).mean().cpu()


def pretrain_image(
    corpus: str | Path,
    out: str | Path,
    schedule: Schedule,
    *,
    align: float = 1.0,
    align_map: float = 1.0,
    align_block: int = 6,
    clean_share: float = NOISE_FREE_SHARE,
    diffusion: float = 1.0,
    start_from: str | None = None,
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
        Weight of the alignment of the pooled block with the mean of the teacher's map.
    align_map : float
        Weight of the alignment of each token with the teacher's map at its place. With
        both weights 0, plain diffusion is trained without a teacher.
    align_block : int
        The block aligned, counted from 1.
    clean_share : float
        Share of a batch that stays noise-free, at timestep 0, for the alignment alone;
        the diffusion loss is that of the rest. Without a teacher all is noised.
    diffusion : float
        Weight of the diffusion loss.
    start_from : str, optional
        Embedded name or folder whose weights a new run starts from.
    device : str
    **changes
        Entries of the model's configuration to change.

    Returns
    -------
    Path
        The exported folder.
    """
    torch.manual_seed(schedule.seed)
    aligned = align > 0 or align_map > 0
    model = build_model(start_from, **changes)
    pictures = Pictures(
        Path(corpus), aligned, model.config.sample_size, model.config.patch_size
    )
    width = pictures.maps[0].shape[1] if pictures.maps else None
    trained = AlignedDiT(model, width, align_block).to(device)
    ema = copy.deepcopy(trained).requires_grad_(False)
    scheduler = build_scheduler()
    alpha_bar = scheduler.alphas_cumprod
    snr = alpha_bar / (1 - alpha_bar)
    n_clean = round(clean_share * schedule.batch_size) if aligned else 0

    def losses_of(generator: torch.Generator) -> Losses:
        clean, places = pictures.batch(schedule.batch_size, generator)
        timestep = torch.randint(1000, (len(clean),), generator=generator)
        timestep[:n_clean] = 0
        noise = torch.randn(clean.shape, generator=generator)
        noisy = scheduler.add_noise(clean, noise, timestep)
        noisy[:n_clean] = clean[:n_clean]
        with native_autocast(device):
            predicted, pooled, tokens = trained(
                noisy.to(device), timestep.to(device), n_clean
            )
        weight = snr[timestep].clamp(max=SNR_CAP) / SNR_CAP
        error = (predicted.float().cpu() - clean[n_clean:]).square().mean((1, 2, 3))
        losses = {"diffusion": (weight[n_clean:] * error).mean()}
        losses["loss"] = diffusion * losses["diffusion"]
        if places is not None and pooled is not None and tokens is not None:
            target = places.flatten(2).transpose(1, 2).to(device)
            losses["alignment"] = misalignment(pooled, target.mean(1))
            losses["map alignment"] = misalignment(tokens, target)
            for name, share in (("alignment", align), ("map alignment", align_map)):
                losses["loss"] = losses["loss"] + share * losses[name]
        return losses

    recipe = {
        "align": align,
        "align_map": align_map,
        "align_block": align_block,
        "clean_share": clean_share,
        "diffusion": diffusion,
        "start_from": start_from and Path(start_from).name,
    }
    train(losses_of, trained, ema, schedule, Path(out), recipe)
    return export(
        Path(out),
        {"transformer": ema.model, "scheduler": scheduler},
    )
