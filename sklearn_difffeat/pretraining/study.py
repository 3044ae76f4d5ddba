"""What a teacher, a width, a depth and a resolution bring in equal minutes.

Every variant is trained from nothing for the same time and judged by the mAP on folds
of training groups, noise-free, at its best block. Minutes are few, so this ranks what
is affordable, not what is best in the end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sklearn_difffeat import describe_backbone
from sklearn_difffeat.datasets import load_openclipart
from sklearn_difffeat.pretraining.contest import Contest
from sklearn_difffeat.pretraining.image import pretrain_image
from sklearn_difffeat.pretraining.loop import Schedule
from sklearn_difffeat.pretraining.reading import TRANSFORMERS, map_places
from sklearn_difffeat.pretraining.text import pretrain_text

UNALIGNED = {"align": 0.0, "align_map": 0.0}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "image": {
        "released: 256 wide, 8 blocks, 64 x 64": {},
        "without a teacher": UNALIGNED,
        "384 wide": {"num_attention_heads": 12},
        "4 blocks": {"num_layers": 4, "align_block": 3},
        "96 x 96": {"sample_size": 96},
    },
    "text": {
        "released: 256 wide, 6 blocks": {},
        "without a teacher": {"align": 0.0, "diffusion": 1.0},
        "384 wide": {"hidden_size": 384, "intermediate_size": 1536},
        "3 blocks": {"num_hidden_layers": 3, "align_block": 3},
    },
}
RECIPES = {"image": (pretrain_image, 32, 5e-4), "text": (pretrain_text, 16, 7e-4)}


def study(corpus: Path, out: Path, kind: str, minutes: float) -> pd.DataFrame:
    """Train and judge each variant, and print a table.

    Parameters
    ----------
    corpus, out : Path
        The packed corpus, and a folder for the runs; one that is there is resumed.
    kind : {"image", "text"}
    minutes : float
        Of training for each variant.

    Returns
    -------
    DataFrame
        One row a variant: batches seen, size in MB, best block, mAP.
    """
    bunch = load_openclipart()
    contest = Contest(bunch.target, bunch.groups, bunch.split == "test")
    train, batch_size, learning_rate = RECIPES[kind]
    rows: dict[str, dict[str, Any]] = {}
    for name, changes in VARIANTS[kind].items():
        run = out / f"{kind}-{len(rows)}"
        plan = Schedule(
            steps=1_000_000,
            batch_size=batch_size,
            learning_rate=learning_rate,
            minutes=minutes,
            ema_decay=0.99,
        )
        folder = train(corpus, run, plan, **changes)
        transformer = TRANSFORMERS[kind](folder, cache=True)
        places = map_places(contest, transformer, bunch.data[kind], kind, [0])[0]
        state = torch.load(run / "checkpoint.pt", weights_only=True)
        rows[name] = {
            "batches": state["step"],
            "MB": describe_backbone(folder).size_mb,
            "best block": places.idxmax(),
            "mAP": places.max(),
        }
        print(pd.DataFrame.from_dict(rows, orient="index").round(3), flush=True)
    threads = torch.get_num_threads()
    print(f"{minutes:g} minutes each, batches of {batch_size}, {threads} threads")
    return pd.DataFrame.from_dict(rows, orient="index")
