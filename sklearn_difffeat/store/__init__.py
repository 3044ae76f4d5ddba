"""What was computed, found again by content; no torch here."""

from sklearn_difffeat.store._store import FeatureStore

__all__ = ["FeatureStore"]
