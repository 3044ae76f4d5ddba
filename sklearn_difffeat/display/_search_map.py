"""Scores over block and timestep, read from the results of a search."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted


def read_search(
    search: Any, modality: str | None, metric: str | None
) -> dict[str, Any]:
    """Reduce a search's results to the best score of each block and timestep.

    Returns
    -------
    dict of str to object
        The parameters of :class:`BlockTimestepDisplay`.
    """
    check_is_fitted(search, "cv_results_")
    results = search.cv_results_
    names = list(dict.fromkeys(name for params in results["params"] for name in params))
    owner = _owner(search, names, modality)
    axes, places = [], []
    for leaf in ("block", "timestep"):
        name = f"{owner}__{leaf}" if owner else leaf
        if name in names:
            tried = [params.get(name) for params in results["params"]]
            values = _values_of(search, name, tried)
        else:
            values = [search.estimator.get_params().get(name)]
            tried = values * len(results["params"])
        axes.append(values)
        places.append([values.index(value) for value in tried])
    metric = _metric(search, results, metric)
    scores = np.full((len(axes[0]), len(axes[1])), np.nan)
    cells = list(zip(*places, strict=True))
    for cell, score in zip(cells, results[f"mean_test_{metric}"], strict=True):
        scores[cell] = np.fmax(scores[cell], score)
    visited = [cells[step["index"]] for step in getattr(search, "path_", [])]
    name = metric
    if metric == "score" and isinstance(search.scoring, str):
        name = search.scoring
    return {
        "scores": scores,
        "blocks": axes[0],
        "timesteps": axes[1],
        "path": [c for i, c in enumerate(visited) if not i or c != visited[i - 1]],
        "score_name": f"mean test {name}".replace("_", " "),
        "title": modality,
    }


def _owner(search: Any, names: list[str], modality: str | None) -> str:
    split = [name.rpartition("__") for name in names]
    found = [owner for owner, _, leaf in split if leaf in ("block", "timestep")]
    owners = list(dict.fromkeys(found))
    if not owners:
        raise ValueError(
            "The search has no parameter named block or timestep; search over one of "
            f"them (it has {names})."
        )
    if modality is not None:
        parts = {"": search.estimator} | search.estimator.get_params()
        kinds = {o: getattr(parts.get(o), "_modality", None) for o in owners}
        found = (
            [o for o in owners if modality in o.split("__")]
            or [o for o in owners if kinds[o] == modality]
            or [o for o in owners if modality in o]
        )
        if not found:
            raise ValueError(
                f"modality={modality!r} is not in the search, which has the blocks and "
                f"timesteps of {owners}; name one of them."
            )
        owners = found
    if len(owners) > 1:
        raise ValueError(
            f"modality={modality!r} leaves several transformers, {owners}; name one."
        )
    return owners[0]


def _values_of(search: Any, name: str, tried: list[Any]) -> list[Any]:
    for attribute in ("param_space", "param_grid"):
        space = getattr(search, attribute, None)
        if isinstance(space, dict) and name in space:
            return list(space[name])
    values = []
    for value in tried:
        if value not in values:
            values.append(value)
    try:
        return sorted(values)
    except TypeError:
        return values


def _metric(search: Any, results: dict[str, Any], metric: str | None) -> str:
    columns = [name for name in results if name.startswith("mean_test_")]
    known = [name.removeprefix("mean_test_") for name in columns]
    if metric is None:
        refit = search.refit
        return refit if isinstance(refit, str) and refit in known else known[0]
    if metric not in known:
        raise ValueError(
            f"metric={metric!r} was not computed by the search; choose from {known}."
        )
    return metric
