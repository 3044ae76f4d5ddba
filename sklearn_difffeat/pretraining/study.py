"""What a teacher, a width, a depth, a patch and a resolution bring in equal minutes.

Every variant is trained from nothing for the same time and judged by the mAP on folds
of training groups, at its best block and timestep. Minutes are few, so this ranks what
is affordable, not what is best in the end.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
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

UNALIGNED = {"align": 0.0, "align_map": 0.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "released: 256 wide, 8 blocks, 64 x 64": {},
    "without a teacher": UNALIGNED,
    "4 blocks": {"num_layers": 4, "align_block": 3},
    "4 blocks, 384 wide": {
        "num_layers": 4,
        "align_block": 3,
        "num_attention_heads": 12,
    },
    "patches of 16 x 16": {"patch_size": 16},
    "patches of 4 x 4": {"patch_size": 4},
    "96 x 96": {"sample_size": 96},
}
# Without a teacher the best features may be those of a noisy pass.
TIMESTEPS = [0, 200]
BATCH_SIZE = 32


def study(
    corpus: Path,
    out: Path,
    minutes: float,
    numbers: Collection[int] | None = None,
) -> pd.DataFrame:
    """Train and judge each variant, and print a table.

    Parameters
    ----------
    corpus, out : Path
        The packed corpus, and a folder for the runs. One that has ended is judged
        again; one that was cut off begins anew, so that all had equal minutes.
    minutes : float
        Of training for each variant.
    numbers : collection of int, optional
        The variants, counted from 0; all by default. Others can run beside them.

    Returns
    -------
    DataFrame
        One row a variant: batches seen, size in MB, best block and timestep, mAP.

    Raises
    ------
    ValueError
        When there is no variant of a number.
    """
    last = len(VARIANTS) - 1
    for number in numbers or ():
        if not 0 <= number <= last:
            raise ValueError(f"numbers={number}: there are variants 0 to {last}.")
    bunch = load_openclipart()
    contest = Contest(bunch.target, bunch.groups, bunch.split == "test")
    plan = Schedule(
        steps=1_000_000,
        batch_size=BATCH_SIZE,
        learning_rate=5e-4,
        minutes=minutes,
        ema_decay=0.99,
    )
    rows: dict[str, dict[str, Any]] = {}
    for number, (name, changes) in enumerate(VARIANTS.items()):
        if numbers is not None and number not in numbers:
            continue
        run = out / f"image-{number}"
        folder = run / "export"
        if not folder.exists():
            shutil.rmtree(run, ignore_errors=True)
            pretrain_image(corpus, run, plan, **changes)
        transformer = TRANSFORMERS["image"](folder, cache=True)
        places = map_places(
            contest, transformer, bunch.data["image"], "image", TIMESTEPS
        )
        block, timestep = places.stack().idxmax()
        rows[name] = {
            "batches": torch.load(run / "checkpoint.pt", weights_only=True)["step"],
            "MB": describe_backbone(folder).size_mb,
            "block": block,
            "timestep": timestep,
            "mAP": places.max(axis=None),
        }
        print(pd.DataFrame.from_dict(rows, orient="index").round(3), flush=True)
    threads = torch.get_num_threads()
    print(f"{minutes:g} minutes each, batches of {BATCH_SIZE}, {threads} threads")
    return pd.DataFrame.from_dict(rows, orient="index")
