"""What a masked diffusion model fills in where a text is hidden."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMaskedLM

from sklearn_difffeat.backbones import load_backbone, locate_backbone

HIDDEN_SHARE = 0.4


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
