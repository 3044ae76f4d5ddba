"""Which columns of a feature matrix belong to which modality."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklearn_difffeat.modalities._array import (
    OTHER,
    Columns,
    Layout,
    free_name,
    lay_out,
)

UNDECLARED = "all"

_FEATURE = re.compile(r"b\d+_t\d+_\d+")
_SKRUB_SUFFIX = re.compile(r"__skrub_[0-9a-f]+__$")


def prefix_of(name: str) -> str:
    """Modality that a column name starts with, "" if none.

    Examples
    --------
    >>> from sklearn_difffeat.modalities._columns import prefix_of
    >>> prefix_of("image__b6_t0_44"), prefix_of("b6_t0_44__skrub_dbf7acb9__")
    ('image', '')
    """
    prefix, _, rest = _SKRUB_SUFFIX.sub("", name).partition("__")
    return prefix if rest and not _FEATURE.fullmatch(prefix) else ""


def names_modalities(names: Sequence[str] | None, layout: Layout | None) -> bool:
    """Whether columns or the array itself say what the modalities are."""
    return layout is not None or any(map(prefix_of, () if names is None else names))


def resolve_modalities(
    spec: Mapping[str, Any] | None,
    n_features: int,
    *,
    names: Sequence[str] | None = None,
    layout: Layout | None = None,
) -> dict[str, Columns]:
    """Columns of each modality: as asked, else by name, else by layout, else one.

    Parameters
    ----------
    spec : dict of str to slice, list of columns or width, or None
    n_features : int
    names : sequence of str or None, default=None
        Column names; ``image__0`` belongs to ``image``, a name without a prefix to
        ``other``.
    layout : tuple of (str, int) or None, default=None
        What a :class:`ModalityArray` remembers. Modalities of the same name are
        numbered from 1, so that no name stands for one of several.

    Returns
    -------
    dict of str to slice or ndarray of int
        A slice where the columns follow one another. Every column is in one of them.

    Raises
    ------
    ValueError
        If a column is in no modality or in several.

    Examples
    --------
    >>> from sklearn_difffeat.modalities._columns import resolve_modalities
    >>> resolve_modalities({"image": 3, "text": 2}, 5)
    {'image': slice(0, 3, None), 'text': slice(3, 5, None)}
    """
    if spec is not None:
        return _from_spec(spec, n_features, names)
    if names is not None:
        _warn_of_lost_modalities(names)
        prefixes = [prefix_of(name) for name in names]
        if any(prefixes):
            members: dict[str, list[int]] = {}
            for column, prefix in enumerate(prefixes):
                members.setdefault(prefix, []).append(column)
            other = free_name(OTHER, 2, members) if OTHER in members else OTHER
            return {
                prefix or other: _compact(np.array(columns, dtype=np.intp))
                for prefix, columns in members.items()
            }
    if layout is not None:
        pairs = [(name, width) for name, width in layout if width]
        counts = Counter(name for name, _ in pairs)
        widths: dict[str, int] = {}
        for name, width in pairs:
            if counts[name] > 1:
                name = free_name(name, 1, counts.keys() | widths.keys())
            widths[name] = width
        return {**lay_out(widths.items())}
    return {UNDECLARED: slice(0, n_features)}


def _warn_of_lost_modalities(names: Sequence[str]) -> None:
    prefixes = list(dict.fromkeys(map(prefix_of, names)))
    if len(prefixes) > 1:
        return
    inner = names
    if prefixes[0]:
        inner = [name.removeprefix(f"{prefixes[0]}__") for name in names]
        found = list(dict.fromkeys(filter(None, map(prefix_of, inner))))
        if len(found) > 1:
            warnings.warn(
                f"All columns of X start with {prefixes[0]!r} and are one modality; to "
                f"fuse {found[0]!r}, {found[1]!r} and any others, pass "
                "modalities=.",
                stacklevel=6,
            )
    features = Counter(_SKRUB_SUFFIX.sub("", name) for name in inner)
    n_repeated = sum(
        count > 1 and _FEATURE.fullmatch(name) is not None
        for name, count in features.items()
    )
    if n_repeated:
        warnings.warn(
            f"{n_repeated} columns of X come from several transformers, such as "
            f"{names[0]!r}, and no prefix says from which, so all "
            "columns are one modality; pass modalities= to fuse them.",
            stacklevel=6,
        )


def _from_spec(
    spec: Mapping[str, Any], n_features: int, names: Sequence[str] | None
) -> dict[str, Columns]:
    for name in spec:
        if not isinstance(name, str):
            raise ValueError(
                f"modalities has the key {name!r}, which is not a string; name each "
                "modality with a string."
            )
    n_widths = sum(_is_int(value) for value in spec.values())
    if n_widths and n_widths < len(spec):
        raise ValueError(
            "modalities mixes widths with slices or lists of columns; give the width "
            "of every modality or the columns of every modality."
        )
    if n_widths:
        total = sum(spec.values())
        if total != n_features or min(spec.values()) < 1:
            raise ValueError(
                f"The widths in modalities, {dict(spec)}, sum to {total} but X has "
                f"{n_features} columns; give positive widths that sum to "
                f"{n_features}."
            )
        spec = lay_out(spec.items())
    owner: dict[int, str] = {}
    result: dict[str, Columns] = {}
    for name, value in spec.items():
        columns = _column_indices(name, value, n_features, names)
        for column in columns.tolist():
            if column in owner:
                raise ValueError(
                    f"modalities[{name!r}] overlaps modalities[{owner[column]!r}] in "
                    f"column {column}; give each column to one modality, once."
                )
            owner[column] = name
        result[name] = _compact(columns)
    lost = sorted(set(range(n_features)) - owner.keys())
    if lost:
        raise ValueError(
            f"{len(lost)} of the {n_features} columns of X belong to no modality, the "
            f"first is column {lost[0]}; add them to modalities or drop them from X."
        )
    return result


def _column_indices(
    name: str, value: Any, n_features: int, names: Sequence[str] | None
) -> NDArray[np.intp]:
    where = f"modalities[{name!r}]"
    if isinstance(value, slice):
        ends = [e for e in (value.start, value.stop) if e is not None]
        if any(not _is_int(e) or not -n_features <= e <= n_features for e in ends):
            raise ValueError(
                f"{where} is {value}, outside X, which has {n_features} columns; use "
                f"positions between 0 and {n_features}."
            )
        columns = np.arange(n_features)[value]
    elif isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError(
            f"{where} is {value!r}; give a slice, a list of column names or positions, "
            "or a width."
        )
    else:
        columns = np.array(
            [_position(where, c, n_features, names) for c in value], dtype=np.intp
        )
    if not len(columns):
        raise ValueError(f"{where} has no columns; give it some or remove it.")
    return columns


def _position(
    where: str, column: Any, n_features: int, names: Sequence[str] | None
) -> int:
    if isinstance(column, str):
        if names is None:
            raise ValueError(
                f"{where} names the column {column!r} but X has no column names; pass "
                "X as a DataFrame or give positions."
            )
        names = list(names)
        if column not in names:
            raise ValueError(
                f"{where} names the column {column!r}, which X does not have; use "
                f"names such as {names[0]!r}."
            )
        if names.count(column) > 1:
            raise ValueError(
                f"{where} names the column {column!r}, which X has "
                f"{names.count(column)} times; give positions."
            )
        return names.index(column)
    if not _is_int(column) or not -n_features <= column < n_features:
        raise ValueError(
            f"{where} has the column {column!r}, outside X, which has {n_features} "
            f"columns; use positions between 0 and {n_features - 1}."
        )
    return int(column) % n_features


def _is_int(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool | np.bool_)


def _compact(columns: NDArray[np.intp]) -> Columns:
    if np.array_equal(columns, np.arange(columns[0], columns[0] + len(columns))):
        return slice(int(columns[0]), int(columns[0]) + len(columns))
    return columns
