"""Diffusion models as feature extractors for multi-label classification.

Importing this package imports no torch; the models come with the first transform.
"""

from sklearn_difffeat._transformer import DiffusionFeatureTransformer
from sklearn_difffeat.backbones import (
    BackboneInfo,
    describe_backbone,
    release_backbones,
)
from sklearn_difffeat.display import BlockTimestepDisplay, EmbeddingDisplay
from sklearn_difffeat.fusion import FusionClassifier, FusionClassifierCV
from sklearn_difffeat.image import ImageDiffusionFeatureTransformer
from sklearn_difffeat.metrics import clustering_report, multilabel_report
from sklearn_difffeat.pipeline import make_fusion_pipeline
from sklearn_difffeat.search import LocalSearchCV
from sklearn_difffeat.store._store import FeatureStore
from sklearn_difffeat.text import TextDiffusionFeatureTransformer
from sklearn_difffeat.thresholds import TunedThresholdsClassifierCV

__version__ = "0.1.0"

__all__ = [
    "BackboneInfo",
    "BlockTimestepDisplay",
    "DiffusionFeatureTransformer",
    "EmbeddingDisplay",
    "FeatureStore",
    "FusionClassifier",
    "FusionClassifierCV",
    "ImageDiffusionFeatureTransformer",
    "LocalSearchCV",
    "TextDiffusionFeatureTransformer",
    "TunedThresholdsClassifierCV",
    "clustering_report",
    "describe_backbone",
    "make_fusion_pipeline",
    "multilabel_report",
    "release_backbones",
]
