"""Scores of a walk's points by scikit-learn's machinery for cross-validated search."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from traceback import extract_tb
from typing import Any

from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection._validation import (
    _insert_error_scores,
    _warn_or_raise_about_fit_failures,
)

from sklearn_difffeat.search._axes import Axis
from sklearn_difffeat.search._walk import Point


def metrics_of(results: Mapping[str, Any]) -> list[str]:
    """Return the metrics that ``cv_results_`` has; ``"score"`` if there is only one."""
    means = (name for name in results if name.startswith("mean_test_"))
    return [name.removeprefix("mean_test_") for name in means]


def followed_metric(refit: Any, metrics: list[str]) -> str:
    """Return the metric that ``refit`` names, else the first."""
    return refit if isinstance(refit, str) and refit in metrics else metrics[0]


class RepeatedSplits:
    """A splitter that gives all batches of a search the splits of the first.

    Scores on different splits could not be compared.
    """

    def __init__(self, cv: Any) -> None:
        self._cv = cv
        self._splits: list[Any] | None = None

    def split(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Split as usual, but only once."""
        if self._splits is None:
            self._splits = list(self._cv.split(*args, **kwargs))
        return self._splits


class Judge:
    """Turns points into candidates, evaluates them, and records the results.

    Parameters
    ----------
    search : LocalSearchCV
        Its ``_format_results`` adds the list of single fits' results, as "fits".
    axes : list of Axis
    evaluate : callable
        The function that BaseSearchCV passes to ``_run_search``.
    context : callback context or None
    """

    def __init__(
        self, search: Any, axes: Sequence[Axis], evaluate: Callable, context: Any
    ) -> None:
        self._search = search
        self._axes = axes
        self._evaluate = evaluate
        self._context = context
        self._cv = RepeatedSplits(search._checked_cv_orig)
        self._results: dict[str, Any] = {}
        self._fits: list[dict[str, Any]] = []
        self._scored: list[Point] = []
        self._failed: list[Point] = []
        self._failures: list[dict[str, Any]] = []

    def params_of(self, point: Point) -> dict[str, Any]:
        """Parameters that a point stands for."""
        return {a.name: a.values[i] for a, i in zip(self._axes, point, strict=True)}

    def record_of(self, point: Point) -> dict[str, Any]:
        """Parameters, score and place in the results of a point, after the search."""
        index = (self._scored + self._failed).index(point)
        score = float(self._results[self._score_name()][index])
        return {"params": self.params_of(point), "score": score, "index": index}

    def __call__(self, points: list[Point]) -> Sequence[float]:
        """Evaluate new points, as one batch.

        Parameters
        ----------
        points : list of n_points tuples of int
            Indices into the values of each axis.

        Returns
        -------
        sequence of n_points floats
            Mean test scores; ``error_score`` of all points where all fits failed.

        Raises
        ------
        Exception
            Whatever a fit raises, with ``error_score="raise"``; and what scikit-learn
            raises for another reason than that all fits failed.
        """
        candidates = [self.params_of(point) for point in points]
        n_fits = len(candidates) * self._search.n_splits_
        # finish() warns instead, once, with the failures of all batches.
        told = rf"\n\d+ fits failed out of a total of {n_fits}\."
        try:
            with self._batch_context(n_fits) as keywords, warnings.catch_warnings():
                warnings.filterwarnings("ignore", told, FitFailedWarning)
                results = self._evaluate(candidates, cv=self._cv, **keywords)
        except ValueError as error:
            if self._search.error_score == "raise" or not _tells_failures(error):
                raise
            # For scikit-learn a failed batch is a failed search; here it is one step of
            # many.
            self._failed += points
            self._failures += [{"fit_error": str(error)} for _ in range(n_fits)]
            return [self._search.error_score] * len(points)
        self._scored += points
        self._results, self._fits = results, results.pop("fits")
        return results[self._score_name()][-len(points) :]

    def finish(self, format_results: Callable) -> None:
        """Warn how many fits failed, and enter failed batches into the results.

        Parameters
        ----------
        format_results : callable
            ``BaseSearchCV._format_results``.

        Raises
        ------
        ValueError
            When all fits failed.
        """
        search, fits = self._search, [*self._fits, *self._failures]
        _warn_or_raise_about_fit_failures(fits, search.error_score)
        # Times were not measured; scikit-learn's time of a failed score is 0, too.
        unmeasured = self._fits[0] | {"fit_time": 0.0, "score_time": 0.0}
        scores = dict.fromkeys(("test_scores", "train_scores"), search.error_score)
        for failure in self._failures:
            failure |= unmeasured | scores | failure
        _insert_error_scores(fits, search.error_score)
        candidates = [self.params_of(point) for point in self._scored + self._failed]
        # fit() continues with this same dict.
        self._results.update(format_results(candidates, search.n_splits_, fits))

    def _score_name(self) -> str:
        """The column that the walk follows: the metric of ``refit``, or the first."""
        metrics = metrics_of(self._results)
        if metrics != ["score"]:
            self._search._check_refit_for_multimetric(metrics)
        return f"mean_test_{followed_metric(self._search.refit, metrics)}"

    @contextmanager
    def _batch_context(self, n_fits: int) -> Iterator[dict[str, Any]]:
        """Tell scikit-learn's callbacks when a batch begins and ends."""
        if self._context is None:
            yield {}
            return
        context = self._context.subcontext(
            task_name="batch", max_subtasks=n_fits, sequential_subtasks=False
        )
        context.call_on_fit_task_begin(estimator=self._search)
        try:
            yield {"callback_ctx": context}
        finally:
            context.call_on_fit_task_end(estimator=self._search)


def _tells_failures(error: ValueError) -> bool:
    """Whether scikit-learn raised the error because all fits of a batch failed."""
    raised_in = extract_tb(error.__traceback__)[-1].name
    return raised_in == _warn_or_raise_about_fit_failures.__name__
