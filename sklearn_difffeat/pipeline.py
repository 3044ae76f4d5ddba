"""The fused pipeline in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline

from sklearn_difffeat.fusion import FusionClassifierCV
from sklearn_difffeat.modalities._array import ModalityArray


class ModalityColumnTransformer(ColumnTransformer):
    """ColumnTransformer whose arrays name the transformer of each column.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_difffeat.pipeline import ModalityColumnTransformer
    >>> stack = ModalityColumnTransformer(
    ...     [("image", "passthrough", [0, 1]), ("text", "passthrough", [2])]
    ... )
    >>> stack.fit_transform(np.zeros((2, 3))).modalities
    {'image': slice(0, 2, None), 'text': slice(2, 3, None)}
    """

    def fit_transform(self, X: Any, y: Any = None, **params: Any) -> Any:
        """Fit all transformers and stack their outputs, with their names."""
        return self._label(super().fit_transform(X, y, **params))

    def transform(self, X: Any, **params: Any) -> Any:
        """Stack the outputs of all transformers, with their names."""
        return self._label(super().transform(X, **params))

    def _label(self, output: Any) -> Any:
        if not isinstance(output, np.ndarray):
            return output
        spans = sorted((c.start, c.stop, n) for n, c in self.output_indices_.items())
        layout = tuple((name, end - begin) for begin, end, name in spans if end > begin)
        return ModalityArray.with_layout(output, layout)


def make_fusion_pipeline(
    *transformers: tuple[str, Any, Any],
    classifier: Any = None,
    memory: Any = None,
    verbose: bool = False,
) -> Pipeline:
    """Make a pipeline of one transformer per modality and a fusion classifier.

    Parameters
    ----------
    *transformers : tuple of (name, transformer, columns)
        As for :class:`~sklearn.compose.ColumnTransformer`; each name is a modality.
    classifier : estimator, default=None
        None means ``FusionClassifierCV()``, which chooses C and the weights of the
        modalities by cross-validation; give a :class:`FusionClassifier` to fit once.
    memory : str or joblib.Memory, default=None
        Passed to :class:`~sklearn.pipeline.Pipeline`.
    verbose : bool, default=False
        Passed to the pipeline.

    Returns
    -------
    Pipeline
        With the steps "features" and "classifier".

    Raises
    ------
    ValueError
        If there is no transformer, or one is not a triple.

    Examples
    --------
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_difffeat import make_fusion_pipeline
    >>> model = make_fusion_pipeline(
    ...     ("image", StandardScaler(), [0, 1]), ("text", StandardScaler(), [2])
    ... )
    >>> X = [[0, 0, 0], [0, 1, 1], [1, 0, 3], [1, 1, 4]] * 5
    >>> list(model.fit(X, [0, 0, 1, 1] * 5)["classifier"].modality_weights_)
    ['image', 'text']
    """
    if not transformers:
        raise ValueError(
            "make_fusion_pipeline has no transformers; give at least one (name, "
            "transformer, columns)."
        )
    for number, item in enumerate(transformers):
        if not isinstance(item, tuple) or len(item) != 3:
            raise ValueError(
                f"Transformer {number} of make_fusion_pipeline is {item!r}; give "
                "(name, transformer, columns)."
            )
    features = ModalityColumnTransformer(list(transformers), sparse_threshold=0)
    head = FusionClassifierCV() if classifier is None else classifier
    steps = [("features", features), ("classifier", head)]
    return Pipeline(steps, memory=memory, verbose=verbose)
