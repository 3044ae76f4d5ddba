"""Pretrain ``dit-tiny``: a DiT over the feature maps of a frozen EfficientNet-Lite0.

The latents are the maps of the encoder's last stages, normalised by channel: a
representation autoencoder (arXiv 2510.11690) without its decoder. Noise is that of flow
matching, shifted for the latents' dimension as there, written as the schedule that
preserves variance with the same ratio of signal to noise. The model predicts the clean
latents, weighted as the velocity would be (arXiv 2202.00512), up to a bound. Two more
losses ask of the maximum over a block's tokens, as features are read, what is shown:

- the pooled features of *another* drawing of the same name, or its own where an artist
  has drawn it alone;
- its name, told from all others by MiniLM's embedding of it.

The name is never an input, so that features depend on the picture alone.
"""

from __future__ import annotations

import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, DiTTransformer2DModel
from torch import nn
from torch.nn import functional

from sklearn_difffeat.backbones.feature_encoder import EfficientNetLiteEncoder
from sklearn_difffeat.pretraining.export import export
from sklearn_difffeat.pretraining.image_card import write_image_card
from sklearn_difffeat.pretraining.latents import read_digests, read_latents
from sklearn_difffeat.pretraining.loop import Losses, Schedule, train

CONFIG: dict[str, int] = {
    "num_attention_heads": 6,
    "attention_head_dim": 64,
    "in_channels": 704,
    "num_layers": 4,
    "sample_size": 7,
    "patch_size": 1,
    # One class and the null class: the model is unconditional.
    "num_embeds_ada_norm": 1,
}
NULL_CLASS = 1
N_TIMESTEPS = 1000
# Of the latents that Stable Diffusion 3's schedule was made for.
BASE_DIMENSION = 4096
NAME_TEMPERATURE = 0.05
LARGEST_WEIGHT = 5.0
WEIGHTS = {"diffusion": 1.0, "other": 1.0, "name": 0.3}


def build_scheduler(dimension: int) -> DDPMScheduler:
    """Return flow matching's path, shifted for a dimension, as a DDPM schedule.

    Parameters
    ----------
    dimension : int
        Numbers in a picture's latents.
    """
    shift = (dimension / BASE_DIMENSION) ** 0.5
    time = torch.arange(1, N_TIMESTEPS + 1, dtype=torch.float64) / N_TIMESTEPS
    sigma = shift * time / (1 + (shift - 1) * time)
    alpha_bar = (1 - sigma) ** 2 / ((1 - sigma) ** 2 + sigma**2)
    before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    betas = (1 - alpha_bar / before).clamp(max=0.999)
    return DDPMScheduler(
        num_train_timesteps=N_TIMESTEPS,
        trained_betas=[round(beta, 8) for beta in betas.tolist()],
        prediction_type="sample",
        clip_sample=False,
    )


def build_model(**changes: Any) -> DiTTransformer2DModel:
    """Return a DiT whose tokens start as the latents themselves, and blocks near 0."""
    model = DiTTransformer2DModel(**CONFIG | changes)
    nn.init.orthogonal_(model.pos_embed.proj.weight.flatten(1))
    for block in model.transformer_blocks:
        nn.init.normal_(block.norm1.linear.weight, std=0.01)
        # Of shift, scale and gate, twice, the gates open a little.
        nn.init.zeros_(block.norm1.linear.bias)
        block.norm1.linear.bias.data.view(6, -1)[[2, 5]] = 0.2
    for layer in (model.proj_out_1, model.proj_out_2):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model


