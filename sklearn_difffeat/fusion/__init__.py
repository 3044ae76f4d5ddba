"""Features of several modalities to labels."""

from sklearn_difffeat.fusion._classifier import FusionClassifier

__all__ = ["FusionClassifier"]
