"""Write trained weights in the hub's layout, and bundle them with the package."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from sklearn_difffeat.checkpoints._source import EMBEDDED_ROOT

# What lies beside the weights.
BESIDE = ("README.md", "loss.png", "digests.npy", "LICENSE", "NOTICE")


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


def release(run: Path, name: str) -> Path:
    """Copy a finished run's export into the package, whatever was there before.

    Parameters
    ----------
    run : Path
        Folder of the run.
    name : {"dit-tiny", "mdlm-tiny"}

    Returns
    -------
    Path
        The embedded folder, replaced as a whole.

    Raises
    ------
    FileNotFoundError
        When the export lacks its card or what belongs to it: the run was cut off.
    """
    found, final = run / "export", EMBEDDED_ROOT / name
    missing = [file for file in BESIDE if not (found / file).exists()]
    if missing:
        raise FileNotFoundError(
            f"{found} lacks {', '.join(missing)}; let the run come to its end first."
        )
    partial = EMBEDDED_ROOT.parent / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(found, partial)
    shutil.rmtree(final, ignore_errors=True)
    return partial.rename(final)
