"""Write trained weights in the hub's layout, and bundle them with the package."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from sklearn_difffeat.checkpoints._source import EMBEDDED_ROOT
from sklearn_difffeat.pretraining.card import draw_losses, write_card
from sklearn_difffeat.pretraining.loop import HISTORY


def export(out: Path, parts: Mapping[str, Any]) -> Path:
    """Save each part under its sub-folder of ``out/export``; '' is the folder itself.

    Parameters
    ----------
    out : Path
        Folder of the run.
    parts : mapping of str to object
        Anything with ``save_pretrained``; modules are converted to float16 first.

    Returns
    -------
    Path
        ``out/export``, replaced as a whole.
    """
    partial, final = out / "export.partial", out / "export"
    shutil.rmtree(partial, ignore_errors=True)
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            part = copy.deepcopy(part).half()
        folder = partial if name in ("", "tokenizer") else partial / name
        part.save_pretrained(folder)
    for path in partial.rglob("*"):
        # safetensors writes files that only their owner may read.
        path.chmod(0o755 if path.is_dir() else 0o644)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    return final


def _read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def release(run: Path, corpus: Path, name: str) -> Path:
    """Copy a finished run into the package, with its card, losses and digests.

    The text backbone's export has them already. A run that started from the released
    weights carries their history and digests on.

    Parameters
    ----------
    run, corpus : Path
        Folders of the run and of the corpus it was trained on.
    name : {"dit-tiny", "mdlm-tiny"}

    Returns
    -------
    Path
        The embedded folder, replaced as a whole.
    """
    if name == "mdlm-tiny":
        final = EMBEDDED_ROOT / name
        shutil.rmtree(final, ignore_errors=True)
        return Path(shutil.copytree(run / "export", final))
    log, starts = (_read_lines(run / file) for file in ("log.jsonl", HISTORY))
    schedule = json.loads((run / "schedule.json").read_text())
    partial, final = EMBEDDED_ROOT.parent / f"{name}.partial", EMBEDDED_ROOT / name
    seen = np.array([], dtype=np.uint64)
    if starts[0].get("start_from") == name:
        released = _read_lines(final / HISTORY)
        # A run that went on after its release is in there already.
        starts = released + [start for start in starts if start not in released]
        seen = np.load(final / "digests.npy")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(run / "export", partial)
    lines = (json.dumps(start) + "\n" for start in starts)
    (partial / HISTORY).write_text("".join(lines))
    draw_losses(log, partial / "loss.png")
    write_card(name, corpus, schedule, log, starts, seen, partial)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    return final
