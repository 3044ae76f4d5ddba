"""Fuse the features of several modalities and classify: features -> labels."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse, special
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)

from sklearn_difffeat._indicator import check_indicator, split_unknown
from sklearn_difffeat.fusion._data import (
    Float,
    absent_modalities,
    column_weights,
    encode_target,
    scaled_chunks,
    standardized,
)
from sklearn_difffeat.fusion._input import (
    MATRIX,
    check_dense_copy_fits,
    densified_columns,
    warn_of_sparse_stacks,
)
from sklearn_difffeat.fusion._solver import Solution, solve
from sklearn_difffeat.fusion._training import TrainingRows
from sklearn_difffeat.modalities._array import Columns
from sklearn_difffeat.modalities._columns import names_modalities, resolve_modalities


class FusionClassifier(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierMixin, BaseEstimator
):
    """Logistic classifier on the sum of one linear projection per modality.

    Every column is standardised, every modality is projected linearly, the projections
    are added, and the sum goes to one logistic classifier per label, its head [1]_.
    With ``fusion_dim=None`` the fit is the convex problem of one
    :class:`~sklearn.linear_model.LogisticRegression` per label, solved for all labels
    in the same matrix products. With ``fusion_dim=k`` the labels share k directions,
    and the L2 penalty on projections and heads is the trace norm of their product.

    The fit is deterministic and does not depend on the order of the rows.

    Parameters
    ----------
    modalities : dict of str to slice, list or int, default=None
        Columns of each modality: a slice, a list of column names or positions, or the
        width of modalities that follow one another. None takes the prefix before ``__``
        in the column names ("other" where a name has none). Without such names it takes
        what the transformers of this package record on their output, "image" and
        "text", or "text_1", "text_2" where there are several of a kind. Otherwise X is
        one modality.
    fusion_dim : int, default=None
        Width k of the sum of the projections.
    C : float, default=1.0
        Weight of the log loss, summed over the rows, against half the squared norm
        of the weights, as in LogisticRegression. Intercepts are not penalised.
    class_weight : "balanced", dict or list of dict, default=None
        Weights of the classes. For indicator y the classes of a label are 0 and 1,
        "balanced" is taken label by label, and a list holds one dict per label.
    modality_weights : dict of str to float, default=None
        Factor on the standardised columns of a modality, 1 where not named. The weights
        of a modality with factor f are penalised 1/f**2 times as strongly. Use less
        than 1 for a weak modality beside a strong one, and 0 to leave it out.
    standardize : bool, default=True
        Bring each column to mean 0 and variance 1 over the weighted rows that have
        its modality, so that a few very large channels do not dominate the penalty.
    max_iter : int, default=1000
        Largest number of L-BFGS steps, for the convex and for the factorised fit.
    tol : float, default=1e-8
        The fit of a label ends when a step is expected to lower its objective by less
        than this share of it; in float32 at least 1.5e-8 is used.
    device : str, default=None
        Torch device of the matrix products of the fit, such as "cuda" or "cpu"; None
        fits with numpy. The fitted model holds numpy arrays in both cases.
    random_state : int, RandomState instance or None, default=None
        Used only beyond 4,096 columns, to estimate the principal axes that
        precondition the steps; the optimum does not depend on it.
    verbose : bool, default=False
        Show a progress bar that counts the labels fitted.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The classes in y; for indicator y the label numbers ``0, ..., n_labels - 1``.
    coef_ : ndarray of shape (n_outputs, n_features), float32 or float64 as X
        Weights of the columns of X: for rows with every modality the decision is
        ``X @ coef_.T + intercept_``. n_outputs is 1 for binary y, else the number of
        classes or labels.
    intercept_ : ndarray of shape (n_outputs,)
        Intercepts of the decision.
    centered_intercept_ : ndarray of shape (n_outputs,)
        Decision for a row that has no modality, or has the mean in every column.
    projections_ : dict of str to ndarray of shape (d_m, k)
        Projection of each modality's standardised columns; k is n_outputs without
        `fusion_dim`.
    heads_ : ndarray of shape (k, n_outputs) or None
        Heads on the fused representation; None without `fusion_dim`.
    modalities_ : dict of str to slice or ndarray of int
        Columns of each modality.
    mean_, scale_ : ndarray of shape (n_features,), float64
        Subtracted from a column, and divisor of the result: the standard deviation
        divided by the weight of the modality, infinite at weight 0.
    n_iter_ : int
        Largest number of L-BFGS steps that a label, or the factorised fit, took.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of shape (n_features,)
        Only when X has string column names.

    Notes
    -----
    A row whose columns of one modality are all NaN does not have that modality. The
    modality then adds nothing to its decision, in fit and in prediction.

    For indicator y, ``predict`` calls a label present where its probability is at least
    0.5.
    :class:`TunedThresholdsClassifierCV` gives every label a threshold of its own.

    A label that is constant in y is predicted constant, with the probability that
    follows if half a row of the other kind is added.

    NaN in an indicator y means that the entry is not known. It is left out of the loss
    and of the balanced weights of its label, so that each label gets the weights of a
    LogisticRegression on the rows where it is known. Columns are standardised over all
    rows. A label that is not known in any row is predicted absent, with a probability
    just below 0.5. scikit-learn's own checks of y do not accept NaN: give a search over
    such rows a splitter, such as ``cv=KFold(5)``, and leave ``scoring`` at None.

    The fit with `fusion_dim` starts from the directions in which the solution without
    it keeps most of its logits. With a small `fusion_dim` the problem is not convex:
    the objective never rises, but another start may end lower. A `fusion_dim` above
    ``min(n_features, n_outputs)`` only adds columns of zeros.

    References
    ----------
    .. [1] Lan, Zheng, Yin (2025). Diff-Feat. arXiv:2509.15553. From its abstract: one
       linear projection per modality, then addition. The objective and the solver
       here are this package's own.

    Examples
    --------
    >>> from sklearn.datasets import make_multilabel_classification
    >>> from sklearn_difffeat import FusionClassifier
    >>> X, Y = make_multilabel_classification(n_features=10, random_state=0)
    >>> model = FusionClassifier(modalities={"image": 6, "text": 4}, fusion_dim=3)
    >>> model.fit(X, Y).predict_proba(X).shape
    (100, 5)
    >>> model.transform(X).shape
    (100, 3)
    """

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012
        "modalities": [dict, None],
        "fusion_dim": [Interval(Integral, 1, None, closed="left"), None],
        "C": [Interval(Real, 0, None, closed="neither")],
        "class_weight": [StrOptions({"balanced"}), dict, list, None],
        "modality_weights": [dict, None],
        "standardize": ["boolean"],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "device": [str, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        *,
        modalities: dict[str, Any] | None = None,
        fusion_dim: int | None = None,
        C: float = 1.0,
        class_weight: Any = None,
        modality_weights: dict[str, float] | None = None,
        standardize: bool = True,
        max_iter: int = 1000,
        tol: float = 1e-8,
        device: str | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.modalities = modalities
        self.fusion_dim = fusion_dim
        self.C = C
        self.class_weight = class_weight
        self.modality_weights = modality_weights
        self.standardize = standardize
        self.max_iter = max_iter
        self.tol = tol
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: ArrayLike, y: Any, sample_weight: ArrayLike | None = None
    ) -> FusionClassifier:
        """Fit projections and heads.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            float32 and float64 are kept; rows may lack modalities (all NaN). A sparse
            X is fitted as the dense one: its standardised copy is dense.
        y : array-like or sparse matrix of shape (n_samples,) or (n_samples, n_labels)
            Classes, or an indicator matrix of 0 and 1. In a dense one, NaN (None,
            pandas.NA) means that it is not known whether the row has the label.
        sample_weight : array-like of shape (n_samples,), default=None
            A weight of 2 counts a row twice, a weight of 0 leaves it out.

        Returns
        -------
        FusionClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If modalities do not cover each column of X once, if a row has infinity or
            has some but not all columns of a modality, or if y is not a classification
            target.
        MemoryError
            If the dense copy of a sparse X is larger than the machine's memory.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn_difffeat import FusionClassifier
        >>> X = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, np.nan], [3.0, 2.0]])
        >>> model = FusionClassifier(modalities={"image": 1, "text": 1})
        >>> model.fit(X, [0, 0, 1, 1]).predict(X)
        array([0, 0, 1, 1])
        """
        return self._learn(
            self._prepare(X, y, sample_weight), self.C, self.modality_weights
        )

    def _prepare(self, X: Any, y: Any, sample_weight: Any) -> TrainingRows:
        """Check what fit was given; rows without weight are left out."""
        layout = getattr(X, "_layout", None)
        filled, known = split_unknown(y)
        if known is None or known.ndim != 2:
            filled, known = y, None
        elif known.shape[1] < 2:
            raise ValueError(
                "Input y contains NaN, and only an indicator matrix of two labels or "
                "more may; leave out the rows whose class is not known."
            )
        data, target = validate_data(
            self, densified_columns(X), filled, multi_output=True, **MATRIX
        )
        check_dense_copy_fits(data)
        weight = _check_sample_weight(
            sample_weight, data, dtype=np.float64, ensure_non_negative=True
        )
        names = getattr(self, "feature_names_in_", None)
        modalities = resolve_modalities(
            self.modalities, data.shape[1], names=names, layout=layout
        )
        declared = self.modalities is not None or names_modalities(names, layout)
        if not declared:
            warn_of_sparse_stacks(data)
        absent = absent_modalities(data, modalities, declared)
        rows = np.flatnonzero(weight)
        if len(rows) < len(weight):
            data, target, weight = data[rows], target[rows], weight[rows]
            absent = None if absent is None else absent[rows]
            known = None if known is None else known[rows]
        kind, classes, Y = encode_target(target)
        return TrainingRows(
            number=rows,
            X=data,
            target=target,
            kind=kind,
            classes=classes,
            Y=Y,
            known=known,
            weight=weight,
            modalities=modalities,
            absent=absent,
            layout=layout,
            declared=declared,
        )

    def _learn(
        self, rows: TrainingRows, C: float, weights: dict[str, float] | None
    ) -> FusionClassifier:
        class_weights = rows.class_weights(self.class_weight)
        mean, scale = rows.moments(self.standardize)
        factor = column_weights(weights, rows.modalities, len(scale))
        with np.errstate(divide="ignore"):
            scale = scale / factor
        varied, centered = rows.constants()
        found = None
        if varied.any():
            problem = rows.problem(
                standardized(rows.X, mean, scale),
                varied,
                class_weights,
                C=C,
                device=self.device,
                seed=check_random_state(self.random_state),
            )
            found = solve(
                problem,
                rank=self.fusion_dim,
                tol=self.tol,
                max_iter=self.max_iter,
                verbose=bool(self.verbose),
            )
            if found.n_unfinished:
                warnings.warn(
                    f"The fit of {found.n_unfinished} output(s) did not converge in "
                    f"max_iter={self.max_iter} steps; increase max_iter, raise tol or "
                    "lower C.",
                    ConvergenceWarning,
                    stacklevel=4,
                )
        return self._keep(rows, mean, scale, varied, centered, found)

    def _keep(
        self,
        rows: TrainingRows,
        mean: Float,
        scale: Float,
        varied: NDArray[np.bool_],
        centered: Float,
        found: Solution | None,
    ) -> FusionClassifier:
        """Store the solution of the labels that vary, and constants for the others."""
        n_outputs = rows.Y.shape[1]
        k = self.fusion_dim or n_outputs
        projection, heads = np.zeros((len(scale), k)), np.eye(k, n_outputs)
        if found is not None:
            centered[varied] = found.intercept
            if found.projection is None:
                projection[:, varied] = found.heads
            else:
                projection, heads = found.projection, np.zeros((k, n_outputs))
                heads[:, varied] = found.heads
        coef = projection if self.fusion_dim is None else projection @ heads
        coef = coef / scale[:, None]
        dtype = rows.X.dtype
        self.modalities_, self.classes_ = rows.modalities, rows.classes
        self.mean_, self.scale_ = mean, scale
        self.coef_ = np.ascontiguousarray(coef.T, dtype=dtype)
        self.intercept_ = (centered - mean @ coef).astype(dtype)
        self.centered_intercept_ = centered.astype(dtype)
        self.projections_ = {
            name: projection[columns].astype(dtype)
            for name, columns in rows.modalities.items()
        }
        self.heads_ = None if self.fusion_dim is None else heads.astype(dtype)
        self.n_iter_ = 0 if found is None else found.n_iter
        self._kind, self._layout = rows.kind, rows.layout
        self._declared = rows.declared
        self._sparse_target = sparse.issparse(rows.target)
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """Logits of the labels or classes.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Log odds, float32 or float64 as in fit, and 1-D for binary y.

        Raises
        ------
        ValueError
            If X has other columns or modalities than in fit, or infinity, or a row has
            some but not all columns of a modality. All methods that take X raise it.

        Examples
        --------
        >>> from sklearn_difffeat import FusionClassifier
        >>> model = FusionClassifier().fit([[0], [1]], [0, 1])
        >>> model.decision_function([[0], [1]]).round(1)
        array([-0.7,  0.7])
        """
        logits = self._project(self._validate(X), self._weights())
        logits += self.centered_intercept_
        return logits[:, 0] if self._kind == "binary" else logits

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Probabilities of the labels, each by itself, or of the classes.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_labels) or (n_samples, n_classes)
            float32 or float64 as in fit. Those of classes sum to 1 in a row.

        Examples
        --------
        >>> from sklearn_difffeat import FusionClassifier
        >>> FusionClassifier().fit([[0], [1]], [0, 1]).predict_proba([[0.5]])
        array([[0.5, 0.5]])
        """
        logits = self._logits_by_class(X)
        if self._kind == "multiclass":
            return special.softmax(logits, axis=1)
        return special.expit(logits)

    def predict_log_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Logarithms of the probabilities, exact where they underflow.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_labels) or (n_samples, n_classes)

        Examples
        --------
        >>> from sklearn_difffeat import FusionClassifier
        >>> FusionClassifier().fit([[0], [1]], [0, 1]).predict_log_proba([[0.5]]).shape
        (1, 2)
        """
        logits = self._logits_by_class(X)
        if self._kind == "multiclass":
            return special.log_softmax(logits, axis=1)
        return special.log_expit(logits)

    def predict(self, X: ArrayLike) -> Any:
        """Classes, or an indicator matrix that is sparse if y was.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,), or ndarray or CSR of shape (n_samples, n_labels)

        Examples
        --------
        >>> from sklearn_difffeat import FusionClassifier
        >>> FusionClassifier().fit([[0], [1]], ["no", "yes"]).predict([[2]])
        array(['yes'], dtype='<U3')
        """
        logits = self.decision_function(X)
        if self._kind == "indicator":
            # Not logits >= 0: the probability of a tiny negative one rounds to 0.5.
            indicator = (special.expit(logits) >= 0.5).astype(np.int64)
            return sparse.csr_matrix(indicator) if self._sparse_target else indicator
        if self._kind == "binary":
            return self.classes_[(logits > 0).astype(np.intp)]
        return self.classes_[logits.argmax(axis=1)]

    def score(
        self, X: ArrayLike, y: Any, sample_weight: ArrayLike | None = None
    ) -> float:
        """Accuracy: the share of rows with every known label, or the class, right.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        y : array-like or sparse matrix of shape (n_samples,) or (n_samples, n_labels)
            As for ``fit``, NaN included.
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        float
            As for any classifier in scikit-learn; NaN where nothing in y is known. With
            many labels it is near 0: compare models by mean average precision instead,
            as :class:`FusionClassifierCV` does.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn_difffeat import FusionClassifier
        >>> X, Y = [[0], [1], [2]], [[0, 1], [np.nan, 0], [1, 0]]
        >>> FusionClassifier().fit(X, Y).score(X, Y)
        1.0
        """
        check_is_fitted(self)
        if self._kind == "indicator":
            y, known = split_unknown(y)
            if known is not None:
                y = check_indicator(y, "y")
                found = self.predict(X)
                found = found.toarray() if sparse.issparse(found) else found
                if found.shape != y.shape:
                    raise ValueError(
                        f"y has the shape {y.shape}, but the prediction {found.shape}; "
                        "give the rows of X and the labels of fit."
                    )
                right = ((found == y) | ~known).all(axis=1)
                # A row without any known entry does not count.
                counted = known.any(axis=1) * _check_sample_weight(sample_weight, y)
                if not counted.any():
                    return float("nan")
                return float(right @ counted / counted.sum())
        return super().score(X, y, sample_weight)

    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Fused representation: the sum of the projected modalities.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, k)
            Without `fusion_dim`, these are the logits minus their intercepts.

        Examples
        --------
        >>> from sklearn_difffeat import FusionClassifier
        >>> FusionClassifier().fit([[0], [1]], [0, 1]).transform([[0.5]]).round() + 0
        array([[0.]])
        """
        return self._project(self._validate(X), self._projection())

    def modality_contributions(self, X: ArrayLike) -> dict[str, NDArray[Any]]:
        """Contribution of each modality to every logit.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)

        Returns
        -------
        dict of str to ndarray of shape (n_samples, n_outputs)
            Together with ``centered_intercept_`` they add up to the logits. A modality
            that a row lacks contributes 0.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn_difffeat import FusionClassifier
        >>> model = FusionClassifier(modalities={"image": 1, "text": 1})
        >>> _ = model.fit([[0, 0], [1, 0], [0, 1], [1, 1]], [0, 0, 0, 1])
        >>> shares = model.modality_contributions([[1, np.nan]])
        >>> shares["image"] > 0, shares["text"]
        (array([[ True]]), array([[0.]]))
        """
        data = self._validate(X)
        if not self._declared:
            warnings.warn(
                "X had no modalities in fit, so all columns are one modality; pass "
                "modalities= or build the model with make_fusion_pipeline.",
                stacklevel=2,
            )
        weights = self._weights()
        return {
            name: self._project(data, weights[columns], columns)
            for name, columns in self.modalities_.items()
        }

    def __sklearn_is_fitted__(self) -> bool:
        # A fit that was interrupted has set n_features_in_ already.
        return hasattr(self, "coef_")

    @property
    def _n_features_out(self) -> int:
        return next(iter(self.projections_.values())).shape[1]

    def _validate(self, X: Any) -> NDArray[Any]:
        check_is_fitted(self)
        layout = getattr(X, "_layout", None)
        X = validate_data(self, densified_columns(X), reset=False, **MATRIX)
        if layout and self._layout and layout != self._layout:
            raise ValueError(
                f"The modalities of X should match those of fit: X has {layout}, fit "
                f"had {self._layout}; stack them in the same order and widths."
            )
        absent_modalities(X, self.modalities_, self._declared)
        return X

    def _logits_by_class(self, X: ArrayLike) -> NDArray[Any]:
        logits = self.decision_function(X)
        return np.column_stack([-logits, logits]) if self._kind == "binary" else logits

    def _weights(self) -> NDArray[Any]:
        """Weights (n_features, n_outputs) of the standardised columns."""
        # The scale of a modality of weight 0 is infinite.
        scale = np.where(np.isinf(self.scale_), 0, self.scale_)
        return self.coef_.T * scale[:, None]

    def _projection(self) -> NDArray[Any]:
        result = np.empty((self.n_features_in_, self._n_features_out))
        for name, owned in self.modalities_.items():
            result[owned] = self.projections_[name]
        return result

    def _project(
        self, X: NDArray[Any], weights: NDArray[Any], columns: Columns = slice(None)
    ) -> NDArray[Any]:
        weights = weights.astype(self.coef_.dtype)
        result = np.empty((X.shape[0], weights.shape[1]), dtype=self.coef_.dtype)
        mean, scale = self.mean_[columns], self.scale_[columns]
        for rows, block in scaled_chunks(X[:, columns], mean, scale):
            result[rows] = block.astype(self.coef_.dtype) @ weights
        return result

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.input_tags.sparse = True
        # Without declared modalities a NaN has no meaning and is refused.
        tags.input_tags.allow_nan = self.modalities is not None
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
