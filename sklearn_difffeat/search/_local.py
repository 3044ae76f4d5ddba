"""Search for block and timestep without a full grid."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from sklearn_difffeat.search._axes import build_axes
from sklearn_difffeat.search._judge import Judge
from sklearn_difffeat.search._walk import Point, Walk


class LocalSearchCV(BaseSearchCV):
    """Cross-validated search that walks to a local best instead of trying a full grid.

    Diff-Feat [1]_ finds the pair of (block, timestep) of the image and of the text by a
    heuristic local search, whose steps it does not describe; the rules of this search
    are our own. It starts where the paper found the best features. The parameters of
    each estimator in ``param_space`` are improved first, then all together, by steps
    along ordered values that shrink from a quarter of an axis to one value. No
    candidate is tried twice.

    With a ``cache`` a new timestep costs a pass of all rows through the model, and a
    block at a timestep already visited costs none. So the search tries blocks before
    timesteps, and new timesteps one at a time, less noise first, only while the score
    rises.

    Parameters
    ----------
    estimator : estimator
        Any scikit-learn estimator; it need not use diffusion features.
    param_space : dict of str to list, tuple or ndarray of shape (n_values,)
        Parameter names and their values, ordered so that neighbours are similar;
        numbers have to be sorted, upwards or downwards. Timesteps are those of the
        training schedule.
    start : dict of str to value, "auto" or None, default=None
        Where to start, for all parameters or some. None starts where the paper found
        the best features: the middle value for block and timestep of an image; the
        deepest block and the smallest timestep for a text; the middle for every other
        parameter. Of two middle values the first is taken. "auto" starts there as well
        and then tries, for each transformer whose backbone has a published reading
        (:func:`~sklearn_difffeat.describe_backbone` shows it), those of its blocks that
        are among the values, at the nearest timestep; the walk goes on from the best.
    scoring : str, callable, list, tuple or dict, default=None
        As for :class:`~sklearn.model_selection.GridSearchCV`. With several metrics the
        walk follows the one that ``refit`` names, else the first.
    cv : int, splitter or iterable, default=None
        As for GridSearchCV; all candidates get the same splits, also of a splitter
        that shuffles without a seed.
    max_candidates : int, default=None
        Largest number of candidates; None searches until no step improves the score.
    max_passes : int, default=None
        Largest number of passes, as ``n_passes_`` counts them. After that the search
        only uses what was computed. The start is always evaluated.
    n_jobs : int, default=None
        joblib jobs over the fits of a batch; a batch is the neighbours of a point.
    refit : bool, str or callable, default=True
        As for GridSearchCV.
    verbose : int, default=0
        From 1 on, print each batch and each move; from 2 on, as GridSearchCV.
    pre_dispatch : int or str, default="2*n_jobs"
        As for GridSearchCV.
    error_score : "raise" or float, default=nan
        Score of a fit that fails; NaN is worse than any other score. A FitFailedWarning
        counts the failed fits of the whole search; "raise" raises the first error.
    return_train_score : bool, default=False
        Whether ``cv_results_`` has training scores.
    n_restarts : int, default=0
        Further searches, each from a random point far from all points tried. They help
        where the scores have several peaks.
    random_state : int or RandomState, default=None
        Seeds the points to restart from.

    Attributes
    ----------
    n_candidates_ : int
        Candidates evaluated.
    n_passes_ : int
        Number of settings that cost a pass (timesteps, and all else in the space that
        changes the stored features), counted for each transformer and added; 0 where no
        parameter belongs to a transformer.
    path_ : list of dict
        The places that the search went to, in order; for each ``params``, ``score``,
        ``index`` in ``cv_results_`` and ``stage``: "start", the path of an estimator
        ("walk" for the searched one itself), "joint" or "restart 1" and so on.
    cv_results_, best_estimator_, best_score_, best_params_, best_index_, scorer_, \
n_splits_, refit_time_, multimetric_, classes_, n_features_in_, feature_names_in_
        As in GridSearchCV.

    Raises
    ------
    TypeError
        By ``fit``, when values are no sequence.
    ValueError
        By ``fit``, when values are empty, unordered or repeated, a start is not among
        the values, a parameter is unknown, or all fits failed.

    See Also
    --------
    BlockTimestepDisplay : Map of the scores with the path of the walk.

    References
    ----------
    .. [1] Lan, Zheng and Yin, "Diff-Feat", arXiv:2509.15553, 2025.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.svm import SVC
    >>> from sklearn_difffeat import LocalSearchCV
    >>> space = {"C": [0.01, 0.1, 1, 10, 100], "gamma": [0.001, 0.01, 0.1, 1, 10]}
    >>> search = LocalSearchCV(SVC(), space).fit(*load_iris(return_X_y=True))
    >>> search.n_candidates_ < 25
    True
    >>> search.path_[0]["params"]
    {'C': 1, 'gamma': 0.1}
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseSearchCV._parameter_constraints,
        "param_space": [dict],
        "start": [dict, StrOptions({"auto"}), None],
        "max_candidates": [Interval(numbers.Integral, 1, None, closed="left"), None],
        "max_passes": [Interval(numbers.Integral, 1, None, closed="left"), None],
        "n_restarts": [Interval(numbers.Integral, 0, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: Any,
        param_space: Mapping[str, Sequence[Any]],
        *,
        start: Mapping[str, Any] | str | None = None,
        scoring: Any = None,
        cv: Any = None,
        max_candidates: int | None = None,
        max_passes: int | None = None,
        n_jobs: int | None = None,
        refit: bool | str | Callable = True,
        verbose: int = 0,
        pre_dispatch: int | str = "2*n_jobs",
        error_score: str | float = np.nan,
        return_train_score: bool = False,
        n_restarts: int = 0,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(
            estimator=estimator,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.param_space = param_space
        self.start = start
        self.max_candidates = max_candidates
        self.max_passes = max_passes
        self.n_restarts = n_restarts
        self.random_state = random_state

    def _run_search(
        self, evaluate_candidates: Callable, *, callback_ctx: Any = None
    ) -> None:
        axes = build_axes(self.estimator, self.param_space, self.start)
        context = callback_ctx
        if context is not None:
            context = context.subcontext(
                task_name="search", max_subtasks=None
            ).call_on_fit_task_begin(estimator=self)
        moves: list[tuple[Point, str]] = []
        judge = Judge(self, axes, evaluate_candidates, context)

        def note(point: Point, stage: str) -> None:
            moves.append((point, stage))
            if self.verbose > 0:
                score, params = walk.scores[point], judge.params_of(point)
                print(f"{stage}: {score:.4f} with {params}")

        walk = Walk(axes, judge, self.max_candidates, note, self.max_passes)
        walk.run(self.n_restarts, check_random_state(self.random_state))
        judge.finish(super()._format_results)
        self.n_candidates_ = len(walk.scores)
        self.n_passes_ = len(walk.passes)
        self.path_ = [judge.record_of(p) | {"stage": stage} for p, stage in moves]
        if context is not None:
            context.call_on_fit_task_end(estimator=self)

    def _format_results(
        self, candidate_params: list, n_splits: int, out: list, more_results: Any = None
    ) -> dict[str, Any]:
        with warnings.catch_warnings():
            # finish() warns of non-finite scores, once for all batches.
            warnings.filterwarnings("ignore", message="One or more of the")
            results = super()._format_results(
                candidate_params, n_splits, out, more_results
            )
        return results | {"fits": out}
