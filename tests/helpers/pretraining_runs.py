"""A corpus of a few texts and of noise in the form that ``pack`` writes; short runs."""

import json
import shutil

import numpy as np
import torch
from transformers import BertConfig, BertModel

from sklearn_difffeat.backbones import locate_backbone
from sklearn_difffeat.datasets import load_openclipart
from sklearn_difffeat.pretraining.image import pretrain_image
from sklearn_difffeat.pretraining.loop import Schedule
from sklearn_difffeat.pretraining.text import pretrain_text
from sklearn_difffeat.pretraining.text_corpus import text_digest

SMALL_DIT = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 8}
SMALL_BERT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def write_corpus(folder):
    random = np.random.default_rng(0)
    np.savez(
        folder / "images.npz",
        drawings=random.integers(0, 256, (24, 96, 96, 3), dtype=np.uint8),
        drawing_source=np.arange(24, dtype=np.uint8) % 2,
        photos=random.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8),
        digests=np.array(["0" * 64] * 36),
    )
    for kind, shape in (("drawings", (24, 12, 6, 6)), ("photos", (12, 12, 4, 4))):
        maps = random.standard_normal(shape).astype(np.float16)
        np.save(folder / f"{kind}-maps.npy", maps)
    titles = load_openclipart(subset="train").data["text"][:100]
    sources = ["composed titles", "wordnet names", "wordnet glosses", "debian", "brown"]
    records = [
        {"source": sources[i % 5], "text": text, "digest": text_digest(text)}
        for i, text in enumerate(titles)
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "texts.jsonl").write_text(lines)
    write_encoder(folder / "encoder")
    return folder


def write_encoder(folder):
    """Save a small encoder in the layout of MiniLM's package."""
    torch.manual_seed(0)
    tokenizer = locate_backbone("mdlm-tiny")[0].find("tokenizer.json")
    n_pieces = len(json.loads(tokenizer.read_text("utf-8"))["model"]["vocab"])
    model = BertModel(BertConfig(vocab_size=n_pieces, **SMALL_BERT))
    # New layers are nearly the identity, which leaves little to tell apart.
    for name, weight in model.named_parameters():
        if name.endswith("weight") and weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    shutil.copy(tokenizer, folder / "tokenizer.json")


def schedule(steps):
    return Schedule(
        steps=steps, batch_size=10, learning_rate=1e-3, warmup=2, checkpoint_every=5
    )


def run(kind, corpus, out, steps):
    if kind == "image":
        return pretrain_image(corpus, out, schedule(steps), align_block=1, **SMALL_DIT)
    return adapt(corpus, out, schedule(steps))


def adapt(corpus, out, plan, **options):
    options = {"head_batches": 2, "diffusion": 1.0} | options
    return pretrain_text(corpus, out, plan, encoder=corpus / "encoder", **options)
