"""Pretrain ``mdlm-tiny``: a small BERT trained as a masked diffusion model.

The objective is that of masked diffusion language models (MDLM, arXiv 2406.07524):
each text draws a masking rate t in (0, 1], masked tokens are predicted, and the
cross-entropy is weighted by 1/t. Words are masked whole. A share of each batch stays
unmasked and trains the alignment alone. Texts are packed into rows of one length, and
none sees another.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import WordPieceTrainer
from torch import nn
from torch.nn import functional
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from sklearn_difffeat.backbones import locate_backbone
from sklearn_difffeat.pretraining.corpus import read_texts
from sklearn_difffeat.pretraining.export import export
from sklearn_difffeat.pretraining.loop import Losses, Schedule, train
from sklearn_difffeat.pretraining.teachers import native_autocast, standardize

VOCABULARY = 8192
MAX_TOKENS = 48
CONFIG = {
    "hidden_size": 256,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "intermediate_size": 1024,
    "max_position_embeddings": 128,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
UNMASKED_SHARE = 0.6
MIN_RATE = 0.05
ROW_TOKENS = 96
SHARES = {
    "openclipart": 0.02,
    "emoji names": 0.04,
    "composed titles": 0.22,
    "wordnet names": 0.32,
    "wordnet glosses": 0.24,
    "debian": 0.06,
    "brown": 0.10,
}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def train_tokenizer(texts: list[str], size: int = VOCABULARY) -> Any:
    """Train a lower-casing WordPiece tokenizer of ``size`` pieces."""

    def wordpiece(**options: Any) -> Tokenizer:
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", **options))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return tokenizer

    draft = wordpiece()
    trainer = WordPieceTrainer(
        vocab_size=size, special_tokens=SPECIAL, show_progress=False
    )
    draft.train_from_iterator(texts, trainer)
    # The trainer numbers single characters in another order at each call.
    pieces = SPECIAL + sorted(set(draft.get_vocab()) - set(SPECIAL))
    tokenizer = wordpiece(vocab={piece: i for i, piece in enumerate(pieces)})
    cls, sep = SPECIAL.index("[CLS]"), SPECIAL.index("[SEP]")
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", sep), ("[CLS]", cls))
    names = ["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=CONFIG["max_position_embeddings"],
        **dict(zip(names, SPECIAL, strict=True)),
    )


def _tokenizer_of_run(corpus: Path, out: Path, start_from: str | None = None) -> Any:
    """Train the run's tokenizer once: another call breaks ties in another way.

    A run that starts from trained weights keeps their tokenizer.
    """
    folder = out / "tokenizer"
    if not folder.exists():
        partial = out / "tokenizer.partial"
        if start_from:
            location = locate_backbone(start_from)[0].location
            tokenizer = PreTrainedTokenizerFast.from_pretrained(location)
        else:
            texts = [record["text"] for record in read_texts(corpus)]
            tokenizer = train_tokenizer(texts)
        tokenizer.save_pretrained(partial)
        partial.rename(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


@dataclass(frozen=True)
class Packed:
    """Texts one after the other in rows of one length.

    Attributes
    ----------
    ids, position : Tensor of shape (n_rows, row_tokens)
        Tokens, and their places in their text.
    text : Tensor of shape (n_rows, row_tokens)
        Number of the text among those of the batch; -1 for padding.
    rows : Tensor of shape (n_texts,)
        Where the texts lie in the corpus.
    """

    ids: torch.Tensor
    position: torch.Tensor
    text: torch.Tensor
    rows: torch.Tensor

    def attention(self) -> torch.Tensor:
        """Return bool (n_rows, 1, row_tokens, row_tokens): none sees another text."""
        return self.text[:, None, :, None] == self.text[:, None, None, :]

    def mean(self, hidden: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
        """Return the mean of the counted tokens of every text, (n_texts, width)."""
        place = self.text[counted].to(hidden.device)
        values = hidden[counted.to(hidden.device)]
        sums = values.new_zeros(len(self.rows), hidden.shape[-1])
        counts = values.new_zeros(len(self.rows))
        sums = sums.index_add(0, place, values)
        counts = counts.index_add(0, place, torch.ones_like(values[:, 0]))
        return sums / counts.clamp(min=1).unsqueeze(1)


def build_model(
    n_pieces: int, start_from: str | None = None, **changes: Any
) -> BertForMaskedLM:
    """Return a new BERT with a head, or one with trained weights."""
    if start_from:
        location = locate_backbone(start_from)[0].location
        return BertForMaskedLM.from_pretrained(location, dtype=torch.float32).train()
    return BertForMaskedLM(BertConfig(**CONFIG | {"vocab_size": n_pieces} | changes))


class Texts:
    """Draws packed batches of token ids, sources mixed by their shares."""

    def __init__(self, corpus: Path, tokenizer: Any, targets: bool) -> None:
        records = read_texts(corpus)
        encoded = tokenizer(
            [record["text"] for record in records],
            truncation=True,
            max_length=MAX_TOKENS,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        self.ids = [np.array(row, dtype=np.int64) for row in encoded]
        self.pad = tokenizer.pad_token_id
        sources = np.array([record["source"] for record in records])
        pools = {name: np.flatnonzero(sources == name) for name in SHARES}
        self.pools = {name: pool for name, pool in pools.items() if len(pool)}
        self.targets = None
        if targets:
            self.targets = standardize(np.load(corpus / "text-targets.npy"))

    def batch(self, n_rows: int, generator: torch.Generator) -> Packed:
        """Return ``n_rows`` rows of ``ROW_TOKENS``, each filled while texts fit."""
        seed = int(torch.randint(2**31, (1,), generator=generator))
        random = np.random.default_rng(seed)
        shares = np.array([SHARES[name] for name in self.pools])
        shape = (n_rows, ROW_TOKENS)
        ids, position = np.full(shape, self.pad), np.zeros(shape, dtype=np.int64)
        text = np.full(shape, -1)
        rows: list[int] = []
        row, filled = 0, 0
        while True:
            name = random.choice(list(self.pools), p=shares / shares.sum())
            chosen = int(random.choice(self.pools[name]))
            length = len(self.ids[chosen])
            if filled + length > ROW_TOKENS:
                row, filled = row + 1, 0
            if row == n_rows:
                break
            span = row, slice(filled, filled + length)
            ids[span], position[span] = self.ids[chosen], np.arange(length)
            text[span] = len(rows)
            rows.append(chosen)
            filled += length
        parts = (ids, position, text, np.array(rows))
        return Packed(*map(torch.from_numpy, parts))


def hide_words(
    ids: torch.Tensor,
    rate: torch.Tensor,
    continues: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Return which tokens are hidden: whole words, at the rate of each token's text.

    Parameters
    ----------
    ids : Tensor of shape (n_rows, row_tokens)
    rate : Tensor of shape (n_rows, row_tokens)
    continues : bool Tensor of shape (n_pieces,)
        Whether a piece goes on with the word of the piece before.
    generator : torch.Generator
    """
    draws = torch.rand(ids.shape, generator=generator)
    places = torch.arange(ids.shape[1]).expand_as(ids)
    first = places.masked_fill(continues[ids], 0).cummax(1).values
    return draws.gather(1, first) < rate


