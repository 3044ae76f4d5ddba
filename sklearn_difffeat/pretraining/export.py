"""Write trained weights as half-precision safetensors in the hub's layout."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn


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
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    return final
