"""An estimator whose score is a function of its parameters, and searches of it."""

import itertools

import numpy as np
from sklearn.base import BaseEstimator

from sklearn_difffeat import (
    FusionClassifier,
    ImageDiffusionFeatureTransformer,
    LocalSearchCV,
    TextDiffusionFeatureTransformer,
    make_fusion_pipeline,
)

AXIS = list(range(12))
SPACE = dict.fromkeys("abcd", AXIS)
X = np.zeros((6, 1))


def unimodal(a, b, c, d):
    return -((a - 8) ** 2 + (b - 3) ** 2 + 2 * (c - 9) ** 2 + (d - 1) ** 2) / 300


def ridge(a, b, c, d):
    along, across = a + b - 13, a - b - 3
    return -(across**2 / 10 + along**2 / 200 + ((c - 4) ** 2 + (d - 6) ** 2) / 100)


def plateau(a, b, c, d):
    return float(max(abs(a - 7), abs(b - 4), abs(c - 6), abs(d - 4)) <= 2)


def two_peaks(a, b, c, d):
    near = np.exp(-((a - 4) ** 2 + (b - 4) ** 2 + (c - 5) ** 2 + (d - 5) ** 2) / 12)
    far = np.exp(-((a - 10) ** 2 + (b - 10) ** 2 + (c - 9) ** 2 + (d - 9) ** 2) / 12)
    return 0.7 * near + far


def noisy(a, b, c, d):
    jitter = np.random.default_rng([a, b, c, d]).normal(scale=0.02)
    return unimodal(a, b, c, d) + jitter


class Surface(BaseEstimator):
    """Scores ``surface(a, b, c, d)``; fails to fit where ``fails`` says so."""

    def __init__(self, surface=unimodal, fails=None, a=0, b=0, c=0, d=0):
        self.surface = surface
        self.fails = fails
        self.a = a
        self.b = b
        self.c = c
        self.d = d

    def fit(self, X, y=None):
        if self.fails is not None and self.fails(self.a):
            raise RuntimeError(f"a={self.a} does not fit")
        self.fitted_ = True
        return self

    def predict(self, X):
        return np.zeros(len(X))

    def score(self, X, y=None):
        return self.surface(self.a, self.b, self.c, self.d)


def walk(surface, **options):
    return LocalSearchCV(Surface(surface), SPACE, cv=2, **options).fit(X)


def best_of(surface):
    return max(surface(*point) for point in itertools.product(AXIS, repeat=4))


def tried(search):
    return [tuple(params.values()) for params in search.cv_results_["params"]]


def fused(cache=None, **space):
    model = make_fusion_pipeline(
        ("picture", ImageDiffusionFeatureTransformer(cache=cache), "image"),
        ("caption", TextDiffusionFeatureTransformer(cache=cache), "text"),
        classifier=FusionClassifier(C=0.1),
    )
    return model, {f"features__{name}": values for name, values in space.items()}
