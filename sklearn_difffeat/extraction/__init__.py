"""Inputs to features: noise, one hooked pass, pooling."""

from sklearn_difffeat.extraction._engine import (
    extract_image_features,
    extract_text_features,
)
from sklearn_difffeat.extraction._plan import Plan

__all__ = ["Plan", "extract_image_features", "extract_text_features"]
