"""Pretrain ``mdlm-tiny``: a small BERT trained as a masked diffusion model.

The objective is that of masked diffusion language models (MDLM, arXiv 2406.07524):
each text draws a masking rate t in (0, 1], masked tokens are predicted, and the
cross-entropy is weighted by 1/t. A share of each batch stays unmasked and trains the
alignment alone.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import WordPieceTrainer
from torch import nn
from torch.nn import functional
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from sklearn_difffeat.pretraining.corpus import read_texts
from sklearn_difffeat.pretraining.export import export
from sklearn_difffeat.pretraining.loop import Losses, Schedule, train
from sklearn_difffeat.pretraining.teachers import standardize

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
UNMASKED_SHARE = 0.4
MIN_RATE = 0.05
N_BUCKETS = 16
SHARES = {
    "openclipart": 0.2,
    "wordnet names": 0.25,
    "wordnet glosses": 0.3,
    "debian": 0.1,
    "brown": 0.15,
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


def _tokenizer_of_run(corpus: Path, out: Path) -> Any:
    """Train the run's tokenizer once: another call breaks ties in another way."""
    folder = out / "tokenizer"
    if not folder.exists():
        partial = out / "tokenizer.partial"
        tokenizer = train_tokenizer([record["text"] for record in read_texts(corpus)])
        tokenizer.save_pretrained(partial)
        partial.rename(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


class Texts:
    """Draws padded batches of token ids, sources mixed by their shares."""

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
        self.lengths = np.array([len(row) for row in self.ids])
        self.pad = tokenizer.pad_token_id
        sources = np.array([record["source"] for record in records])
        self.pools = {name: np.flatnonzero(sources == name) for name in SHARES}
        self.targets = None
        if targets:
            self.targets = standardize(np.load(corpus / "text-targets.npy"))

    def batch(self, size: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """Return ids (size, longest) padded, and the rows they come from.

        Texts of a batch have about one length, so that little of it is padding: of
        ``N_BUCKETS`` batches drawn at once and sorted by length, one is taken.
        """
        seed = int(torch.randint(2**31, (1,), generator=generator))
        random = np.random.default_rng(seed)
        counts = random.multinomial(N_BUCKETS * size, list(SHARES.values()))
        drawn = np.concatenate([
            random.choice(self.pools[name], count)
            for name, count in zip(SHARES, counts, strict=True)
        ])  # fmt: skip
        random.shuffle(drawn)
        by_length = drawn[np.argsort(self.lengths[drawn], kind="stable")]
        bucket = by_length.reshape(N_BUCKETS, size)[random.integers(N_BUCKETS)]
        rows = random.permutation(bucket)
        longest = self.lengths[rows].max()
        ids = np.full((size, longest), self.pad)
        for i, row in enumerate(rows):
            ids[i, : len(self.ids[row])] = self.ids[row]
        return torch.from_numpy(ids), torch.from_numpy(rows)


class AlignedBert(nn.Module):
    """A BERT and, when a teacher is given, the linear map to the teacher's feature."""

    def __init__(self, model: BertForMaskedLM, width: int | None, block: int) -> None:
        super().__init__()
        self.model = model
        self.align_block = block
        hidden = model.config.hidden_size
        self.projector = nn.Linear(hidden, width) if width else None

    def forward(
        self, ids: torch.Tensor, real: torch.Tensor, predict: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return logits of the positions to predict and the projected, pooled block."""
        caught = []
        layer = self.model.bert.encoder.layer[self.align_block - 1]

        def catch(module: nn.Module, args: Any, output: Any) -> None:
            caught.append(output[0] if isinstance(output, tuple) else output)

        hook = layer.register_forward_hook(catch)
        hidden = self.model.bert(ids, attention_mask=(ids != 0).long())[0]
        hook.remove()
        logits = self.model.cls(hidden[predict])
        if self.projector is None:
            return logits, None
        weight = real.unsqueeze(-1).float()
        pooled = (caught[0].float() * weight).sum(1) / weight.sum(1).clamp(min=1)
        return logits, self.projector(pooled)


def pretrain_text(
    corpus: str | Path,
    out: str | Path,
    schedule: Schedule,
    *,
    align: float = 1.0,
    align_block: int = 6,
    clean_share: float = UNMASKED_SHARE,
    diffusion: float = 0.2,
    device: str = "cpu",
    **changes: Any,
) -> Path:
    """Train or resume, and export to ``out/export`` in the hub's layout.

    Parameters are those of :func:`sklearn_difffeat.pretraining.image.pretrain_image`.
    """
    torch.manual_seed(schedule.seed)
    tokenizer = _tokenizer_of_run(Path(corpus), Path(out))
    texts = Texts(Path(corpus), tokenizer, targets=align > 0)
    config = BertConfig(**CONFIG | {"vocab_size": len(tokenizer)} | changes)
    width = None if texts.targets is None else texts.targets.shape[1]
    trained = AlignedBert(BertForMaskedLM(config), width, align_block).to(device)
    ema = copy.deepcopy(trained).requires_grad_(False)
    mask_id = tokenizer.mask_token_id
    special = torch.tensor([tokenizer.convert_tokens_to_ids(s) for s in SPECIAL])
    special = special[special != tokenizer.unk_token_id]
    n_unmasked = round(clean_share * schedule.batch_size)

    def losses_of(generator: torch.Generator) -> Losses:
        ids, rows = texts.batch(schedule.batch_size, generator)
        real = ~torch.isin(ids, special)
        # Evenly spread rates lower the variance of the 1/t weights.
        start = torch.rand(1, generator=generator)
        steps = torch.arange(len(ids)) / (len(ids) - n_unmasked)
        rate = MIN_RATE + (1 - MIN_RATE) * ((start + steps) % 1)
        hidden = torch.rand(ids.shape, generator=generator) < rate.unsqueeze(1)
        hidden &= real
        hidden[:n_unmasked] = False
        corrupted = ids.masked_fill(hidden, mask_id)
        with torch.autocast(device, dtype=torch.bfloat16):
            logits, projected = trained(
                corrupted.to(device), real.to(device), hidden.to(device)
            )
        entropy = functional.cross_entropy(
            logits.float().cpu(), ids[hidden], reduction="none"
        )
        weight = (1 / rate).unsqueeze(1).expand(ids.shape)[hidden]
        losses = {"diffusion": (weight * entropy).sum() / real[n_unmasked:].sum()}
        losses["loss"] = diffusion * losses["diffusion"]
        if projected is not None and texts.targets is not None:
            target = texts.targets[rows].to(device)
            similarity = functional.cosine_similarity(projected, target)
            losses["alignment"] = (1 - similarity).mean().cpu()
            losses["loss"] = losses["loss"] + align * losses["alignment"]
        return losses

    recipe = {
        "align": align,
        "align_block": align_block,
        "clean_share": clean_share,
        "diffusion": diffusion,
    }
    train(losses_of, trained, ema, schedule, Path(out), recipe)
    # The one in use has learnt to truncate, and would save that.
    tokenizer = _tokenizer_of_run(Path(corpus), Path(out))
    return export(Path(out), {"": ema.model, "tokenizer": tokenizer})
