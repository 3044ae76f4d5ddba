"""Around the loading of weights: errors that name the model, and fewer bars."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pickle import UnpicklingError

from safetensors import SafetensorError

from sklearn_difffeat.checkpoints._source import Source


@contextmanager
def naming_damage(source: Source) -> Iterator[None]:
    """Add the backbone's name to the libraries' errors about damaged weights."""
    try:
        yield
    except SafetensorError as error:
        raise ValueError(
            f"backbone={source.name!r} has damaged weights ({error}); download or save "
            "it again."
        ) from error
    except (UnpicklingError, OSError, RuntimeError) as error:
        if not _is_of_pickle(error):
            raise
        raise ValueError(
            f"backbone={source.name!r} has weights in a pickle that is damaged or "
            "holds more than tensors, which is not loaded; use safetensors."
        ) from error


def _is_of_pickle(error: BaseException | None) -> bool:
    # diffusers raises its own error from torch's.
    while error is not None:
        if isinstance(error, UnpicklingError):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Hide the libraries' progress bars for reading from disk, which is fast.

    The hub's own bars, of downloads, stay.
    """
    transformers = sys.modules.get("transformers.utils.logging")
    diffusers = sys.modules.get("diffusers.utils.logging")
    if diffusers is not None:
        shown = diffusers.is_progress_bar_enabled()
        diffusers.disable_progress_bar()
    if transformers is not None:
        hook = transformers.set_tqdm_hook(
            lambda bar, args, options: bar(*args, **options | {"disable": True})
        )
    try:
        yield
    finally:
        if diffusers is not None and shown:
            diffusers.enable_progress_bar()
        if transformers is not None:
            transformers.set_tqdm_hook(hook)
