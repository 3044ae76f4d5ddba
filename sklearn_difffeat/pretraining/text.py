"""Pretrain ``mdlm-tiny``: a small BERT trained as a masked diffusion model.

The objective is that of masked diffusion language models (MDLM, arXiv 2406.07524):
each text draws a masking rate t in (0, 1], masked tokens are predicted, and the
cross-entropy is weighted by 1/t. Words are masked whole. A share of each batch stays
unmasked and trains the alignment alone. Texts are packed into rows of one length, and
none sees another.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

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
from sklearn_difffeat.pretraining.teachers import native_autocast
from sklearn_difffeat.pretraining.texts import Packed, Texts, hide_words

VOCABULARY = 8192
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
    return _named(tokenizer)


def _named(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Name the special pieces, and forget any truncation of batches before."""
    tokenizer.no_truncation()
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
            file = locate_backbone(start_from)[0].find("tokenizer.json")
            tokenizer = _named(Tokenizer.from_file(str(file)))
        else:
            texts = [record["text"] for record in read_texts(corpus)]
            tokenizer = train_tokenizer(texts)
        tokenizer.save_pretrained(partial)
        partial.rename(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def build_model(
    n_pieces: int, start_from: str | None = None, **changes: Any
) -> BertForMaskedLM:
    """Return a new BERT with a head, or one with trained weights."""
    if start_from:
        location = locate_backbone(start_from)[0].location
        return BertForMaskedLM.from_pretrained(location, dtype=torch.float32).train()
    return BertForMaskedLM(BertConfig(**CONFIG | {"vocab_size": n_pieces} | changes))


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
