"""The model card of an embedded backbone: what it saw, how it was trained, for what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sklearn_difffeat.pretraining.corpus import EMOJI, ICON, OPENCLIPART

HEAD = """---
license: {license}
library_name: {library}
tags: [diffusion, feature-extraction]
---

# {name}

"""

IMAGE = """A small diffusion Transformer over pixels: `DiTTransformer2DModel`, 8 blocks
of width 256, patches of 8 x 8 pixels, pictures of 64 x 64, no VAE, no classes (the null
class stands for every picture). It ships with `sklearn_difffeat` so that the package
works without network or GPU.

## Data

| source | pictures | licence |
|---|---|---|
| OpenClipart drawings outside the data set | {n_clipart:,} | public domain |
| Emoji: Noto Emoji (`emoji-datasource-google`), Twemoji \
(`emoji-datasource-twitter`), Fluent Emoji 3D (`@lobehub/fluent-emoji-3d`) \
| {n_emoji:,} | Apache-2.0; CC-BY-4.0 (copyright Twitter, Inc and other contributors); \
MIT |
| Icons, drawn by Iconify's collections (`@iconify-json/...`): `game-icons`, \
`emojione`, `fxemoji`, `noto-v1`, `streamline-emojis`, `streamline-freehand-color`, \
`streamline-kameleon-color`, `streamline-ultimate-color`, `flat-color-icons` \
| {n_icons:,} | CC-BY-3.0 (game-icons.net's authors); CC-BY-4.0 (EmojiOne, \
Streamline); Apache-2.0; MIT |
| CIFAR-10 training photographs (32 x 32, enlarged), a tenth held back | {n_photos:,} \
| published for research, no licence stated |

Pictures with the same pixels as any item of the bundled data set, of either part, or as
any other drawing of OpenClipart's test groups were left out. The first run, whose
weights the last one started from, saw 20,000 of the photographs and 2,416 drawings of
the training groups as well; the icons joined at step 4,100 of the last one. No label,
keyword or class name was used.

## Recipe

`python -m sklearn_difffeat.pretraining image`. Cosine noise schedule, 1,000
timesteps; the model predicts the clean picture (loss weighted by min-SNR, gamma 5). A
share of each batch is noise-free. Each token of block 6 is aligned (cosine, after a
linear map) with the last feature map of a frozen EfficientNet-Lite0 trained on
ImageNet, at the token's place, and their mean with the mean of that map, after REPA
(arXiv 2410.06940), so part of what the features know of objects is this teacher's. The
first run aligned the mean with the teacher's pooled feature of the uncropped picture,
and tokens from its 3,400th step on. Augmentation: crops, flips, contrast, colours, and
rectangles of tokens pasted from one picture and its map into another. Exponential
average of the weights, stored in half precision.
"""

TAIL = """
{steps:,} steps of {batch_size} {unit} in the last run, AdamW, learning rate with
warm-up and linear decay, seed {seed}, on shared CPU cores. Last losses: {losses}.

Each line is a start, which went on from the last checkpoint of its run, or, where a run
begins, from the weights of the run before; where minutes were planned the decay
followed the clock. The loss curves are those of the last run.

{history}

![Losses by training step](loss.png)

`digests.npy` holds the first 64 bits of the SHA-256 of everything it saw:
{digest_rule}.

## Good for

Trying the package out, tests, teaching, and where nothing larger can be had:
{good}.

## Not good for

