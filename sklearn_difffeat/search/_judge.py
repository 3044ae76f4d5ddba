"""Scores of a walk's points by scikit-learn's machinery for cross-validated search."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection._validation import _warn_or_raise_about_fit_failures

from sklearn_difffeat.search._axes import Axis
from sklearn_difffeat.search._walk import Point

_FAILURES = re.compile(
    r"-{80}\n(\d+) fits failed with the following error:\n(.*?)(?=\n?-{80}\n\d|\Z)",
    re.DOTALL,
)


class RepeatedSplits:
    """A splitter that gives all batches of a search the splits of the first.

    Scores of candidates on different splits could not be compared.
    """

    def __init__(self, cv: Any) -> None:
        self._cv = cv
        self._splits: list[Any] | None = None

    def split(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Split as ever, once."""
        if self._splits is None:
            self._splits = list(self._cv.split(*args, **kwargs))
        return self._splits


class Judge:
    """Turns points into candidates, has them evaluated, and keeps the books.

    Parameters
    ----------
    search : BaseSearchCV
    axes : list of Axis
    evaluate : callable
        What BaseSearchCV hands to ``_run_search``.
    context : callback context or None
    """

    def __init__(
        self, search: Any, axes: Sequence[Axis], evaluate: Callable, context: Any
    ) -> None:
        self.order: list[Point] = []
        self.results: dict[str, Any] | None = None
        self._search = search
        self._axes = axes
        self._evaluate = evaluate
        self._context = context
        self._cv = RepeatedSplits(search._checked_cv_orig)
        self._failed: list[Point] = []
        self._failures: list[dict[str, str]] = []

    def params_of(self, point: Point) -> dict[str, Any]:
        """Parameters that a point stands for."""
        return {a.name: a.values[i] for a, i in zip(self._axes, point, strict=True)}

    def record_of(self, point: Point) -> dict[str, Any]:
        """Parameters, score and place in the results of a point, after the search."""
        assert self.results is not None
        index = self.order.index(point)
        score = float(self.results[self._score_name()][index])
        return {"params": self.params_of(point), "score": score, "index": index}

    def __call__(self, points: list[Point]) -> Sequence[float]:
        """Mean test scores of new points; ``error_score`` where all fits failed."""
        candidates = [self.params_of(point) for point in points]
        n_fits = len(candidates) * self._search.n_splits_
        told = rf"\n\d+ fits failed out of a total of {n_fits}\."
        try:
            with (
                self._batch_context(len(candidates)) as keywords,
                warnings.catch_warnings(),
            ):
                # Told once, of all batches, by finish().
                warnings.filterwarnings("ignore", told, FitFailedWarning)
                self.results = self._evaluate(candidates, cv=self._cv, **keywords)
        except ValueError as error:
            if not str(error).startswith(f"\nAll the {n_fits} fits failed."):
                raise
            # scikit-learn takes a failed batch for a failed search; here it is one
            # step of many.
            self._failed += points
            for count, text in _FAILURES.findall(str(error)):
                self._failures += [{"fit_error": text}] * int(count)
            return [self._search.error_score] * len(points)
        self.order += points
        return self.results[self._score_name()][-len(points) :]

    def finish(self, format_results: Callable, evaluated: tuple | None) -> None:
        """Tell the failures, and enter those that were whole batches into the results.

        Parameters
        ----------
        format_results : callable
            ``BaseSearchCV._format_results``.
        evaluated : tuple of (candidates, n_splits, out, more_results), or None
            What that function was called with last.

        Raises
        ------
        ValueError
            When all fits failed.
        """
        fits = [] if evaluated is None else evaluated[2]
        _warn_or_raise_about_fit_failures(
            [*fits, *self._failures], self._search.error_score
        )
        assert evaluated is not None and self.results is not None
        candidates, n_splits, out, more_results = evaluated
        score = self._search.error_score
        blank = dict(out[0])
        for name in ("test_scores", "train_scores"):
            if name in blank:
                like = blank[name]
                blank[name] = dict.fromkeys(like, score) if _is_dict(like) else score
        # Nobody measured these; scikit-learn's time of a score that failed is 0, too.
        blank |= {"fit_time": 0.0, "score_time": 0.0}
        candidates += [self.params_of(point) for point in self._failed]
        out += [blank] * (n_splits * len(self._failed))
        self.order += self._failed
        # fit() goes on with this very dict.
        self.results.clear()
        self.results.update(format_results(candidates, n_splits, out, more_results))

    def _score_name(self) -> str:
        """The column that the walk follows: the metric of ``refit``, or the first."""
        assert self.results is not None
        found = [name for name in self.results if name.startswith("mean_test_")]
        if found != ["mean_test_score"]:
            metrics = [name.removeprefix("mean_test_") for name in found]
            self._search._check_refit_for_multimetric(metrics)
            if isinstance(self._search.refit, str):
                return f"mean_test_{self._search.refit}"
        return found[0]

    def _batch_context(self, n_candidates: int) -> Any:
        if self._context is None:
            return nullcontext({})
        return _Batch(self._search, self._context, n_candidates)


class _Batch:
    """Tells scikit-learn's callbacks of a batch's begin and end."""

    def __init__(self, search: Any, context: Any, n_candidates: int) -> None:
        self._search = search
        self._context = context.subcontext(
            task_name="batch",
            max_subtasks=n_candidates * search.n_splits_,
            sequential_subtasks=False,
        )

    def __enter__(self) -> dict[str, Any]:
        self._context.call_on_fit_task_begin(estimator=self._search)
        return {"callback_ctx": self._context}

    def __exit__(self, *raised: Any) -> None:
        self._context.call_on_fit_task_end(estimator=self._search)


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)
