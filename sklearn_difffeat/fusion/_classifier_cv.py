"""FusionClassifier with C and the modalities' weights chosen by folds."""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from sklearn import get_config
from sklearn.base import _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import get_scorer, get_scorer_names
from sklearn.metrics._scorer import _BaseScorer
from sklearn.model_selection import check_cv
from sklearn.utils import check_random_state, indexable
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.metadata_routing import (
    UNUSED,
    MetadataRouter,
    MethodMapping,
    process_routing,
)
from sklearn.utils.metadata_routing import (
    _raise_for_params as raise_for_params,
)
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import (
    _check_method_params,
    check_consistent_length,
    check_is_fitted,
)

from sklearn_difffeat._folds import folds_of_rows
from sklearn_difffeat._indicator import check_indicator, split_unknown
from sklearn_difffeat.fusion._candidates import (
    best_candidate,
    candidate_weights,
    fit_fold,
    grid_of_C,
)
from sklearn_difffeat.fusion._classifier import FusionClassifier
from sklearn_difffeat.metrics import mean_average_precision


class FusionClassifierCV(FusionClassifier):
    """FusionClassifier with C and the modalities' weights chosen by cross-validation.

    As :class:`~sklearn.linear_model.LogisticRegressionCV` does for LogisticRegression,
    it chooses its parameters in one fit. A weak modality beside a strong one can make
    the fused model worse than the strong one alone, so its weight, down to 0, is chosen
    together with C. All candidates of a fold share one Gram matrix, candidates with the
    same weights share its eigendecomposition, and each C starts from the solution of
    the next lower one.

    Parameters
    ----------
    Cs : int or array-like of float, default=(0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)
        Values of C to choose from; a number n means n values from 1e-4 to 1e4, evenly
        spaced on a logarithmic scale.
    modality_weights : "auto", dict or list of dict, default="auto"
        Weights to choose from, as in FusionClassifier: 1 where a modality is not named,
        and 0 leaves it out. A dict of str to float or list of float stands for all
        combinations of the values of its modalities, except for zeros only. A list
        holds one dict per candidate. "auto" tries equal weights, and each modality, or
        all others, at a weight of 0.3, 0.1 or 0.
    cv : int, cross-validation generator or iterable, default=None
        As for :func:`~sklearn.model_selection.check_cv`: five folds, stratified for
        classes, else in the order of the rows.
    scoring : str or callable, default=None
        None means the mean average precision of ``score``, over the known entries of y.
        For other scorers higher is better; scikit-learn's own do not take a y with NaN.
    n_jobs : int, default=None
        Folds fitted at the same time.
    modalities, fusion_dim, class_weight, standardize, max_iter, tol, device, \
random_state, verbose
        As for :class:`FusionClassifier`. In the folds `tol` is at least 1e-7 times the
        rows, or 1e-4 from 1,000 rows on.

    Attributes
    ----------
    C_ : float
        The C chosen.
    modality_weights_ : dict of str to float
        The weight chosen for each modality.
    scores_ : ndarray of shape (n_folds, n_weights, n_Cs), float64
        Score of each candidate on the rows that each fold held out.
    weights_ : list of dict of str to float
        The candidates along the second axis of `scores_`.
    Cs_ : ndarray of shape (n_Cs,), float64
        The candidates along its third axis.
    classes_, coef_, intercept_, centered_intercept_, projections_, heads_, \
modalities_, mean_, scale_, n_iter_, n_features_in_, feature_names_in_
        From the fit on all rows, as in :class:`FusionClassifier`.

    Notes
    -----
    The candidate with the best mean over the folds is chosen, but a modality is left
    out unless it brings more than one standard error of the difference over the folds.

    See Also
    --------
    FusionClassifier : C and weights are given.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_difffeat import FusionClassifierCV
    >>> random = np.random.default_rng(0)
    >>> X = random.normal(size=(60, 8))
    >>> Y = X[:, :2] + 0.3 * random.normal(size=(60, 2)) > 0
    >>> model = FusionClassifierCV(modalities={"text": 2, "noise": 6}, cv=3).fit(X, Y)
    >>> model.modality_weights_["text"], model.scores_.shape
    (1.0, (3, 7, 6))
    """

    __metadata_request__score = {"sample_weight": UNUSED}  # noqa: RUF012
    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012
        **{
            name: kinds
            for name, kinds in FusionClassifier._parameter_constraints.items()
            if name != "C"
        },
        "Cs": [Interval(Integral, 1, None, closed="left"), "array-like"],
        "modality_weights": [StrOptions({"auto"}), dict, list, tuple],
        "cv": ["cv_object"],
        "scoring": [StrOptions(set(get_scorer_names())), callable, None],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        Cs: Any = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
        modality_weights: Any = "auto",
        *,
        cv: Any = None,
        scoring: Any = None,
        n_jobs: int | None = None,
        modalities: dict[str, Any] | None = None,
        fusion_dim: int | None = None,
        class_weight: Any = None,
        standardize: bool = True,
        max_iter: int = 1000,
        tol: float = 1e-8,
        device: str | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.Cs = Cs
        self.modality_weights = modality_weights
        self.cv = cv
        self.scoring = scoring
        self.n_jobs = n_jobs
        self.modalities = modalities
        self.fusion_dim = fusion_dim
        self.class_weight = class_weight
        self.standardize = standardize
        self.max_iter = max_iter
        self.tol = tol
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ArrayLike,
        y: Any,
        sample_weight: ArrayLike | None = None,
        **params: Any,
    ) -> FusionClassifierCV:
        """Choose C and the weights, and fit projections and heads on all rows.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            As for FusionClassifier.
        y : array-like or sparse matrix of shape (n_samples,) or (n_samples, n_labels)
            As for FusionClassifier, NaN included.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in all fits, and in the scores of scorers that take
            them. A row of weight 0 is left out before the folds are made.
        **params : dict
            ``groups`` for the splitter; with metadata routing, whatever the splitter
            and the scorer ask for.

        Returns
        -------
        FusionClassifierCV
            The fitted estimator.

        Raises
        ------
        ValueError
            As for FusionClassifier, if Cs or the weights are no candidates, or if no
            candidate has a score.

        Examples
        --------
        >>> from sklearn.datasets import make_multilabel_classification
        >>> from sklearn_difffeat import FusionClassifierCV
        >>> X, Y = make_multilabel_classification(random_state=0)
        >>> FusionClassifierCV(Cs=[0.01, 0.1]).fit(X, Y).C_
        0.01
        """
        raise_for_params(params, self, "fit", allow=["groups"])
        rows = self._prepare(X, y, sample_weight)
        Cs = grid_of_C(self.Cs)
        weights = candidate_weights(self.modality_weights, rows)
        split, score = self._routed(params, sample_weight)
        given, _ = split_unknown(y)
        X, given = indexable(X, given if sparse.issparse(given) else np.asarray(given))
        cv = check_cv(self.cv, given, classifier=True)
        folds = folds_of_rows(cv, X, given, split, rows.number)
        seeds = check_random_state(self.random_state).randint(2**31, size=len(folds))
        found = Parallel(n_jobs=self.n_jobs)(
            delayed(fit_fold)(
                self,
                rows.take(train),
                rows.take(test),
                Cs,
                weights,
                self._scorer() or score_labels,
                _check_method_params(X, score, rows.number[test]),
                seed,
            )
            for (train, test), seed in zip(folds, seeds, strict=True)
        )
        scores = np.array([scores for scores, _ in found])
        n_unfinished = sum(number for _, number in found)
        if n_unfinished:
            warnings.warn(
                f"{n_unfinished} fits of an output in the folds did not converge in "
                f"max_iter={self.max_iter} steps; increase max_iter, raise tol or "
                "leave out the highest Cs.",
                ConvergenceWarning,
                stacklevel=3,
            )
        best, place = best_candidate(scores, weights)
        self._learn(rows, float(Cs[place]), weights[best])
        self.C_, self.modality_weights_ = float(Cs[place]), weights[best]
        self.scores_, self.weights_, self.Cs_ = scores, weights, Cs
        return self

    def score(
        self,
        X: ArrayLike,
        y: Any,
        sample_weight: ArrayLike | None = None,
        **params: Any,
    ) -> float:
        """Score by `scoring`.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        y : array-like or sparse matrix of shape (n_samples,) or (n_samples, n_labels)
            NaN where it is not known whether a row has a label, unless `scoring` says
            otherwise.
        sample_weight : array-like of shape (n_samples,), default=None
        **params : dict
            With metadata routing, what the scorer asks for.

        Returns
        -------
        float
            By default the mean average precision: of labels over the rows that know
            them, of classes each against the rest.
        """
        raise_for_params(params, self, "score")
        check_is_fitted(self)
        if self.scoring is None:
            return score_labels(self, X, y, sample_weight)
        _, params = self._routed(params, sample_weight, "score")
        return self._scorer()(self, X, y, **params)

    def _scorer(self) -> Any:
        return None if self.scoring is None else get_scorer(self.scoring)

    def _routed(
        self, params: dict[str, Any], sample_weight: Any, caller: str = "fit"
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The parameters for the splitter and the scorer."""
        scorer = self._scorer()
        weight = {} if sample_weight is None else {"sample_weight": sample_weight}
        if get_config()["enable_metadata_routing"]:
            routed = process_routing(self, caller, **weight, **params)
            split = routed.splitter.split if caller == "fit" else {}
            return split, weight if scorer is None else routed.scorer.score
        takes_weight = not isinstance(scorer, _BaseScorer) or (
            scorer._accept_sample_weight()
        )
        return params, weight if takes_weight else {}

    def get_metadata_routing(self) -> MetadataRouter:
        """Where ``fit`` and ``score`` send their metadata.

        Returns
        -------
        MetadataRouter
        """
        router = MetadataRouter(owner=self).add_self_request(self)
        router.add(
            splitter=check_cv(self.cv),
            method_mapping=MethodMapping().add(caller="fit", callee="split"),
        )
        if self.scoring is None:
            return router
        return router.add(
            scorer=self._scorer(),
            method_mapping=MethodMapping()
            .add(caller="score", callee="score")
            .add(caller="fit", callee="score"),
        )


def score_labels(
    model: FusionClassifier, X: Any, y: Any, sample_weight: Any = None
) -> float:
    """mAP over the known entries of y; for classes, of one against the rest."""
    proba, known = model.predict_proba(X), None
    if model._kind == "indicator":
        y, known = split_unknown(y)
        truth = check_indicator(y, "y")
    else:
        truth = np.asarray(y).reshape(-1, 1) == model.classes_
    check_consistent_length(proba, truth)
    if truth.shape != proba.shape:
        raise ValueError(
            f"y has {truth.shape[1]} labels, but fit had {proba.shape[1]}; give "
            "the same labels."
        )
    if model._kind == "binary":
        truth, proba = truth[:, 1:], proba[:, 1:]
    return mean_average_precision(truth, proba, known, sample_weight)
