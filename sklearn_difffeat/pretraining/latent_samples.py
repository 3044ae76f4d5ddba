"""What a DiT over feature maps generates, judged without a decoder of pixels.

Generated latents are compared with held-out ones in the encoder's pooled features, by
the Fréchet distance (Heusel et al., arXiv 1706.08500, with these features), beside two
things that any model has to beat: pure noise, and a Gaussian with the mean and the
whole covariance of the latents. A page shows the corpus pictures nearest to each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel
from PIL import Image
from torch.nn import functional

from sklearn_difffeat.backbones.feature_encoder import EfficientNetLiteEncoder
from sklearn_difffeat.pretraining.latents import read_digests, read_latents

N_STEPS = 50
N_AXES = 64  # of the features: more cannot be told from so few pictures
N_NEAREST = 6


@torch.inference_mode()
def generate_latents(folder: Path, n: int, *, seed: int = 0) -> torch.Tensor:
    """Return ``n`` latents denoised from noise by DDIM, (n, channels, side, side)."""
    model = DiTTransformer2DModel.from_pretrained(
        folder, subfolder="transformer", dtype=torch.float32, low_cpu_mem_usage=False
    ).eval()
    scheduler = DDIMScheduler.from_pretrained(
        folder, subfolder="scheduler", clip_sample=False, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(N_STEPS)
    config = model.config
    shape = n, config.in_channels, config.sample_size, config.sample_size
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    labels = torch.full((n,), config.num_embeds_ada_norm)
    for t in scheduler.timesteps:
        step = torch.full((n,), int(t))
        parts = [
            model(x[rows], timestep=step[rows], class_labels=labels[rows]).sample
            for rows in torch.arange(n).split(32)
        ]
        x = scheduler.step(torch.cat(parts), t, x).prev_sample
    return x


def gaussian_latents(latents: torch.Tensor, n: int, *, seed: int = 0) -> torch.Tensor:
    """Draw from the Gaussian with the mean and the covariance of all latents.

    A sum of the centred latents with normal weights has just that covariance.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(n, len(latents), generator=generator)
    mean = latents.mean(0)
    spread = (latents - mean).flatten(1)
    drawn = weights @ spread / (len(latents) - 1) ** 0.5
    return mean + drawn.view(n, *latents.shape[1:])


def frechet_distance(found: np.ndarray, real: np.ndarray) -> float:
    """Return the Fréchet distance of two samples, each as a Gaussian."""
    means = found.mean(0), real.mean(0)
    first, second = np.cov(found.T), np.cov(real.T)
    # Of a product of two covariances, the eigenvalues are real and not negative.
    shared = np.sqrt(np.linalg.eigvals(first @ second).real.clip(0)).sum()
    distance = np.square(means[0] - means[1]).sum()
    return float(distance + np.trace(first) + np.trace(second) - 2 * shared)


@torch.inference_mode()
def judge_samples(
    folder: Path, corpus: Path, page: Path, *, n: int = 256, seed: int = 0
) -> dict[str, float]:
    """Return the Fréchet distances to held-out latents, and write the page.

    Parameters
    ----------
    folder, corpus : Path
        The exported backbone, and the folder of latents. Held out are its usable
        pictures that the backbone's ``digests.npy`` does not hold.
    page : Path
        A PNG: each row one generated latent's nearest pictures of the corpus, by the
        cosine of the pooled features.
    n : int
        How many are compared with as many generated ones, or all that there are.

    Returns
    -------
    dict
        ``generated``, ``gaussian``, ``noise``, and ``corpus`` for as many others.

    Raises
    ------
    ValueError
        When fewer than two pictures were held out, or seen.
    """
    encoder = EfficientNetLiteEncoder.from_pretrained(
        folder, subfolder="vae", dtype=torch.float32
    ).eval()
    maps, _, rows = read_latents(corpus)
    seen = np.isin(read_digests(corpus)[rows], np.load(folder / "digests.npy"))
    n = min(n, int((~seen).sum()))
    if n < 2 or seen.sum() < 2:
        raise ValueError(
            f"Of {len(rows)} pictures in {corpus}, {folder} was trained on "
            f"{seen.sum()}; name the folder of latents of its own run, with two held "
            "out at least."
        )
    known = torch.from_numpy(maps[rows]).float()
    known = (known - encoder.latents_mean) / encoder.latents_std

    def features(latents: torch.Tensor) -> np.ndarray:
        parts = [encoder.features(some).mean((2, 3)) for some in latents.split(64)]
        return torch.cat(parts).numpy()

    held, others = known[~seen][:n], known[seen]
    drawn = {
        "generated": generate_latents(folder, n, seed=seed),
        "gaussian": gaussian_latents(others, n, seed=seed),
        "noise": torch.randn(held.shape, generator=torch.Generator().manual_seed(seed)),
        "corpus": others[-n:],
    }
    pooled = {name: features(latents) for name, latents in drawn.items()}
    real, corpus_features = features(held), features(others)
    _, _, axes = np.linalg.svd(
        corpus_features - corpus_features.mean(0), full_matrices=False
    )
    axes = axes[:N_AXES].T
    small = np.load(corpus / "thumbnails.npy", mmap_mode="r")[rows[seen]]
    centre = corpus_features.mean(0)
    alike = functional.cosine_similarity(
        torch.from_numpy(pooled["generated"][:16] - centre)[:, None],
        torch.from_numpy(corpus_features - centre)[None],
        dim=2,
    )
    nearest = small[alike.topk(min(N_NEAREST, len(others))).indices.numpy()]
    n_rows, _, side, _, _ = nearest.shape
    sheet = nearest.transpose(0, 2, 1, 3, 4).reshape(n_rows * side, -1, 3)
    Image.fromarray(sheet).save(page)
    return {
        name: frechet_distance(found @ axes, real @ axes)
        for name, found in pooled.items()
    }


def say_distances(distances: dict[str, float]) -> None:
    """Print what :func:`judge_samples` returned."""
    told = ", ".join(f"{name} {value:.2f}" for name, value in distances.items())
    print(f"Fréchet distance to held-out latents: {told}", flush=True)
