"""What lies beside exported weights: model card, losses, digests and licenses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sklearn_difffeat.pretraining.loop import HISTORY

LICENSE = Path(__file__).parent / "apache-2.0.txt"  # of both encoders
WINDOW = 20  # entries of the log that losses are averaged over
NO_LOSSES = {"loss", "step", "rows/s"}
LOSSES = """

![Losses by training step](loss.png)"""
STARTS = """

The run was stopped, and continued from its last checkpoint, at {steps}."""
CHANGES = """ Its
settings were changed:

{table}"""
# How long a start was meant to go on says nothing of the weights.
LIMITS = {"first_step", "steps", "minutes"}


def tell_starts(starts: Sequence[dict[str, Any]]) -> str:
    """Return where a run that was stopped continued, and what was changed there."""
    steps = " and ".join(f"step {start['first_step']:,}" for start in starts[1:])
    told = STARTS.format(steps=steps)
    last = starts[-1]
    differed = [
        name
        for name in last
        if name not in LIMITS and any(s.get(name) != last[name] for s in starts)
    ]
    return told + CHANGES.format(table=_table(starts, differed)) if differed else told


def _table(starts: Sequence[dict[str, Any]], differed: Sequence[str]) -> str:
    columns = ["first_step", *differed]
    rows = [[name.replace("_", " ") for name in columns], ["---"] * len(columns)]
    for start in starts:
        values = [start.get(name) for name in columns]
        rows.append(["" if value is None else str(value) for value in values])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def draw_losses(log: Sequence[dict[str, float]], path: Path) -> None:
    """Draw each loss over the steps, smoothed over some entries of the log."""
    from matplotlib.figure import Figure

    names = [name for name in log[-1] if name not in NO_LOSSES]
    figure = Figure(figsize=(3.6 * len(names), 2.8), layout="constrained")
    for name, axes in zip(names, figure.subplots(1, len(names), squeeze=False)[0],
                          strict=True):  # fmt: skip
        known = [entry for entry in log if name in entry]
        steps = np.array([entry["step"] for entry in known])
        values = np.array([entry[name] for entry in known])
        window = min(WINDOW, len(values))
        smooth = np.convolve(values, np.ones(window) / window, mode="valid")
        axes.plot(steps, values, color="0.8", linewidth=0.8)
        axes.plot(steps[window - 1 :], smooth, color="tab:blue")
        axes.set(title=f"{name} loss", xlabel="training step", ylabel="loss")
        axes.set_ylim(0, float(np.quantile(values, 0.98)) * 1.1 or 1.0)
    figure.savefig(path, dpi=120)


def last_losses(log: Sequence[dict[str, float]]) -> str:
    """Return each loss by its name, averaged over the last entries of the log."""
    told = []
    for name in log[-1] if log else ():
        if name not in NO_LOSSES:
            known = [entry[name] for entry in log[-WINDOW:] if name in entry]
            told.append(f"{name} {np.mean(known):.3f}")
    return ", ".join(told)


def write_card(
    folder: Path,
    template: str,
    facts: Mapping[str, Any],
    sources: Iterable[tuple[str, int, str]],
    digests: Iterable[int],
    log: Sequence[dict[str, float]],
    notice: str,
) -> None:
    """Write what lies beside the weights.

    These are ``README.md``, ``digests.npy``, ``LICENSE``, ``NOTICE`` and, once ten
    steps are logged, ``loss.png``.

    Parameters
    ----------
    folder : Path
        Exported weights, in the folder of their run.
    template : str
        Of the card; ``{sources}``, ``{losses}``, ``{history}`` and ``{steps}`` are
        told here.
    facts : mapping
        What else the template names.
    sources : iterable of (str, int, str)
        What was seen, how many of it, and its license.
    digests : iterable of int
        The first 64 bits of the SHA-256 of each item: they tell millions of items
        apart at a quarter of the size.
    log : sequence of dict
        Of the run.
    notice : str
        Who made the weights that these started from, and what was changed.
    """
    rows = (f"| {what} | {count:,} | {granted} |" for what, count, granted in sources)
    file = folder.parent / HISTORY
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    starts = [json.loads(line) for line in lines]
    # A start after the last step only exports.
    starts = [start for start in starts if start["first_step"] < start["steps"]]
    history = LOSSES if log else ""
    if len(starts) > 1:
        history += tell_starts(starts)
    card = template.format(**{
        **facts,
        "sources": "\n".join(rows),
        "losses": last_losses(log),
        "history": history,
        "steps": int(log[-1]["step"]) if log else 0,
    })  # fmt: skip
    (folder / "README.md").write_text(card, "utf-8")
    (folder / "NOTICE").write_text(notice, "utf-8")
    shutil.copyfile(LICENSE, folder / "LICENSE")
    np.save(folder / "digests.npy", np.unique(np.array([*digests], dtype=np.uint64)))
    if log:
        draw_losses(log, folder / "loss.png")
