"""Computed features, found again by content; torch is not imported here."""

from sklearn_difffeat.store._store import FeatureStore

__all__ = ["FeatureStore"]
