"""How well a masked diffusion model predicts held-out texts, by masking rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional
from transformers import AutoModelForMaskedLM

from sklearn_difffeat.backbones import load_backbone, locate_backbone
from sklearn_difffeat.backbones._base import TextBackbone

RATES = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
MAX_TOKENS = 48


@torch.inference_mode()
def masked_losses(
    backbone: str | Path,
    texts: Sequence[str],
    rates: Sequence[float] = RATES,
    *,
    batch_size: int = 16,
    seed: int = 0,
) -> pd.Series:
    """Return the cross-entropy of hidden tokens, in nats, at each masking rate.

    A share of each text's tokens is hidden, one at least; the same ones for every
    backbone with the same tokenizer.

    Parameters
    ----------
    backbone : str or path
        Name or folder of a masked language model.
    texts : sequence of str
    rates : sequence of float
        In (0, 1].
    batch_size, seed : int

    Returns
    -------
    Series
        Mean over the hidden tokens, indexed by rate.
    """
    source, _ = locate_backbone(backbone)
    reader = load_backbone(source, device="cpu", dtype=torch.float32)
    assert isinstance(reader, TextBackbone)
    # Features need no language-model head, so the backbone comes without it.
    model = AutoModelForMaskedLM.from_pretrained(source.location).float().eval()
    found = {}
    for rate in rates:
        generator = torch.Generator().manual_seed(seed)
        total, count = 0.0, 0
        for start in range(0, len(texts), batch_size):
            tokens = reader.tokenize(
                list(texts[start : start + batch_size]), MAX_TOKENS
            )
            draws = torch.rand(tokens.ids.shape, generator=generator)
            draws = draws.masked_fill(~tokens.real, torch.inf)
            n_hidden = (rate * tokens.real.sum(1)).round().clamp(min=1)
            hidden = (draws.argsort(1).argsort(1) < n_hidden[:, None]) & tokens.real
            ids = tokens.ids.masked_fill(hidden, reader.mask_token_id)
            logits = model(input_ids=ids, attention_mask=tokens.attention).logits
            loss = functional.cross_entropy(
                logits[hidden], tokens.ids[hidden], reduction="sum"
            )
            total, count = total + float(loss), count + int(hidden.sum())
        found[rate] = total / count
    return pd.Series(found, name="nats", dtype=float).rename_axis("masking rate")


def compare_perplexity(
    backbones: dict[str, str | Path], texts: Sequence[str]
) -> pd.DataFrame:
    """Return the perplexity of hidden tokens: a row a backbone, a column a rate.

    ``all rates`` is that of the mean loss over evenly spread rates, which bounds the
    perplexity of the texts themselves from above (the negative ELBO of MDLM).
    """
    losses = pd.DataFrame({k: masked_losses(v, texts) for k, v in backbones.items()}).T
    # The trapezoids between the rates, of which the ends stand for what is beyond.
    rates = np.array([0.0, *losses.columns, 1.0])
    values = np.hstack([losses.iloc[:, :1], losses, losses.iloc[:, -1:]])
    losses["all rates"] = np.trapezoid(values, rates, axis=1)
    return np.exp(losses)
