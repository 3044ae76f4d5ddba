"""A corpus of a few texts and of noise in the form that recipes write; short runs."""

import json
import shutil

import numpy as np
import torch
from transformers import BertConfig, BertModel

from sklearn_difffeat.backbones import locate_backbone
from sklearn_difffeat.backbones.feature_encoder import EfficientNetLiteEncoder
from sklearn_difffeat.datasets import load_openclipart
from sklearn_difffeat.pretraining.image import pretrain_image
from sklearn_difffeat.pretraining.loop import Schedule
from sklearn_difffeat.pretraining.text import pretrain_text
from sklearn_difffeat.pretraining.text_corpus import text_digest

# Of latents of 4 x 4 places, each of 4 x 4 pixels.
SMALL_DIT = {
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 20,
    "sample_size": 4,
}
N_PICTURES, N_HELD = 24, 4
SMALL_BERT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def small_encoder():
    torch.manual_seed(0)
    return EfficientNetLiteEncoder(
        stages=[[1, 3, 1, 1, 8], [2, 5, 2, 6, 12]],
        stem_channels=8,
        earlier=[0],
        latent_channels=20,
        feature_channels=36,
        block_out_channels=[8, 8, 12],
    ).eval()


def write_corpus(folder):
    write_latents(folder)
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


def write_latents(folder):
    """Save noise as latents: every third picture is a photograph, the rest pairs."""
    random = np.random.default_rng(0)
    n = N_PICTURES
    latents = random.standard_normal((n, 20, 4, 4)).astype(np.float16)
    np.save(folder / "latents.npy", latents)
    np.save(folder / "pooled.npy", random.standard_normal((n, 36)).astype(np.float16))
    np.save(folder / "thumbnails.npy", np.zeros((n, 48, 48, 3), dtype=np.uint8))
    names = [["photographs", ""] if i % 3 == 2 else ["google", f"thing {i // 6}"]
             for i in range(n)]  # fmt: skip
    (folder / "names.json").write_text(json.dumps(names))
    lines = "".join(json.dumps(f"{i + 1:016x}".ljust(64, "0")) + "\n" for i in range(n))
    (folder / "digests.jsonl").write_text(lines)
    things = np.array([f"thing {i}" for i in range(4)])
    vectors = random.standard_normal((4, 6)).astype(np.float16)
    np.savez(folder / "names.npz", names=things, vectors=vectors)


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
    make = {"image": draw, "text": adapt}
    return make[kind](corpus, out, schedule(steps))


def draw(corpus, out, plan, **options):
    options = {"block": 1, "n_held": N_HELD} | SMALL_DIT | options
    return pretrain_image(corpus, out, plan, small_encoder(), **options)


def adapt(corpus, out, plan, **options):
    options = {"head_batches": 2, "diffusion": 1.0} | options
    return pretrain_text(corpus, out, plan, encoder=corpus / "encoder", **options)
