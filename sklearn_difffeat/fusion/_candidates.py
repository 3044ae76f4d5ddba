"""The candidates of FusionClassifierCV: which there are, and which is the best."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_array

from sklearn_difffeat.fusion._classifier import FusionClassifier
from sklearn_difffeat.fusion._data import Float, column_weights, standardized
from sklearn_difffeat.fusion._solver import finish, fit_linear
from sklearn_difffeat.fusion._training import TrainingRows
from sklearn_difffeat.fusion._weighted_rows import WeightedRows

# Tolerance in the folds: for each row, and at most. Closer to its minimum a candidate's
# score would change by some 0.001; with few rows each rank counts more.
_FOLD_TOL, _MAX_FOLD_TOL = 1e-7, 1e-4
_LOWER = (0.3, 0.1, 0.0)


def grid_of_C(Cs: Any) -> Float:
    """The values of C; a number stands for that many of them."""
    if isinstance(Cs, Integral):
        return np.logspace(-4, 4, int(Cs))
    grid = check_array(
        np.asarray(Cs), ensure_2d=False, dtype=np.float64, input_name="Cs"
    )
    if grid.ndim != 1 or not (grid > 0).all():
        raise ValueError(f"Cs is {Cs!r}; give positive numbers, or how many to try.")
    return grid


def candidate_weights(spec: Any, rows: TrainingRows) -> list[dict[str, float]]:
    """A weight of every modality, a candidate; see FusionClassifierCV."""
    names = list(rows.modalities)
    if isinstance(spec, str):
        asked = [{}, *({name: low} for low in _LOWER for name in names)]
        if len(names) > 2:
            others = {name: [n for n in names if n != name] for name in names}
            asked += [dict.fromkeys(others[n], low) for low in _LOWER for n in names]
        asked = asked if len(names) > 1 else [{}]
    elif isinstance(spec, dict):
        values = [np.atleast_1d(np.asarray(each, object)) for each in spec.values()]
        asked = [dict(zip(spec, each, strict=True)) for each in product(*values)]
        asked = [a for a in asked if set(names) - a.keys() or any(a.values())]
    else:
        asked = list(spec)
    if not asked:
        raise ValueError(
            f"modality_weights is {spec!r}, which leaves nothing to choose from; give "
            "at least one weight for each modality named."
        )
    for each in asked:
        column_weights(each, rows.modalities, rows.X.shape[1])
    return [{name: float(each.get(name, 1)) for name in names} for each in asked]


def fit_fold(
    model: FusionClassifier,
    train: TrainingRows,
    test: TrainingRows,
    Cs: Float,
    weights: list[dict[str, float]],
    scorer: Callable[..., float],
    score_params: dict[str, Any],
    seed: int,
) -> tuple[Float, int]:
    """Scores (n_weights, n_Cs) of a fold, and how many fits did not converge."""
    mean, scale = train.moments(model.standardize)
    varied, constants = train.constants(warn=False)
    class_weights = train.class_weights(model.class_weight)
    options: dict[str, Any] = {
        "tol": max(model.tol, min(_FOLD_TOL * len(train.weight), _MAX_FOLD_TOL)),
        "max_iter": model.max_iter,
        "precision": float(np.finfo(train.X.dtype).eps),
        "verbose": False,
    }
    features = WeightedRows(
        standardized(train.X, mean, scale), train.weight, train.modalities
    )
    y = test.target if test.known is None else np.where(test.known, test.target, np.nan)
    scores, n_unfinished = np.empty((len(weights), len(Cs))), 0
    for number, named in enumerate(weights):
        factor = column_weights(named, train.modalities, len(scale))
        with np.errstate(divide="ignore"):
            weighted_scale = scale / factor
        X, axes, rotation = features.turned(factor)
        problem = train.problem(
            X,
            varied,
            class_weights,
            C=1.0,
            device=model.device,
            seed=seed,
            axes=axes,
            rotation=rotation,
        )
        path: list[tuple[float, Float]] = []
        for place in np.argsort(Cs, kind="stable"):
            problem.C = Cs[place]
            found = None
            if varied.any():
                start = next_on_path(path, np.log(Cs[place]))
                convex = fit_linear(problem, start=start, **options)
                theta = np.vstack([convex.heads, convex.intercept])
                path = [*path, (np.log(Cs[place]), theta)][-2:]
                found = finish(problem, convex, model.fusion_dim, **options)
                n_unfinished += found.n_unfinished
            candidate = FusionClassifier(
                modalities=model.modalities, fusion_dim=model.fusion_dim
            )
            candidate.n_features_in_ = len(scale)
            candidate._keep(
                train, mean, weighted_scale, varied, constants.copy(), found
            )
            scores[number, place] = scorer(candidate, test.X, y, **score_params)
    return scores, n_unfinished


def next_on_path(path: list[tuple[float, Float]], log_C: float) -> Float | None:
    """The line through the last two solutions, extended to this logarithm of C."""
    if not path:
        return None
    (before, first), (last, theta) = path[0], path[-1]
    if last == before:
        return theta
    return theta + (log_C - last) / (last - before) * (theta - first)


def best_candidate(scores: Float, weights: list[dict[str, float]]) -> tuple[int, int]:
    """Index among the weights, and among the Cs, of the candidate to choose.

    The candidate with the best mean over the folds; but the best one with fewer
    modalities, if the difference between the two is less than its standard error over
    the folds. The best of many noisy means too often uses a modality that is only
    noise.
    """
    if np.isnan(scores).all(axis=0).any():
        raise ValueError(
            "A candidate has the score NaN in every fold; give folds whose held-out "
            "rows have positive labels, or another scoring."
        )
    mean = np.nanmean(scores, axis=0)
    best = np.unravel_index(mean.argmax(), mean.shape)
    n_used = np.array([np.count_nonzero(list(each.values())) for each in weights])
    for number in np.unique(n_used[n_used < n_used[best[0]]]):
        fewer = np.where((n_used == number)[:, None], mean, -np.inf)
        other = np.unravel_index(fewer.argmax(), mean.shape)
        lead = scores[:, best[0], best[1]] - scores[:, other[0], other[1]]
        lead = lead[~np.isnan(lead)]
        if len(lead) > 1 and lead.mean() < lead.std(ddof=1) / np.sqrt(len(lead)):
            return int(other[0]), int(other[1])
    return int(best[0]), int(best[1])
