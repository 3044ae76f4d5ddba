"""Which columns of a feature matrix belong to which modality."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Columns: TypeAlias = slice | NDArray[np.intp]
Layout: TypeAlias = tuple[tuple[str, int], ...]

UNDECLARED = "all"
OTHER = "other"


class ModalityArray(np.ndarray):
    """A feature matrix that remembers which columns belong to which modality.

    :class:`~sklearn.compose.ColumnTransformer` stacks the outputs of its
    transformers with :func:`numpy.hstack`; stacking these arrays keeps what would
    be lost with the column names. Rows may be selected, copied, cast, stacked and
    pickled; anything else that numpy does to one forgets the modalities.

    Attributes
    ----------
    modalities : dict of str to slice, or None
        Columns of each modality, in the order of the columns; None once forgotten.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_difffeat._modalities import ModalityArray
    >>> image = ModalityArray.wrap(np.zeros((2, 3)), modality="image")
    >>> text = ModalityArray.wrap(np.ones((2, 2)), modality="text")
    >>> np.hstack([image, text]).modalities
    {'image': slice(0, 3, None), 'text': slice(3, 5, None)}
    """

    _layout: Layout | None

    @classmethod
    def wrap(cls, array: Any, modality: str) -> ModalityArray:
        """View a 2-D array as one modality.

        Parameters
        ----------
        array : array-like of shape (n, d)
            Kept as it is when float32 or float64, else converted to float32.
        modality : str
            Name of the modality.

        Returns
        -------
        ModalityArray of shape (n, d)

        Raises
        ------
        ValueError
            If `array` is not 2-D.

        Examples
        --------
        >>> from sklearn_difffeat._modalities import ModalityArray
        >>> ModalityArray.wrap([[1, 2]], modality="text").modalities
        {'text': slice(0, 2, None)}
        """
        array = np.asarray(array)
        if array.dtype not in (np.float32, np.float64):
            array = array.astype(np.float32)
        if array.ndim != 2:
            raise ValueError(
                f"A modality is a 2-D array of features, got {array.ndim} "
                "dimension(s); reshape it to (n_rows, n_features)."
            )
        return cls.with_layout(array, ((modality, array.shape[1]),))

    @classmethod
    def with_layout(cls, array: NDArray[Any], layout: Layout | None) -> ModalityArray:
        """View `array` with the (name, width) pairs of its columns, end to end."""
        result = np.asarray(array).view(cls)
        result._layout = layout
        return result

    @property
    def modalities(self) -> dict[str, slice] | None:
        return None if self._layout is None else _lay_out(self._layout)

    def __array_finalize__(self, obj: Any) -> None:
        self._layout = None

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any
    ) -> Any:
        inputs = tuple(_plain(value) for value in inputs)
        if "out" in kwargs:
            for out in kwargs["out"]:
                if isinstance(out, ModalityArray):
                    out._layout = None
            kwargs["out"] = tuple(_plain(value) for value in kwargs["out"])
        return getattr(ufunc, method)(*inputs, **kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        result = super().__array_function__(func, types, args, kwargs)
        stacks = func in (np.concatenate, np.hstack, np.vstack)
        if not stacks or not args or "out" in kwargs:
            return _plain(result)
        if func is np.concatenate:
            axis = kwargs.get("axis", args[1] if len(args) > 1 else 0)
        else:
            axis = 1 if func is np.hstack else 0
        layout = _stack_layouts(list(args[0]), axis)
        result = _plain(result)
        return result if layout is None else self.with_layout(result, layout)

    def __getitem__(self, key: Any) -> Any:
        result = super().__getitem__(key)
        if not isinstance(result, ModalityArray):
            return result
        rows = key
        if isinstance(key, tuple) and len(key) == 2:
            whole = key[1] is Ellipsis or (
                isinstance(key[1], slice) and key[1] == slice(None)
            )
            rows = key[0] if whole else ()
        keeps = (
            not isinstance(rows, tuple)
            and self.ndim == result.ndim == 2
            and self.shape[1] == result.shape[1]
        )
        return self.with_layout(result, self._layout) if keeps else _plain(result)

    def copy(self, order: Any = "C") -> ModalityArray:
        """Copy with the modalities."""
        return self.with_layout(np.array(self, order=order), self._layout)

    def astype(self, *args: Any, **kwargs: Any) -> Any:
        """Cast, with the modalities."""
        return self.with_layout(np.asarray(self).astype(*args, **kwargs), self._layout)

    def __reduce__(self) -> Any:
        return ModalityArray.with_layout, (np.asarray(self), self._layout)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__reduce__()


def _plain(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, ModalityArray) else value


def _stack_layouts(arrays: list[Any], axis: Any) -> Layout | None:
    shapes = [np.shape(array) for array in arrays]
    if any(len(shape) != 2 for shape in shapes):
        return None
    layouts = [getattr(array, "_layout", None) for array in arrays]
    if axis in (0, -2):
        return layouts[0] if len(set(layouts)) == 1 else None
    if not any(layouts):
        return None
    pairs = [
        pair
        for layout, shape in zip(layouts, shapes, strict=True)
        for pair in layout or ((OTHER, shape[1]),)
    ]
    names = _unique(name for name, _ in pairs)
    return tuple((name, pair[1]) for name, pair in zip(names, pairs, strict=True))


def _unique(names: Iterable[str]) -> list[str]:
    taken: list[str] = []
    for name in names:
        candidate, number = name, 1
        while candidate in taken:
            number += 1
            candidate = f"{name}_{number}"
        taken.append(candidate)
    return taken


def _lay_out(widths: Iterable[tuple[str, int]]) -> dict[str, slice]:
    result, start = {}, 0
    for name, width in widths:
        result[name] = slice(start, start + width)
        start += width
    return result


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
        Column names; ``image__0`` belongs to ``image``.
    layout : tuple of (str, int) or None, default=None
        What a :class:`ModalityArray` remembers.

    Returns
    -------
    dict of str to slice or ndarray of int
        A slice where the columns follow one another. Every column is in one of them.

    Raises
    ------
    ValueError
        If the modalities do not share out all columns, each to one.

    Examples
    --------
    >>> from sklearn_difffeat._modalities import resolve_modalities
    >>> resolve_modalities({"image": 3, "text": 2}, 5)
    {'image': slice(0, 3, None), 'text': slice(3, 5, None)}
    """
    if spec is not None:
        return _from_spec(spec, n_features, names)
    prefixes = [name.partition("__") for name in (() if names is None else names)]
    if any(prefix and mark for prefix, mark, _ in prefixes):
        members: dict[str, list[int]] = {}
        for column, (prefix, mark, _) in enumerate(prefixes):
            members.setdefault(prefix if prefix and mark else OTHER, []).append(column)
        return {
            name: _compact(np.array(columns, dtype=np.intp))
            for name, columns in members.items()
        }
    if layout is not None:
        return {name: c for name, c in _lay_out(layout).items() if c.start < c.stop}
    return {UNDECLARED: slice(0, n_features)}


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
        spec = _lay_out(spec.items())
    owner = np.full(n_features, -1)
    result: dict[str, Columns] = {}
    for number, (name, value) in enumerate(spec.items()):
        columns = _column_indices(name, value, n_features, names)
        for column in columns:
            if owner[column] >= 0:
                other = list(spec)[owner[column]]
                raise ValueError(
                    f"modalities[{name!r}] overlaps modalities[{other!r}] in column "
                    f"{column}; give each column to one modality, once."
                )
            owner[column] = number
        result[name] = _compact(columns)
    lost = np.flatnonzero(owner < 0)
    if len(lost):
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
        found = [i for i, name in enumerate(names) if name == column]
        if not found:
            raise ValueError(
                f"{where} names the column {column!r}, which X does not have; use "
                f"names such as {names[0]!r}."
            )
        return found[0]
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