class AlignedBert(nn.Module):
    """A BERT and, when a teacher is given, the linear map to the teacher's feature."""

    def __init__(self, model: BertForMaskedLM, width: int | None, block: int) -> None:
        super().__init__()
        self.model = model
        self.align_block = block
        hidden = model.config.hidden_size
        self.projector = nn.Linear(hidden, width) if width else None

    def forward(
        self,
        ids: torch.Tensor,
        packed: Packed,
        real: torch.Tensor,
        predict: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return logits of the positions to predict and the projected, pooled block."""
        caught = []
        layer = self.model.bert.encoder.layer[self.align_block - 1]

        def catch(module: nn.Module, args: Any, output: Any) -> None:
            caught.append(output[0] if isinstance(output, tuple) else output)

        hook = layer.register_forward_hook(catch)
        hidden = self.model.bert(
            ids,
            attention_mask=packed.attention().to(ids.device),
            position_ids=packed.position.to(ids.device),
        )[0]
        hook.remove()
        logits = self.model.cls(hidden[predict])
        if self.projector is None:
            return logits, None
        return logits, self.projector(packed.mean(caught[0].float(), real))


def pretrain_text(
    corpus: str | Path,
    out: str | Path,
    schedule: Schedule,
    *,
    align: float = 1.0,
    align_block: int = 6,
    clean_share: float = UNMASKED_SHARE,
    diffusion: float = 0.2,
    start_from: str | None = None,
    device: str = "cpu",
    **changes: Any,
) -> Path:
    """Train or resume, and export to ``out/export`` in the hub's layout.

    Parameters are those of :func:`sklearn_difffeat.pretraining.image.pretrain_image`;
    the batch size counts rows of ``ROW_TOKENS`` tokens.
    """
    torch.manual_seed(schedule.seed)
    tokenizer = _tokenizer_of_run(Path(corpus), Path(out), start_from)
    texts = Texts(Path(corpus), tokenizer, targets=align > 0)
    model = build_model(len(tokenizer), start_from, **changes)
    width = None if texts.targets is None else texts.targets.shape[1]
    trained = AlignedBert(model, width, align_block).to(device)
    ema = copy.deepcopy(trained).requires_grad_(False)
    mask_id = tokenizer.mask_token_id
    special = torch.tensor([tokenizer.convert_tokens_to_ids(s) for s in SPECIAL])
    special = special[special != tokenizer.unk_token_id]
    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    continues = torch.tensor([piece.startswith("##") for piece in pieces])

    def losses_of(generator: torch.Generator) -> Losses:
        packed = texts.batch(schedule.batch_size, generator)
        ids, n_texts = packed.ids, len(packed.rows)
        real = ~torch.isin(ids, special)
        n_masked = n_texts - round(clean_share * n_texts) if align > 0 else n_texts
        # Evenly spread rates lower the variance of the 1/t weights.
        start = torch.rand(1, generator=generator)
        rates = torch.zeros(n_texts + 1)
        chosen = torch.randperm(n_texts, generator=generator)[:n_masked]
        spread = (start + torch.arange(n_masked) / n_masked) % 1
        rates[chosen] = MIN_RATE + (1 - MIN_RATE) * spread
        # Padding is no text: -1 is the last entry, which stays 0.
        rate = rates[packed.text]
        hidden = hide_words(ids, rate, continues, generator) & real
        corrupted = ids.masked_fill(hidden, mask_id)
        with native_autocast(device):
            logits, projected = trained(
                corrupted.to(device), packed, real, hidden.to(device)
            )
        entropy = functional.cross_entropy(
            logits.float().cpu(), ids[hidden], reduction="none"
        )
        n_counted = (real & (rate > 0)).sum()
        losses = {"diffusion": (entropy / rate[hidden]).sum() / n_counted}
        losses["loss"] = diffusion * losses["diffusion"]
        if projected is not None and texts.targets is not None:
            target = texts.targets[packed.rows].to(device)
            similarity = functional.cosine_similarity(projected, target)
            losses["alignment"] = (1 - similarity).mean().cpu()
            losses["loss"] = losses["loss"] + align * losses["alignment"]
        return losses

    recipe = {
        "align": align,
        "align_block": align_block,
        "clean_share": clean_share,
        "diffusion": diffusion,
        "start_from": start_from and Path(start_from).name,
    }
    train(losses_of, trained, ema, schedule, Path(out), recipe)
    # The one in use has learnt to truncate, and would save that.
    tokenizer = _tokenizer_of_run(Path(corpus), Path(out))
    return export(Path(out), {"": ema.model, "tokenizer": tokenizer})
