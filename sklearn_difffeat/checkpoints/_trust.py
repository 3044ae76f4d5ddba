"""Checkpoints that carry code of their own, and who may run it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sklearn_difffeat.checkpoints._source import Source

CARRIERS = ("config.json", "tokenizer_config.json")
DENOISERS = ("transformer/config.json", "unet/config.json")


def carries_code(source: Source) -> bool:
    """Whether a configuration names code that lies beside the weights."""
    is_image_model = any(source.at_hand(file) for file in DENOISERS)
    for file in DENOISERS if is_image_model else CARRIERS:
        if (source.read_json(file) or {}).get("auto_map"):
            return True
    return False


def check_trusted(source: Source, carries_code: bool) -> None:
    """Refuse a checkpoint with code of its own, unless the user trusts it.

    Raises
    ------
    ValueError
        When code would run and ``trust_remote_code`` is False.
    """
    if carries_code and not source.trust_remote_code:
        raise ValueError(
            f"backbone={source.name!r} carries code of its own, which can do anything "
            "that you can; read it, pin its `revision`, and set trust_remote_code=True "
            "to run it."
        )
