"""Pretrained models behind one small interface, loaded lazily, once per process."""

from typing import Any

from sklearn_difffeat.backbones._info import BackboneInfo
from sklearn_difffeat.backbones._registry import (
    describe_backbone,
    load_backbone,
    locate_backbone,
    release_backbones,
)

__all__ = [
    "Backbone",
    "BackboneInfo",
    "describe_backbone",
    "load_backbone",
    "locate_backbone",
    "release_backbones",
]


def __getattr__(name: str) -> Any:
    if name == "Backbone":
        # The base classes need torch, which is not imported with this package.
        from sklearn_difffeat.backbones._base import Backbone

        return Backbone
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
