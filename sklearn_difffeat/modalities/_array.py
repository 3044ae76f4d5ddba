"""A feature matrix that carries which columns belong to which modality."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Columns: TypeAlias = slice | NDArray[np.intp]
Layout: TypeAlias = tuple[tuple[str, int], ...]

OTHER = "other"


class ModalityArray(np.ndarray):
    """A feature matrix that remembers which columns belong to which modality.

    :class:`~sklearn.compose.ColumnTransformer` stacks the outputs of its transformers
    with :func:`numpy.hstack`; stacking these arrays keeps what would be lost with the
    column names. Rows may be selected, copied, cast, stacked and pickled; after any
    other numpy operation the modalities are lost.

    Attributes
    ----------
    modalities : dict of str to slice, or None
        Columns of each modality, in the order of the columns; None after they are lost.
        A repeated name gets a number here.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_difffeat.modalities._array import ModalityArray
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
        >>> from sklearn_difffeat.modalities._array import ModalityArray
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
        if self._layout is None:
            return None
        widths: dict[str, int] = {}
        for name, width in self._layout:
            widths[free_name(name, 2, widths) if name in widths else name] = width
        return lay_out(widths.items())

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
    return tuple(
        pair
        for layout, shape in zip(layouts, shapes, strict=True)
        for pair in layout or ((OTHER, shape[1]),)
    )


def free_name(name: str, number: int, taken: Iterable[str]) -> str:
    """The name with the first number, from this one on, that is not in use yet."""
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"


def lay_out(widths: Iterable[tuple[str, int]]) -> dict[str, slice]:
    """Columns of modalities of these widths, one after another."""
    result, start = {}, 0
    for name, width in widths:
        result[name] = slice(start, start + width)
        start += width
    return result
