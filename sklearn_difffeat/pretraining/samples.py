"""What the backbones generate: pictures from noise, words where texts are hidden."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel
from PIL import Image
from transformers import AutoModelForMaskedLM

from sklearn_difffeat.backbones import load_backbone, locate_backbone

N_STEPS = 100
HIDDEN_SHARE = 0.4


@torch.inference_mode()
def generate_pictures(backbone: str, n: int, seed: int = 0) -> torch.Tensor:
    """Return uint8 pictures (n, size, size, 3) denoised from noise by DDIM."""
    folder = locate_backbone(backbone)[0].snapshot
    model = DiTTransformer2DModel.from_pretrained(
        folder, subfolder="transformer", dtype=torch.float32, low_cpu_mem_usage=False
    ).eval()
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    scheduler.set_timesteps(N_STEPS)
    side = model.config.sample_size
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, side, side, generator=generator)
    classes = torch.full((n,), model.config.num_embeds_ada_norm)
    for t in scheduler.timesteps:
        step = torch.full((n,), int(t))
        output = model(x, timestep=step, class_labels=classes).sample
        # Models with learned variance return it behind the prediction.
        x = scheduler.step(output[:, :3], t, x, eta=1.0, generator=generator)[0]
    return ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)


def draw_samples(backbone: str, path: Path, *, side: int = 8, seed: int = 0) -> None:
    """Write ``side`` x ``side`` generated pictures as one picture."""
    pictures = generate_pictures(backbone, side * side, seed)
    size = pictures.shape[1]
    sheet = pictures.reshape(side, side, size, size, 3).permute(0, 2, 1, 3, 4)
    Image.fromarray(sheet.reshape(side * size, side * size, 3).numpy()).save(path)


@torch.inference_mode()
def infill(backbone: str, texts: list[str], seed: int = 0) -> list[tuple[str, str]]:
    """Hide two fifths of each text's tokens and fill them, the surest one first.

    Returns
    -------
    list of (str, str)
        Each text with its hidden tokens shown as ``[MASK]``, and infilled.
    """
    source, _ = locate_backbone(backbone)
    model: Any = load_backbone(source, device="cpu", dtype=torch.float32)
    # Features need no language-model head, so the backbone comes without it.
    with_head = AutoModelForMaskedLM.from_pretrained(source.location).float().eval()
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for text in texts:
        tokens = model.tokenize([text], 48)
        places = tokens.real[0].nonzero()[:, 0]
        count = max(1, round(HIDDEN_SHARE * len(places)))
        order = torch.randperm(len(places), generator=generator)[:count]
        ids = tokens.ids.clone()
        ids[0, places[order]] = model.mask_token_id
        shown = model.tokenizer.decode(ids[0, places])
        for _ in range(count):
            logits = with_head(input_ids=ids, attention_mask=tokens.attention).logits
            logits[0, :, model.mask_token_id] = -torch.inf
            probability, piece = logits[0].float().softmax(-1).max(-1)
            probability[ids[0] != model.mask_token_id] = -1
            surest = int(probability.argmax())
            ids[0, surest] = piece[surest]
        pairs.append((shown, model.tokenizer.decode(ids[0, places])))
    return pairs


def write_infilled(backbone: str, texts: list[str], path: Path) -> None:
    """Write a page of texts, hidden and infilled, beside the original."""
    lines = ["| hidden | infilled | original |", "|---|---|---|"]
    for text, pair in zip(texts, infill(backbone, texts), strict=True):
        cells = [cell.replace("|", "/").replace("\n", " ") for cell in (*pair, text)]
        lines.append(f"| {' | '.join(cells)} |")
    path.write_text("\n".join(lines) + "\n", "utf-8")
