"""Which block and timestep to try next."""

from sklearn_difffeat.search._local import LocalSearchCV

__all__ = ["LocalSearchCV"]
