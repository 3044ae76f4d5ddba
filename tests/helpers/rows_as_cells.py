"""The transformers as scikit-learn's checks call them, with rows of numbers as X."""

import numpy as np
from sklearn.utils.validation import validate_data

from sklearn_difffeat import (
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
)

WORDS = "a red green blue small large apple bird boat house flag of on the".split()


def pictures(X):
    """A (n_rows, 8, 8, 3) uint8 array, each picture drawn from one row of numbers."""
    rows = 127 * (1 + np.tanh(X))
    return np.stack([np.resize(row, (8, 8, 3)) for row in rows]).astype(np.uint8)


def texts(X):
    """A list of n_rows texts, each written from one row of numbers."""
    rows = (10 * X).astype(int) % len(WORDS)
    return [" ".join(WORDS[number] for number in row) for row in rows]


class Rows:
    """Makes a transformer take X of shape (n_rows, n_numbers)."""

    def fit(self, X, y=None):
        return super().fit(self.cells(validate_data(self, X)))

    def transform(self, X):
        return super().transform(self.cells(validate_data(self, X, reset=False)))


class RowsOfPictures(Rows, ImageDiffusionFeatureTransformer):
    cells = staticmethod(pictures)


class RowsOfTexts(Rows, TextDiffusionFeatureTransformer):
    cells = staticmethod(texts)
