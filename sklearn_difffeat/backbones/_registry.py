"""Backbones by name: what is known of them, and those loaded in this process."""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sklearn_difffeat._process import hold_during_fork, refuse_inherited_gpu, uses_torch
from sklearn_difffeat.backbones._families import family_of
from sklearn_difffeat.backbones._info import BackboneInfo
from sklearn_difffeat.checkpoints._loading import naming_damage, without_progress_bars
from sklearn_difffeat.checkpoints._memory import check_memory, release_device_memory
from sklearn_difffeat.checkpoints._source import (
    Source,
    carries_code,
    check_trusted,
    locate,
)
from sklearn_difffeat.checkpoints._weights import check_weights, fetch

if TYPE_CHECKING:
    import torch

    from sklearn_difffeat.backbones._base import Backbone

MAX_LOADED = 4

_loaded: OrderedDict[tuple[Any, ...], Backbone] = OrderedDict()
# The thread that holds a model's lock looks the model up or loads it. These locks are
# never removed, so that other threads wait for the same lock after a fork as before it.
_turns: dict[tuple[Any, ...], threading.RLock] = {}
# Guards the two above; held only for a moment.
_lock = threading.Lock()
_told: set[str] = set()
# Whether this process was forked while another thread loaded a model.
_forked_while_loading = False


def locate_backbone(
    name: str | os.PathLike[str], **options: Any
) -> tuple[Source, BackboneInfo]:
    """Return where a backbone is, if it may be run, and what its configuration says.

    Raises
    ------
    ValueError
        When it is not a known backbone, or has code that is not trusted.
    FileNotFoundError
        When it is only half downloaded.
    """
    source = locate(name, **options)
    info = _describe(source, source.fingerprint)
    check_trusted(source, info.carries_code)
    _check_weights_once(source, info.fingerprint)
    return replace(source, expected=info.fingerprint), info


# Cached, because a search asks at every fit and transform. Missing weights are an
# error, which is not cached.
@lru_cache(maxsize=32)
def _check_weights_once(source: Source, fingerprint: str) -> None:
    check_weights(source)


@lru_cache(maxsize=32)
def _describe(source: Source, fingerprint: str) -> BackboneInfo:
    """Read the configuration; cached, because a search asks for it many times."""
    info = family_of(source).describe(source)
    _check_unchanged(source, fingerprint, info.fingerprint)
    return replace(info, revision=source.revision, carries_code=carries_code(source))


def describe_backbone(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
) -> BackboneInfo:
    """Describe a backbone without loading its weights.

    The result has blocks, width, timesteps, license, size and more. No code of a
    checkpoint runs. One warning per process names a license that forbids commercial
    use.

    Parameters
    ----------
    name : str or path
        Embedded name (``"dit-tiny"``, ``"mdlm-tiny"``), hub id, or folder in the
        hub's layout.
    revision : str, default=None
        Hub revision.
    local_files_only : bool, default=False
        Look only in the cache.
    trust_remote_code : bool, default=False
        Has no effect here: describing runs no code, whether trusted or not.

    Returns
    -------
    BackboneInfo

    Raises
    ------
    ValueError
        When the name is unknown or the model is of no supported family.
    OSError
        When a hub id is neither cached nor reachable.

    Warns
    -----
    UserWarning
        Once per process, when the license forbids commercial use.

    Examples
    --------
    >>> from sklearn_difffeat import describe_backbone
    >>> info = describe_backbone("dit-tiny")
    >>> info.n_blocks, info.width_of(0), info.width_of(4), info.input_size
    (4, 2048, 384, 224)
    """
    source = locate(
        name,
        revision=revision,
        local_files_only=local_files_only,
        trust_remote_code=trust_remote_code,
    )
    info = _describe(source, source.fingerprint)
    if info.non_commercial and info.name not in _told:
        _told.add(info.name)
        warnings.warn(
            f"backbone={info.name!r} has the license {info.license!r}, which forbids "
            "commercial use.",
            UserWarning,
            stacklevel=2,
        )
    return info


def load_backbone(
    source: Source, *, device: str, dtype: torch.dtype, prompt: str = ""
) -> Backbone:
    """Return the loaded model, shared by every estimator of this process.

    The ``MAX_LOADED`` models that were used last are kept; :func:`release_backbones`
    frees them. The prompt is encoded before the model is loaded, while there is memory.

    Raises
    ------
    MemoryError
        When the weights do not fit; nothing has been loaded then, nor downloaded if the
        hub's listing has the sizes.
    ValueError
        When the weights are damaged, or the files are no longer those described.
    OSError
        When they are not all here and the hub cannot be reached.
    RuntimeError
        When this process was forked in a way that leaves it no model to run.
    """
    uses_torch()
    refuse_inherited_gpu(device)
    if _forked_while_loading:
        raise RuntimeError(
            "this process was forked while another thread was loading a model, which "
            "leaves torch only partly set up here; fork before or after that."
        )
    fingerprint = source.fingerprint
    _check_unchanged(source, source.expected or fingerprint, fingerprint)
    key = (fingerprint, device, dtype)
    with _lock:
        turn = _turns.setdefault(key, threading.RLock())
    with turn:
        # Until it is certain that the files did not change, a mixture of old and new
        # may have been read.
        with _lock:
            backbone = _loaded.pop(key, None)
        if backbone is None:
            backbone = _load(source, device, dtype, prompt)
        else:
            backbone.take_prompt(source, prompt)
        _check_unchanged(source, fingerprint, source.fingerprint)
        with _lock:
            _loaded[key] = backbone
            while len(_loaded) > MAX_LOADED:
                _loaded.popitem(last=False)
        return backbone


def _load(source: Source, device: str, dtype: torch.dtype, prompt: str) -> Backbone:
    from sklearn_difffeat.backbones._surroundings import while_reading

    family = family_of(source)
    options = {"prompt": prompt} if family.takes_prompt else {}
    check_trusted(source, carries_code(source))
    check_weights(source)
    check_memory(source, device, dtype)
    if source.on_hub:
        fetch(source)
    with while_reading(), naming_damage(source), without_progress_bars():
        # Other models may have been loaded meanwhile, and the size that was estimated
        # from the hub's listing can be computed now.
        check_memory(source, device, dtype)
        return family.load(source, device, dtype, **options)


def _check_unchanged(source: Source, before: str, after: str) -> None:
    if before != after:
        raise ValueError(
            f"backbone={source.name!r} was changed while it was used (it was {before} "
            f"and is {after} now); leave its files unchanged and call fit again."
        )


def release_backbones() -> int:
    """Release every loaded model, so that its memory can be reused.

    Returns
    -------
    int
        How many models were released.

    Examples
    --------
    >>> from sklearn_difffeat import release_backbones
    >>> n_released = release_backbones()
    """
    with _lock:
        count = len(_loaded)
        _loaded.clear()
    release_device_memory()
    return count


def _locks_of_models() -> Iterator[Any]:
    # A thread that holds one of these never waits for an earlier one.
    yield from list(_turns.values())
    for model in list(_loaded.values()):
        yield from model.locks
    yield _lock


def _forget_unfinished(lost: set[int]) -> None:
    """Release the models that another thread was using when this process was forked."""
    global _forked_while_loading
    _forked_while_loading |= any(id(turn) in lost for turn in _turns.values())
    for key, model in list(_loaded.items()):
        # Hooks of that thread's pass are still on the model.
        if any(id(lock) in lost for lock in model.locks):
            del _loaded[key]


hold_during_fork(_locks_of_models, _forget_unfinished)
