"""Pictures of searches and embeddings; matplotlib is used only here."""

from sklearn_difffeat.display._embedding import EmbeddingDisplay
from sklearn_difffeat.display._map import BlockTimestepDisplay

__all__ = ["BlockTimestepDisplay", "EmbeddingDisplay"]