{bad}
It is a small model, trained for a few hours on shared CPU cores; a backbone from the
hub is a change of one parameter. Its best block and timestep say as much about the
alignment as about diffusion: do not read them as a finding about diffusion models.
"""

LOSSES = ("diffusion", "alignment", "map alignment")

FACTS: dict[str, dict[str, Any]] = {
    "dit-tiny": {
        "body": IMAGE,
        "license": "bsd-3-clause",
        "library": "diffusers",
        "unit": "pictures",
        "digest_rule": "of the pixels of each picture, before augmentation",
        "good": "features of drawings, icons and small photographs",
        "bad": "Generating pictures, fine detail, faces, lettering, large scenes.",
    },
}


# What a start of a run may change, and how the card calls it.
HISTORY = {
    "run": "run",
    "first_step": "from step",
    "batch_size": "batch size",
    "steps": "planned steps",
    "minutes": "planned minutes",
    "learning_rate": "learning rate",
    "decay_share": "share of decay",
    "ema_decay": "decay of the average",
    "clean_share": "noise-free share",
    "diffusion": "weight, diffusion",
    "align": "weight, pooled alignment",
    "align_map": "weight, alignment by token",
}


def history_table(starts: list[dict[str, Any]]) -> str:
    """Return a Markdown table with a line for each start, of all the runs."""
    run = 1
    numbered = []
    for number, start in enumerate(starts):
        # A killed run is started from its checkpoint, whatever it began with.
        run += number > 0 and start["first_step"] == 0
        numbered.append({"run": run} | start)
    starts = numbered
    columns = {key: name for key, name in HISTORY.items() if key in starts[-1]}
    rows = [list(columns.values()), ["---"] * len(columns)]
    for start in starts:
        values = [start.get(key) for key in columns]
        rows.append(["" if value is None else f"{value:g}" for value in values])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def draw_losses(log: list[dict[str, float]], path: Path) -> None:
    """Draw each loss over the steps, smoothed over 20 entries of the log."""
    from matplotlib.figure import Figure

    names = [name for name in LOSSES if name in log[-1]]
    figure = Figure(figsize=(3.6 * len(names), 2.8), layout="constrained")
    for name, axes in zip(names, figure.subplots(1, len(names), squeeze=False)[0],
                          strict=True):  # fmt: skip
        known = [entry for entry in log if name in entry]
        steps = np.array([entry["step"] for entry in known])
        values = np.array([entry[name] for entry in known])
        window = min(20, len(values))
        smooth = np.convolve(values, np.ones(window) / window, mode="valid")
        axes.plot(steps, values, color="0.8", linewidth=0.8)
        axes.plot(steps[window - 1 :], smooth, color="tab:blue")
        axes.set(title=f"{name} loss", xlabel="training step", ylabel="loss")
        axes.set_ylim(0, float(np.quantile(values, 0.98)) * 1.1)
    figure.savefig(path, dpi=120)


def _count(corpus: Path) -> tuple[dict[str, int], list[str]]:
    with np.load(corpus / "images.npz") as images:
        source = images["drawing_source"]
        counts = {
            "n_clipart": int((source == OPENCLIPART).sum()),
            "n_emoji": int((source == EMOJI).sum()),
            "n_icons": int((source == ICON).sum()),
            "n_photos": len(images["photos"]),
        }
        return counts, images["digests"].tolist()


def write_card(
    name: str,
    corpus: Path,
    schedule: dict[str, Any],
    log: list[dict[str, float]],
    starts: list[dict[str, Any]],
    seen: np.ndarray,
    folder: Path,
) -> None:
    """Write ``README.md`` and ``digests.npy`` beside the weights.

    ``starts`` are those of all runs, and ``seen`` the digests of runs before.
    """
    facts = FACTS[name]
    counts, digests = _count(corpus)
    last = {
        k: np.mean([e[k] for e in log[-20:] if k in e]) for k in LOSSES if k in log[-1]
    }
    losses = ", ".join(f"{key} {value:.3f}" for key, value in last.items())
    values = {**facts, **counts, **schedule, "name": name, "losses": losses}
    values["steps"] = log[-1]["step"]
    values["history"] = history_table(starts)
    card = (HEAD + facts["body"] + TAIL).format(**values)
    (folder / "README.md").write_text(card, "utf-8")
    # 64 of the 256 bits tell millions of items apart at a quarter of the size.
    short = np.array([int(digest[:16], 16) for digest in digests], dtype=np.uint64)
    np.save(folder / "digests.npy", np.union1d(seen, short))
