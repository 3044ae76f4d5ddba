"""The transformers whose contract is one."""

import pytest

from sklearn_difffeat import (
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
)

BOTH = pytest.mark.parametrize(
    ("kind", "column"),
    [
        (ImageDiffusionFeatureTransformer, "image"),
        (TextDiffusionFeatureTransformer, "text"),
    ],
    ids=["image", "text"],
)
