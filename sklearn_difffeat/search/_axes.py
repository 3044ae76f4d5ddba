"""The axes of a local search: their values, where to start, what costs a pass."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import ParameterGrid

from sklearn_difffeat.backbones._readings import KNOWN

# Parameters of a transformer that leave the stored features of a row as they are.
_WITHOUT_PASS = {"block", "batch_size", "cache", "device", "n_jobs", "verbose"}


@dataclass(frozen=True)
class Axis:
    """One parameter and its ordered values.

    Attributes
    ----------
    name : str
        Of the parameter, with the path of its estimator: ``"features__image__block"``.
    values : tuple of length n_values >= 1
        Of any kind, in the parameter's own unit: the number of a block, or a timestep
        of the training schedule. Numbers are sorted, upwards or downwards.
    start : int
        Where the walk begins, as an index into ``values``, 0 to n_values - 1.
    costly : bool
        Whether each new value costs a pass of all rows through a model.
    passes_model : bool
        Whether the parameter belongs to a transformer whose rows pass a model, at any
        value.
    recommended : tuple of int
        Indices of the values that are recommended for the transformer's backbone.
    """

    name: str
    values: tuple[Any, ...]
    start: int
    costly: bool
    passes_model: bool
    recommended: tuple[int, ...] = ()

    @property
    def group(self) -> str:
        """Path of the parameter's estimator; "" for the searched estimator itself."""
        return self.name.rpartition("__")[0]

    @property
    def step(self) -> int:
        """First step of a walk, in places along the axis: a quarter of it, or 1."""
        return max(1, len(self.values) // 4)

    @property
    def downward(self) -> int:
        """Direction (-1 or 1) of smaller values, for a timestep that of less noise."""
        if _are_numbers(self.values) and self.values[0] > self.values[-1]:
            return 1
        return -1


def build_axes(
    estimator: Any,
    param_space: Mapping[str, Any],
    start: Mapping[str, Any] | str | None,
) -> list[Axis]:
    """Validate a space and find its start.

    Parameters
    ----------
    estimator : estimator
        The names of the parameters lead to its transformers.
    param_space : dict of str to list, tuple or ndarray of shape (n_values,)
        Ordered values of each parameter, of any kind or dtype.
    start : dict of str to value, "auto" or None
        Overrides the prior, for all parameters or some; "auto" looks up the
        recommendation for each transformer's backbone.

    Returns
    -------
    list of Axis
        One for each parameter, in the order of ``param_space``.

    Raises
    ------
    TypeError
        When values are no sequence.
    ValueError
        When values are empty, repeated, not in order or not one-dimensional, or a
        start is not among them.
    """
    # GridSearchCV's own checks, with its own messages.
    ParameterGrid(dict(param_space))
    is_auto, start = start == "auto", start if isinstance(start, Mapping) else {}
    unknown = sorted(set(start) - set(param_space))
    if unknown:
        raise ValueError(
            f"start names {unknown[0]!r}, which param_space does not have; the names "
            f"are {list(param_space)}."
        )
    parts = {**estimator.get_params(deep=True), "": estimator}
    axes = []
    for name, values in param_space.items():
        _check_order(name, values)
        owner, _, leaf = name.rpartition("__")
        modality = getattr(parts.get(owner), "_modality", None)
        passes = modality is not None or leaf == "timestep"
        if modality is None and leaf in ("block", "timestep"):
            named = [kind for kind in ("image", "text") if kind in owner.lower()]
            modality = named[0] if len(named) == 1 else None
        index = _prior(leaf, modality, values)
        if name in start:
            index = _index_of(values, start[name])
        if index is None:
            raise ValueError(
                f"start={start[name]!r} of parameter {name!r} is outside its values "
                f"{list(values)}; start from one of them."
            )
        costly = passes and leaf not in _WITHOUT_PASS
        found = _recommended(parts.get(owner), leaf, values) if is_auto else ()
        axes.append(Axis(name, tuple(values), index, costly, passes, found))
    return axes


def _prior(leaf: str, modality: str | None, values: Sequence[Any]) -> int | None:
    """Index of the paper's choice for texts, and of the lower middle otherwise."""
    places = range(len(values))
    if modality == "text" and leaf == "block":
        return max(places, key=lambda i: _depth(values[i], i))
    if modality == "text" and leaf == "timestep":
        return min(places, key=lambda i: values[i]) if _are_numbers(values) else 0
    return (len(values) - 1) // 2


def _recommended(part: Any, leaf: str, values: Sequence[Any]) -> tuple[int, ...]:
    """Indices of what is recommended for a transformer's backbone; none if unknown."""
    backbone = getattr(part, "backbone", None)
    reading = KNOWN.get(backbone) if isinstance(backbone, str) else None
    if reading is None or leaf not in ("block", "timestep", "pooling", "norm"):
        return ()
    wanted = getattr(reading, leaf)
    several = wanted if isinstance(wanted, list) else []
    found = [_index_of(values, value) for value in (wanted, *several)]
    if leaf == "timestep" and _are_numbers(values):
        # Neighbouring timesteps are similar, so the nearest one is used.
        distances = [abs(value - wanted) for value in values]
        found = [int(np.argmin(distances))]
    return tuple(index for index in found if index is not None)


def _depth(block: Any, index: int) -> tuple[int, float]:
    if isinstance(block, str):
        return (3, 0) if block == "last" else (0, index)
    if not isinstance(block, numbers.Real):
        return 0, index
    # Negative blocks count from the end.
    depth = float(block)
    return (1 if depth >= 0 else 2), depth


def _check_order(name: str, values: Sequence[Any]) -> None:
    if _are_numbers(values):
        differences = np.diff(np.asarray(values, dtype=float))
        if not ((differences > 0).all() or (differences < 0).all()):
            raise ValueError(
                f"The values of parameter {name!r} are not in order or repeat: "
                f"{list(values)}; sort them and list each once, since the search steps "
                "from a value to its neighbours."
            )
        return
    for i, value in enumerate(values):
        if _index_of(values, value) != i:
            raise ValueError(
                f"The values of parameter {name!r} hold {value!r} twice; list each "
                "value once."
            )


def _index_of(values: Sequence[Any], wanted: Any) -> int | None:
    same = (i for i, value in enumerate(values) if _same(value, wanted))
    return next(same, None)


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(
        isinstance(value, numbers.Real) and not isinstance(value, bool)
        for value in values
    )


def _same(a: Any, b: Any) -> bool:
    if a is not b and (isinstance(a, np.ndarray) or isinstance(b, np.ndarray)):
        return np.array_equal(a, b)
    return a is b or bool(a == b)
