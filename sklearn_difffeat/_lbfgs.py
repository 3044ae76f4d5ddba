"""L-BFGS for many problems at once, one a column, in the same matrix products.

SciPy's L-BFGS-B takes one problem at a time and no preconditioner: over all labels at
once it needs the steps of the hardest label for every one.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Columns = NDArray[np.intp]

_MEMORY = 10


class Problem(Protocol):
    """Smooth minimisation problems, one per column of theta."""

    def evaluate(self, theta: Float, columns: Columns) -> tuple[Float, Float]:
        """Objective (m,) and gradient (p, m) of the named columns at theta (p, m)."""

    def preconditioner(self) -> Float:
        """Positive guess (p, m) of the Hessian's diagonal where last evaluated."""


def minimize_lbfgs(
    problem: Problem,
    theta: Float,
    *,
    tol: float,
    max_iter: int,
    precision: float,
    verbose: bool = False,
) -> tuple[Float, int, int]:
    """Minimise every column by its own preconditioned L-BFGS, all in step.

    Parameters
    ----------
    problem : Problem
    theta : ndarray of shape (p, m)
        Start.
    tol : float
        A column ends with the step that promises to lower its objective by less
        than this share of it.
    max_iter : int
        Largest number of steps.
    precision : float
        Relative rounding error of the objective.
    verbose : bool, default=False
        Print one line per step.

    Returns
    -------
    theta : ndarray of shape (p, m)
    n_iter : int
    n_unfinished : int
        Columns that did not reach `tol`.
    """
    theta = theta.copy()
    active = np.arange(theta.shape[1])
    value, gradient = problem.evaluate(theta, active)
    scale = problem.preconditioner()
    history: list[tuple[Float, Float, Float]] = []
    n_iter = n_stalled = 0
    while n_iter < max_iter and len(active):
        n_iter += 1
        step = _direction(gradient, scale, history)
        promise = -0.5 * (gradient * step).sum(axis=0)
        finished = promise <= max(tol, precision / 8) * np.abs(value)
        moved, new_value, new_gradient, stalled = _backtrack(
            problem, theta[:, active], active, step, value, promise, precision
        )
        scale = problem.preconditioner()
        n_stalled += int(np.sum(stalled & (promise > np.sqrt(precision) * value)))
        finished |= stalled
        s, y = moved - theta[:, active], new_gradient - gradient
        sy = (s * y).sum(axis=0)
        curved = sy > precision * np.sqrt((s**2).sum(axis=0) * (y**2).sum(axis=0))
        history = [*history, (s, y, np.where(curved, 1 / np.where(curved, sy, 1), 0))]
        theta[:, active] = moved
        if verbose:
            print(
                f"[FusionClassifier] step {n_iter}: {len(active)} open, objective of "
                f"these {new_value.sum():.8g}, largest promise {promise.max():.2g}"
            )
        value, gradient, history = new_value, new_gradient, history[-_MEMORY:]
        if finished.any():
            rest = ~finished
            active, value = active[rest], value[rest]
            gradient, scale = gradient[:, rest], scale[:, rest]
            history = [(s[:, rest], y[:, rest], rho[rest]) for s, y, rho in history]
    return theta, n_iter, len(active) + n_stalled


def _direction(
    gradient: Float, scale: Float, history: list[tuple[Float, Float, Float]]
) -> Float:
    """Two-loop recursion; a pair without curvature has rho = 0 and no effect."""
    rest, shares = -gradient, []
    for s, y, rho in reversed(history):
        share = rho * (s * rest).sum(axis=0)
        rest = rest - share * y
        shares.append(share)
    step = rest / scale
    if history:
        s, y, rho = history[-1]
        # Where the last step met more curvature than the preconditioner knew of, a
        # shorter first guess saves the halvings.
        met = rho * (y * y / scale).sum(axis=0)
        step = step / np.maximum(met, 1)
    for (s, y, rho), share in zip(history, reversed(shares), strict=True):
        step = step + (share - rho * (y * step).sum(axis=0)) * s
    return step


def _backtrack(
    problem: Problem,
    theta: Float,
    active: Columns,
    step: Float,
    value: Float,
    promise: Float,
    precision: float,
) -> tuple[Float, Float, Float, NDArray[np.bool_]]:
    """Halve each column's step until its objective falls, or leave it in place."""
    size = np.ones(len(active))

    def rises(new: Float, tried: Any) -> NDArray[np.bool_]:
        fall = 2e-4 * size[tried] * promise[tried]
        noise = 4 * precision * np.abs(value[tried])
        return ~(new <= value[tried] - fall + noise)

    stalled = np.zeros(len(active), dtype=bool)
    new, gradient = problem.evaluate(theta + step, active)
    bad = np.flatnonzero(rises(new, slice(None)))
    if not len(bad):
        return theta + step, new, gradient, stalled
    for _ in range(30):
        size[bad] /= 2
        trial = theta[:, bad] + size[bad] * step[:, bad]
        bad = bad[rises(problem.evaluate(trial, active[bad])[0], bad)]
        if not len(bad):
            break
    size[bad], stalled[bad] = 0, True
    theta = theta + size * step
    new, gradient = problem.evaluate(theta, active)
    return theta, new, gradient, stalled
