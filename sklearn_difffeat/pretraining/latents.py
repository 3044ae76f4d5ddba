"""The pictures' latents, computed once: what the diffusion Transformer trains on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from sklearn_difffeat.backbones.feature_encoder import EfficientNetLiteEncoder
from sklearn_difffeat.datasets._clipart import pixel_digest
from sklearn_difffeat.datasets.build_openclipart import SIZE as ITEM_SIZE
from sklearn_difffeat.pretraining.drawings import (
    Picture,
    banned_digests,
    thumbnail,
)
from sklearn_difffeat.pretraining.teachers import embed_texts

SIZE = 224
THUMBNAIL = 48
BATCH = 8  # activations of more do not fit the caches of a core

# Maps uint8 (n, size, size, 3) to latents, float (n, channels, side, side).
Encode = Callable[[np.ndarray], np.ndarray]


def encode_with(encoder: EfficientNetLiteEncoder) -> Encode:
    """Return the encoder as a function of pictures; its own scale is left alone."""
    encoder = encoder.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def encode(pictures: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
        return encoder.encode(pixels).latent.contiguous().numpy()

    return encode


def write_latents(
    pictures: Sequence[Picture],
    folder: Path,
    encode: Encode,
    shape: tuple[int, int, int] = (704, 7, 7),
) -> None:
    """Encode all pictures, or go on where a run was cut off.

    Writes ``latents.npy``, float16 (n, channels, side, side), ``thumbnails.npy``,
    ``names.json`` (source and name of each) and ``digests.jsonl``, one line for each
    picture encoded: its digest, or null where it was left out as one of OpenClipart's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [[picture.source, picture.name] for picture in pictures]
    (folder / "names.json").write_text(json.dumps(names))
    log = folder / "digests.jsonl"
    first = len(log.read_text().splitlines()) if log.exists() else 0
    maps = {
        "latents": (np.float16, shape),
        "thumbnails": (np.uint8, (THUMBNAIL, THUMBNAIL, 3)),
    }
    latents, thumbnails = (
        np.lib.format.open_memmap(
            folder / f"{name}.npy",
            mode="r+" if (folder / f"{name}.npy").exists() else "w+",
            dtype=dtype,
            shape=(len(pictures), *row),
        )
        for name, (dtype, row) in maps.items()
    )
    banned = banned_digests()
    progress = tqdm(total=len(pictures), initial=first, desc="latents", mininterval=20)
    with log.open("a") as lines:
        for start in range(first, len(pictures), BATCH):
            some = pictures[start : start + BATCH]
            drawn, small = zip(
                *(one.draw(SIZE, ITEM_SIZE) for one in some), strict=True
            )
            rows = slice(start, start + len(some))
            latents[rows] = encode(np.stack(drawn))
            thumbnails[rows] = [thumbnail(one, THUMBNAIL) for one in drawn]
            found = [pixel_digest(one) for one in small]
            lines.writelines(
                json.dumps(None if one in banned else one) + "\n" for one in found
            )
            lines.flush()
            progress.update(len(some))


def read_latents(folder: Path) -> tuple[np.ndarray, list[tuple[str, str]], np.ndarray]:
    """Return the latents encoded so far, their names, and which may be used.

    Returns
    -------
    latents : memory map, float16 (n, channels, side, side)
    names : list of (str, str)
    rows : ndarray of int
        Those that are not OpenClipart's, each drawing once.
    """
    lines = (folder / "digests.jsonl").read_text().splitlines()
    digests = [json.loads(line) for line in lines]
    names = [
        (source, name)
        for source, name in json.loads((folder / "names.json").read_text())
    ]
    latents = np.load(folder / "latents.npy", mmap_mode="r")[: len(digests)]
    first = {one: i for i, one in reversed(list(enumerate(digests))) if one is not None}
    return latents, names[: len(digests)], np.array(sorted(first.values()), dtype=int)


def read_digests(folder: Path) -> np.ndarray:
    """Return the first 64 bits of each picture's digest, uint64 (n,), 0 for none."""
    lines = (folder / "digests.jsonl").read_text().splitlines()
    return np.array(
        [int((json.loads(line) or "0")[:16], 16) for line in lines], dtype=np.uint64
    )


@torch.inference_mode()
def write_targets(folder: Path, encoder: EfficientNetLiteEncoder) -> None:
    """Write ``pooled.npy``, float16 (n, channels), and the names' embeddings.

    The former are the maxima of the encoder's features of all pictures encoded so
    far, from their latents; ``names.npz`` holds ``names`` and ``vectors``, float16 (m,
    384), and is left as it is where it was written before.
    """
    latents, _, _ = read_latents(folder)
    rows = []
    for start in range(0, len(latents), 256):
        maps = torch.from_numpy(np.array(latents[start : start + 256])).float()
        rows.append(encoder.features(maps).amax((2, 3)).half().numpy())
    np.save(folder / "pooled.npy", np.concatenate(rows))
    if (folder / "names.npz").exists():
        return
    named = json.loads((folder / "names.json").read_text())
    distinct = sorted({name for _, name in named} - {""})
    vectors = embed_texts(distinct, max_length=16)
    np.savez(folder / "names.npz", names=np.array(distinct), vectors=vectors)
