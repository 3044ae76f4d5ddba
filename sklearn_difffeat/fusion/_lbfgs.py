"""L-BFGS for many problems at once, one a column, in the same matrix products.

The two-loop recursion is that of Nocedal and Wright, Numerical Optimization (2006),
algorithm 7.4, with a preconditioner as its first guess of the inverse Hessian.

SciPy's L-BFGS-B takes one problem at a time and no preconditioner. If all labels are
one problem, every label needs as many steps as the hardest one, and a line search costs
matrix products, which it does not here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sklearn_difffeat.fusion._data import Float
from sklearn_difffeat.modalities._array import Columns

_MEMORY = _PATIENCE = 10
EVERY = slice(None)


class Problem(Protocol):
    """Smooth minimisation problems, one per column, each at a point of its own.

    `columns` picks among the problems that are still open.
    """

    theta: Float

    def start(self) -> tuple[Float, Float]:
        """Objective (m,) and gradient (p, m) at ``theta``."""

    def aim(self, step: Float) -> None:
        """Prepare for steps from ``theta`` along `step` (p, m)."""

    def value(self, size: Float, columns: Columns) -> Float:
        """Objective at ``theta + size * step``."""

    def evaluate(self, size: Float, columns: Columns) -> tuple[Float, Float]:
        """Objective and gradient at ``theta + size * step``."""

    def move(self, size: Float) -> None:
        """Move to ``theta + size * step``."""

    def keep(self, columns: Columns) -> None:
        """Drop all other problems."""

    def precondition(self, gradient: Float) -> Float:
        """Guess of the inverse Hessian times `gradient` (p, m), positive definite."""


def minimize_lbfgs(
    problem: Problem,
    *,
    tol: float,
    max_iter: int,
    precision: float,
    report: Callable[[int, float], None] | None = None,
) -> tuple[Float, int, int]:
    """Minimise every column by its own preconditioned L-BFGS, all in step.

    Parameters
    ----------
    problem : Problem
        At its starting point.
    tol : float
        A column ends when a step is expected to lower its objective by less than this
        share of it, or when ten steps together did not lower it by more.
    max_iter : int
        Largest number of steps.
    precision : float
        Relative rounding error of the objective.
    report : callable, default=None
        Called after each step with the number of columns that ended, and the largest
        share by which a column's objective was expected to fall.

    Returns
    -------
    theta : ndarray of shape (p, m)
    n_iter : int
    n_unfinished : int
        Columns that did not reach `tol`.
    """
    theta = problem.theta.copy()
    active = np.arange(theta.shape[1])
    value, gradient = problem.start()
    history: list[tuple[Float, Float, Float]] = []
    past: list[Float] = []
    n_iter = n_stalled = 0
    while n_iter < max_iter and len(active):
        n_iter += 1
        step = _direction(gradient, problem.precondition, history)
        promise = -0.5 * np.einsum("ij,ij->j", gradient, step)
        finished = promise <= max(tol, precision / 8) * np.abs(value)
        problem.aim(step)
        size, new_value, new_gradient = _search(problem, value, promise, precision)
        problem.move(size)
        stalled = size == 0
        n_stalled += int(np.sum(stalled & (promise > np.sqrt(precision) * value)))
        finished |= stalled
        past = [*past, value][-_PATIENCE:]
        if len(past) == _PATIENCE:
            finished |= past[0] - new_value <= max(tol, precision) * np.abs(value)
        s, y = size * step, new_gradient - gradient
        sy, ss, yy = (np.einsum("ij,ij->j", *ab) for ab in ((s, y), (s, s), (y, y)))
        curved = sy > precision * np.sqrt(ss * yy)
        rho = np.where(curved, 1 / np.where(curved, sy, 1), 0)
        history = [*history, (s, y, rho)][-_MEMORY:]
        if report is not None:
            share = promise / np.maximum(np.abs(value), np.finfo(float).tiny)
            report(int(finished.sum()), float(share.max()))
        value, gradient = new_value, new_gradient
        if finished.any() or n_iter == max_iter:
            theta[:, active] = problem.theta
        if finished.any():
            rest = np.flatnonzero(~finished)
            active, value, gradient = active[rest], value[rest], gradient[:, rest]
            history = [(s[:, rest], y[:, rest], rho[rest]) for s, y, rho in history]
            past = [old[rest] for old in past]
            problem.keep(rest)
    return theta, n_iter, len(active) + n_stalled


def _direction(
    gradient: Float,
    precondition: Callable[[Float], Float],
    history: list[tuple[Float, Float, Float]],
) -> Float:
    """Two-loop recursion; a pair without curvature has rho = 0 and no effect."""
    rest, shares = -gradient, []
    for s, y, rho in reversed(history):
        share = rho * np.einsum("ij,ij->j", s, rest)
        rest -= share * y
        shares.append(share)
    step = precondition(rest)
    if history:
        s, y, rho = history[-1]
        # If the last step found more curvature than the preconditioner has, a shorter
        # first guess saves the line search.
        step /= np.maximum(rho * np.einsum("ij,ij->j", y, precondition(y)), 1)
    for (s, y, rho), share in zip(history, reversed(shares), strict=True):
        step += (share - rho * np.einsum("ij,ij->j", y, step)) * s
    return step


def _search(
    problem: Problem, value: Float, promise: Float, precision: float
) -> tuple[Float, Float, Float]:
    """Step sizes that lower each objective (0 if none does), and the values there."""
    size = np.ones(len(value))
    noise = 4 * precision * np.abs(value)

    def rises(new: Float, tried: Any) -> NDArray[np.bool_]:
        return ~(new <= (value - 2e-4 * size * promise + noise)[tried])

    new, gradient = problem.evaluate(size, EVERY)
    bad = np.flatnonzero(rises(new, EVERY))
    if not len(bad):
        return size, new, gradient
    again, found = bad, new[bad]
    for _ in range(30):
        # The parabola through the start, its slope there and the point tried.
        slope = 2 * promise[bad] * size[bad]
        with np.errstate(invalid="ignore", over="ignore"):
            least = 0.5 * slope / (found - value[bad] + slope)
        size[bad] *= np.clip(np.nan_to_num(least, nan=0.1), 0.1, 0.5)
        found = problem.value(size[bad], bad)
        still = rises(found, bad)
        bad, found = bad[still], found[still]
        if not len(bad):
            break
    size[bad] = 0
    new[again], gradient[:, again] = problem.evaluate(size[again], again)
    return size, new, gradient
