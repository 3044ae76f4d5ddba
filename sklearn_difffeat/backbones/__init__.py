"""Pretrained models behind one small interface, loaded lazily, once per process."""

from sklearn_difffeat.backbones._base import Backbone, BackboneInfo
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
