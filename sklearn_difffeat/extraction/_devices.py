"""Where to compute, and how precisely."""

from __future__ import annotations

import warnings

import torch

from sklearn_difffeat._process import refuse_inherited_gpu


def usable_device(name: str | None) -> str:
    """Return the named device, or the best one there is.

    Raises
    ------
    ValueError
        When torch knows no device of that name.
    RuntimeError
        When it is the GPU of the process that this one was forked from.
    """
    if name is None:
        return _best_device()
    refuse_inherited_gpu(name)
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        # A model that was fitted on a GPU has to predict on machines without one.
        known = name.partition(":")[0] in ("cuda", "mps", "xpu")
        if not known:
            raise ValueError(
                f"device={name!r} is not a torch device; use 'cpu', 'cuda', 'mps' or "
                "None."
            ) from error
        best = _best_device()
        warnings.warn(
            f"device={name!r} is not available here; {best!r} is used instead.",
            UserWarning,
            stacklevel=5,
        )
        return best
    return name


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def native_dtype(device: str) -> str:
    """Return "bfloat16" where a device multiplies matrices in it, else "float32"."""
    kind = torch.device(device).type
    if kind == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif kind == "cpu":
        native = torch.cpu._is_avx512_bf16_supported()
        native = native or torch.cpu._is_amx_tile_supported()
    else:
        native = False
    return "bfloat16" if native else "float32"
