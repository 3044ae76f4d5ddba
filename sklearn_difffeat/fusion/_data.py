"""What FusionClassifier computes from its data first: codes, weights, moments."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import column_or_1d, compute_class_weight, gen_batches
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from sklearn_difffeat._indicator import check_indicator
from sklearn_difffeat.modalities._array import Columns

Float: TypeAlias = NDArray[np.float64]


def encode_target(y: Any) -> tuple[str, NDArray[Any], NDArray[np.uint8]]:
    """Kind of target ("binary", "multiclass", "indicator"), classes, indicators."""
    check_classification_targets(y)
    target = type_of_target(y, input_name="y", raise_unknown=True)
    if target == "multilabel-indicator":
        Y = check_indicator(y, "y").astype(np.uint8)
        return "indicator", np.arange(Y.shape[1]), Y
    if target == "multiclass-multioutput":
        raise ValueError(
            "Multioutput target data is not supported; give one column of classes or "
            "an indicator matrix of 0 and 1."
        )
    classes, codes = np.unique(column_or_1d(y, warn=True), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            "This solver needs samples of at least 2 classes in the data, but the "
            f"data contains only one class: {classes[0]!r}"
        )
    if len(classes) == 2:
        return "binary", classes, codes[:, None].astype(np.uint8)
    return "multiclass", classes, np.eye(len(classes), dtype=np.uint8)[codes]


def class_weights(
    class_weight: Any,
    kind: str,
    classes: NDArray[Any],
    Y: NDArray[np.uint8],
    sample_weight: Float,
    known: NDArray[np.bool_] | None = None,
) -> tuple[Float, Float | None]:
    """Weights of the rows, and (2, n_labels) of each label's negatives and positives.

    Class weights multiply the weights of the rows. In an indicator matrix each label
    has its own: None without `class_weight`, and always None for classes.
    """
    if class_weight is None:
        return sample_weight, None
    if kind != "indicator":
        codes = Y.argmax(axis=1) if Y.shape[1] > 1 else Y[:, 0].astype(np.intp)
        by_class = compute_class_weight(
            class_weight, classes=classes, y=classes[codes], sample_weight=sample_weight
        )
        return sample_weight * _not_negative(by_class)[codes], None
    if isinstance(class_weight, str):
        counts = weighted_counts(Y, sample_weight, known)
        return sample_weight, counts.sum(axis=0) / (2 * np.where(counts > 0, counts, 1))
    n_labels = len(classes)
    if isinstance(class_weight, dict):
        class_weight = [class_weight] * n_labels
    if len(class_weight) != n_labels:
        raise ValueError(
            f"class_weight is a list of {len(class_weight)} but y has {n_labels} "
            "labels; give one dict per label."
        )
    by_label = np.ones((2, n_labels))
    for label, weights in enumerate(class_weight):
        for key, value in weights.items():
            if key not in (0, 1):
                raise ValueError(
                    f"class_weight has the class {key!r} for label {label}; the "
                    "classes of a label in an indicator matrix are 0 and 1."
                )
            by_label[int(key), label] = value
    return sample_weight, _not_negative(by_label)


def _not_negative(class_weight: Float) -> Float:
    wrong = class_weight[~((class_weight >= 0) & (class_weight < np.inf))]
    if len(wrong):
        raise ValueError(
            f"class_weight holds {wrong[0]}; give weights that are finite and not "
            "negative."
        )
    return class_weight


def weighted_counts(
    Y: NDArray[Any], sample_weight: Float, known: NDArray[np.bool_] | None = None
) -> Float:
    """Weight (2, n_labels) of the rows known to be without and with each label."""
    chunks = row_chunks(*Y.shape)
    positives = np.sum([sample_weight[rows] @ Y[rows] for rows in chunks], axis=0)
    if known is None:
        return np.vstack([sample_weight.sum() - positives, positives])
    negatives = np.sum(
        [sample_weight[rows] @ (known[rows] & (Y[rows] == 0)) for rows in chunks],
        axis=0,
    )
    return np.vstack([negatives, positives])


def absent_modalities(
    X: Any, modalities: dict[str, Columns], declared: bool
) -> NDArray[np.bool_] | None:
    """Where rows lack modalities, (n, n_modalities), or None if none does."""
    values = X.data if sparse.issparse(X) else X
    if not values.size or np.isfinite([values.min(), values.max()]).all():
        return None
    if np.isinf(values).any():
        row, column = np.argwhere(_marks(X, np.isinf))[0]
        raise ValueError(
            f"Input X contains infinity in row {row}, column {column}; give finite "
            "features, or leave the row out."
        )
    nan = _marks(X, np.isnan)
    if not nan.any():
        return None
    if not declared:
        row = int(nan.any(axis=1).argmax())
        raise ValueError(
            f"Input X contains NaN, first in row {row}; pass modalities= if the "
            "row lacks a modality, all columns of which may then be NaN."
        )
    absent = np.empty((X.shape[0], len(modalities)), dtype=bool)
    for number, (name, columns) in enumerate(modalities.items()):
        block = nan[:, columns]
        absent[:, number] = block.all(axis=1)
        partial = block.any(axis=1) & ~absent[:, number]
        if partial.any():
            row = int(partial.argmax())
            column = int(np.arange(X.shape[1])[columns][block[row].argmax()])
            raise ValueError(
                f"Input X contains NaN in row {row}, column {column}, but other "
                f"columns of modality {name!r} are given there; fill the row or make "
                "the whole modality NaN."
            )
    return absent


def _marks(X: Any, test: Any) -> NDArray[np.bool_]:
    if not sparse.issparse(X):
        return test(X)
    return sparse.csr_matrix((test(X.data), X.indices, X.indptr), X.shape).toarray()


def column_moments(
    X: Any,
    weight: Float,
    modalities: dict[str, Columns],
    absent: NDArray[np.bool_] | None,
) -> tuple[Float, Float]:
    """Weighted mean and standard deviation of the columns, 1 where constant."""
    total = np.full(X.shape[1], weight.sum())
    if absent is not None:
        for (name, columns), lacks in zip(modalities.items(), absent.T, strict=True):
            if lacks.all():
                raise ValueError(
                    f"Modality {name!r} is NaN in every row of X; remove its columns "
                    "or give rows that have it."
                )
            total[columns] = weight @ ~lacks
    # StandardScaler.partial_fit gives NaN if the first chunk lacks a modality, and
    # mistakes the rounding errors of a constant float32 column for its standard
    # deviation.
    zero, one = np.zeros(X.shape[1]), np.ones(X.shape[1])
    chunks = scaled_chunks(X, zero, one)
    mean = sum((weight[rows] @ block for rows, block in chunks), start=zero) / total
    chunks = scaled_chunks(X, mean, one)
    variance = sum((weight[rows] @ block**2 for rows, block in chunks), start=zero)
    scale = np.sqrt(variance / total)
    constant = scale <= 10 * np.finfo(X.dtype).eps * np.abs(mean)
    return mean, np.where(constant, 1.0, scale)


def column_weights(
    weights: dict[str, float] | None, modalities: dict[str, Columns], n_columns: int
) -> Float:
    """Weight of each column, that of its modality."""
    result = np.ones(n_columns)
    for name, weight in (weights or {}).items():
        if name not in modalities:
            raise ValueError(
                f"modality_weights names {name!r}, but the modalities of X are "
                f"{list(modalities)}; name one of these, or give the columns of "
                f"{name!r} by modalities=, by names from set_output(transform="
                "'pandas'), or by make_fusion_pipeline."
            )
        if not isinstance(weight, Real) or not 0 <= weight < np.inf:
            raise ValueError(
                f"modality_weights[{name!r}]={weight!r} is not a number of at "
                "least 0; give one, where 0 leaves the modality out."
            )
        result[modalities[name]] = weight
    if not result.any():
        raise ValueError(
            "modality_weights leaves out every modality of X; give one of them a "
            "positive weight."
        )
    return result


def standardized(X: Any, mean: Float, scale: Float) -> NDArray[Any]:
    """Standardised copy of X in its own precision, 0 where a modality is absent."""
    result = np.empty(X.shape, X.dtype)
    for rows, block in scaled_chunks(X, mean, scale):
        result[rows] = block
    return result


def scaled_chunks(X: Any, mean: Float, scale: Float) -> Iterator[tuple[slice, Float]]:
    """Chunks of rows, standardised in float64, with 0 for what is absent."""
    for rows in row_chunks(*X.shape):
        block = X[rows].toarray() if sparse.issparse(X) else X[rows]
        block = (block - mean) / scale
        np.nan_to_num(block, copy=False, nan=0.0)
        yield rows, block


def row_chunks(
    n_rows: int, n_columns: int, n_entries: int = 1 << 20, least: int = 256
) -> list[slice]:
    """Slices of rows with about `n_entries` entries, and `least` rows or more."""
    return list(gen_batches(n_rows, max(n_entries // max(n_columns, 1), least)))