class Latents:
    """Draws batches of latents, with another drawing's features and the name's number.

    Parameters
    ----------
    corpus : Path
        Where ``write_latents`` and ``write_targets`` wrote.
    n_held : int
        How many pictures, the first ones, are held out.
    """

    def __init__(self, corpus: Path, n_held: int = 0) -> None:
        maps, names, rows = read_latents(corpus)
        pooled = np.load(corpus / "pooled.npy")
        rows = rows[rows < len(pooled)][n_held:]
        self.sources = [names[row][0] for row in rows]
        self.digests = read_digests(corpus)[rows]
        self.maps = torch.from_numpy(maps[rows])
        self.mean = self.maps[:4000].float().mean((0, 2, 3)).view(-1, 1, 1)
        self.std = self.maps[:4000].float().std((0, 2, 3)).view(-1, 1, 1)
        values = torch.from_numpy(pooled[rows]).float()
        self.pooled = (values - values.mean(0)) / (values.std(0) + 1e-6)
        embedded = np.load(corpus / "names.npz")
        number = {name: i for i, name in enumerate(embedded["names"].tolist())}
        self.bank = torch.from_numpy(embedded["vectors"]).float()
        # Photographs have none.
        self.names = torch.tensor([number.get(names[row][1], -1) for row in rows])
        self.same: dict[int, np.ndarray] = {
            name: np.flatnonzero(self.names.numpy() == name)
            for name in set(self.names.tolist()) - {-1}
        }

    def batch(
        self, size: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return latents, another drawing's pooled features, and names' numbers."""
        chosen = torch.randint(len(self.maps), (size,), generator=generator)
        draws = torch.rand(2, size, generator=generator)
        others = chosen.clone()
        for i, (row, draw) in enumerate(zip(chosen.tolist(), draws[0], strict=True)):
            found = self.same.get(int(self.names[row]), ())
            same = [one for one in found if one != row]
            if same:
                others[i] = same[int(draw * len(same))]
        clean = (self.maps[chosen].float() - self.mean) / self.std
        mirrored = draws[1].view(-1, 1, 1, 1) < 0.5
        clean = torch.where(mirrored, clean.flip(3), clean)
        return clean, self.pooled[others], self.names[chosen]


class AlignedDiT(nn.Module):
    """A DiT, and linear maps from the maximum over a block's tokens to two targets."""

    def __init__(
        self, model: DiTTransformer2DModel, features: int, words: int, block: int
    ) -> None:
        super().__init__()
        self.model = model
        self.block = block
        self.feature_projector = nn.Linear(model.inner_dim, features)
        self.name_projector = nn.Linear(model.inner_dim, words)

    def forward(
        self, noisy: torch.Tensor, timestep: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the prediction, and what is told of the other drawing and the name."""
        caught: list[torch.Tensor] = []
        layer = self.model.transformer_blocks[self.block - 1]
        hook = layer.register_forward_hook(lambda *call: caught.append(call[-1]))
        labels = torch.full_like(timestep, NULL_CLASS)
        predicted = self.model(noisy, timestep=timestep, class_labels=labels).sample
        hook.remove()
        read = caught[0].amax(1)
        return predicted, self.feature_projector(read), self.name_projector(read)


def pretrain_image(
    corpus: Path,
    out: Path,
    schedule: Schedule,
    encoder: EfficientNetLiteEncoder,
    *,
    block: int = 3,
    clean_share: float = 0.4,
    n_held: int = 256,
    weights: dict[str, float] = WEIGHTS,
    **changes: Any,
) -> Path:
    """Train or resume, and export to ``out/export`` in the hub's layout.

    Parameters
    ----------
    corpus, out : Path
        The folder of latents, and that of this run.
    schedule : Schedule
    encoder : EfficientNetLiteEncoder
        Exported beside the Transformer, with the latents' scale.
    block : int
        The block asked what a drawing shows, counted from 1.
    clean_share : float
        Share of a batch that stays noise-free, at timestep 0; the diffusion loss is
        that of the rest.
    n_held : int
        How many of the corpus are held out, for :func:`latent_samples.judge_samples`.
    weights : dict
        Of the three losses.
    **changes
        Entries of the model's configuration to change.
    """
    torch.manual_seed(schedule.seed)
    data = Latents(Path(corpus), n_held)
    bank = functional.normalize(data.bank)
    # Names that mean the same share the probability.
    kinship = torch.softmax(bank @ bank.T / NAME_TEMPERATURE, dim=1)
    model = build_model(**changes)
    trained = AlignedDiT(model, data.pooled.shape[1], bank.shape[1], block)
    ema = copy.deepcopy(trained).requires_grad_(False)
    scheduler = build_scheduler(data.maps[0].numel())
    # The error of v is that of the clean latents times this.
    weight_of = (1 / (1 - scheduler.alphas_cumprod)).clamp(max=LARGEST_WEIGHT)
    n_clean = round(clean_share * schedule.batch_size)

    def losses_of(generator: torch.Generator) -> Losses:
        clean, other, names = data.batch(schedule.batch_size, generator)
        timestep = torch.randint(1, N_TIMESTEPS, (len(clean),), generator=generator)
        timestep[:n_clean] = 0
        noise = torch.randn(clean.shape, generator=generator)
        noisy = scheduler.add_noise(clean, noise, timestep)
        noisy[:n_clean] = clean[:n_clean]
        predicted, feature, word = trained(noisy, timestep)
        noised = slice(n_clean, None)
        error = (predicted - clean)[noised].square().mean((1, 2, 3))
        found = {
            "diffusion": (weight_of[timestep[noised]] * error).mean(),
            "other": (1 - functional.cosine_similarity(feature, other)).mean(),
        }
        named = names >= 0
        logits = functional.normalize(word[named]) @ bank.T / NAME_TEMPERATURE
        entropy = functional.cross_entropy(
            logits, kinship[names[named]], reduction="sum"
        )
        # A batch of photographs alone has no names.
        found["name"] = entropy / named.sum().clamp(min=1)
        found["loss"] = sum(weights[name] * value for name, value in found.items())
        return found

    recipe = {"block": block, "clean_share": clean_share, **weights, **changes}
    log = train(losses_of, trained, ema, schedule, Path(out), recipe)
    encoder = copy.deepcopy(encoder)
    encoder.latents_mean.copy_(data.mean)
    encoder.latents_std.copy_(data.std)
    parts = {"transformer": ema.model, "scheduler": scheduler, "vae": encoder}
    folder = export(Path(out), parts)
    facts = asdict(schedule) | recipe
    write_image_card(folder, data.sources, data.digests, facts, log)
    return folder
