"""Compare features on OpenClipart: one split, the same folds and draws for all."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold, GroupShuffleSplit

from sklearn_difffeat import FusionClassifier, multilabel_report

N_FOLDS = 3
N_DRAWS = 5
DRAW_SHARE = 0.8

# Maps the rows to fit on to the features of all rows.
Features = Callable[[np.ndarray], np.ndarray]
Settings = dict[str, Any]


def frozen(Z: np.ndarray) -> Features:
    """Return features that learn nothing from the rows."""
    return lambda fit: Z


@contextmanager
def expected_warnings() -> Iterator[None]:
    """Labels of single groups are constant in one part of a split by group."""
    with warnings.catch_warnings():
        for message in (".*constant in y", ".*no positive", ".* texts are longer"):
            warnings.filterwarnings("ignore", message=message)
        yield


class Contest:
    """The rows, the folds of training groups, and the draws that train the heads.

    Parameters
    ----------
    Y : ndarray of shape (n_items, n_labels)
    groups : ndarray of shape (n_items,)
    is_test : bool ndarray of shape (n_items,)
    seed : int, default=0

    Attributes
    ----------
    train, test : ndarray of int
        Rows of the two parts.
    folds : list of (ndarray, ndarray)
        Rows to fit on and rows to judge by; all of training groups.
    draws : list of ndarray
        Each the rows of 80% of the training groups.
    """

    def __init__(
        self, Y: np.ndarray, groups: np.ndarray, is_test: np.ndarray, seed: int = 0
    ) -> None:
        self.Y = Y
        self.train, self.test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
        known = groups[self.train]
        folds = GroupKFold(N_FOLDS, shuffle=True, random_state=seed)
        draws = GroupShuffleSplit(N_DRAWS, train_size=DRAW_SHARE, random_state=seed)
        self.folds = [
            (self.train[fit], self.train[held])
            for fit, held in folds.split(known, groups=known)
        ]
        self.draws = [self.train[fit] for fit, _ in draws.split(known, groups=known)]

    def score(
        self, features: Features, head: Settings, fit: np.ndarray, held: np.ndarray
    ) -> float:
        """Return the mAP on the rows ``held`` of a head trained on the rows ``fit``."""
        Z = features(fit)
        with expected_warnings():
            model = FusionClassifier(**head).fit(Z[fit], self.Y[fit])
            return multilabel_report(self.Y[held], model.predict_proba(Z[held]))["mAP"]

    def cross_validate(self, features: Features, head: Settings) -> float:
        """Return the mean mAP over the folds of training groups."""
        scores = [self.score(features, head, *fold) for fold in self.folds]
        return float(np.mean(scores))

    def choose_head(
        self, features: Features, grid: Mapping[str, Iterable[Any]]
    ) -> tuple[Settings, float]:
        """Return the head's best settings on training groups, and their mAP there."""
        heads = [
            dict(zip(grid, values, strict=True))
            for values in itertools.product(*grid.values())
        ]
        scores = [self.cross_validate(features, head) for head in heads]
        best = int(np.argmax(scores))
        return heads[best], scores[best]

    def test_scores(self, features: Features, head: Settings) -> np.ndarray:
        """Return the mAP on the test groups of a head from each draw."""
        scores = [self.score(features, head, fit, self.test) for fit in self.draws]
        return np.array(scores)
