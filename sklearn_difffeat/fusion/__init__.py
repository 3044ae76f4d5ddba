"""Features of several modalities to labels."""

from sklearn_difffeat.fusion._classifier import FusionClassifier
from sklearn_difffeat.fusion._classifier_cv import FusionClassifierCV

__all__ = ["FusionClassifier", "FusionClassifierCV"]
