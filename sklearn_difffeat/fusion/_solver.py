"""The solution of FusionClassifier: the convex problem, and the factorised one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg
from sklearn.utils import gen_batches

from sklearn_difffeat.fusion._data import Float
from sklearn_difffeat.fusion._lbfgs import minimize_lbfgs
from sklearn_difffeat.fusion._loss import LabelledRows
from sklearn_difffeat.fusion._problems import FactorizedProblem, LinearProblem

_LOGIT_BYTES = 1 << 30


class Solution(NamedTuple):
    """Logits are ``X @ projection @ heads + intercept``.

    Attributes
    ----------
    projection : ndarray of shape (d, rank) or None
        None without a rank: the heads act on the columns of X.
    heads : ndarray of shape (rank or d, L)
    intercept : ndarray of shape (L,)
    n_iter, n_unfinished : int
        Steps, and problems that did not converge in as many as allowed.
    """

    projection: Float | None
    heads: Float
    intercept: Float
    n_iter: int
    n_unfinished: int


def solve(
    problem: LabelledRows,
    *,
    rank: int | None,
    tol: float,
    max_iter: int,
    verbose: bool,
) -> Solution:
    """Minimise the convex problem, and from it the factorised one if a rank is given.

    Parameters
    ----------
    problem : LabelledRows
    rank : int or None
    tol, max_iter
        As for :func:`minimize_lbfgs`.
    verbose : bool
        Show a progress bar.

    Returns
    -------
    Solution
        For the columns of X that `problem` was made of.
    """
    options: dict[str, Any] = {
        "tol": tol,
        "max_iter": max_iter,
        "precision": float(np.finfo(problem.dtype).eps),
        "verbose": verbose,
    }
    return finish(problem, fit_linear(problem, **options), rank, **options)


def finish(
    problem: LabelledRows, convex: Solution, rank: int | None, **options: Any
) -> Solution:
    """The solution in the columns of X, factorised if a rank is given.

    Parameters
    ----------
    problem : LabelledRows
    convex : Solution
        Of :func:`fit_linear`.
    rank : int or None
    **options
        As for :func:`fit_factorized`.

    Returns
    -------
    Solution
    """
    found = convex
    if rank is not None:
        found = fit_factorized(problem, convex, rank, **options)
    if problem.softmax:
        found = found._replace(intercept=found.intercept - found.intercept.mean())
    if problem.rotation is None:
        return found
    if found.projection is None:
        return found._replace(heads=problem.rotation @ found.heads)
    return found._replace(projection=problem.rotation @ found.projection)


def fit_linear(
    data: LabelledRows, *, verbose: bool, start: Float | None = None, **options: Any
) -> Solution:
    """Minimise the convex problem, for as many labels at once as memory allows.

    `start` is as for :class:`LinearProblem`, and `options` are those of
    :func:`minimize_lbfgs`.
    """
    block = data.n_labels
    if not data.softmax:
        # The logits of the point and of the step are kept.
        block = max(_LOGIT_BYTES // (2 * data.dtype.itemsize * data.n_rows), 1)
    parts, n_iter, unfinished = [], 0, 0
    with progress("convex", data.n_labels, verbose) as report:
        for labels in gen_batches(data.n_labels, block):
            problem = LinearProblem(data, labels, start)
            theta, steps, left = minimize_lbfgs(problem, report=report, **options)
            parts.append(problem.matrix(theta))
            n_iter, unfinished = max(n_iter, steps), unfinished + left
    theta = np.hstack(parts)
    return Solution(None, theta[:-1], theta[-1], n_iter, unfinished)


def fit_factorized(
    data: LabelledRows, convex: Solution, rank: int, *, verbose: bool, **options: Any
) -> Solution:
    """Minimise the factorised problem from the best directions of the convex one."""
    W, b = convex.heads, convex.intercept
    used = min(rank, *W.shape)
    problem = FactorizedProblem(data, *factors(nearest(data, W, b, used), used), b)
    with progress("factorised", 1, verbose) as report:
        theta, n_iter, unfinished = minimize_lbfgs(problem, report=report, **options)
    P, H, intercept = problem.unpack(theta)
    P, H = factors(P @ H, rank)
    return Solution(P, H, intercept[0], convex.n_iter + n_iter, unfinished)


@contextmanager
def progress(
    name: str, n_problems: int, verbose: bool
) -> Iterator[Callable[[int, float], None] | None]:
    """Reports finished problems and the expected gain of the last step, or None."""
    if not verbose:
        yield None
        return
    from tqdm.auto import tqdm

    with tqdm(total=n_problems, desc=f"FusionClassifier, {name}", unit="fit") as bar:
        steps = count(1)

        def report(n_finished: int, promise: float) -> None:
            bar.set_postfix(step=next(steps), promise=f"{promise:.1e}", refresh=False)
            bar.update(n_finished)

        yield report


def factors(W: Float, rank: int, drop: float = 1e-12) -> tuple[Float, Float]:
    """Balanced factors (r, rank) and (rank, L) of W, which no rotation changes.

    Singular values below `drop` times the largest count as zero.
    """
    U, s, Vt = linalg.svd(W, full_matrices=False)
    s = np.sqrt(np.where(s > drop * s[0], s, 0)[:rank])
    Vt = Vt[: len(s)]
    signs = np.sign(Vt[np.arange(len(s)), np.abs(Vt).argmax(axis=1)])
    P, H = np.zeros((len(W), rank)), np.zeros((rank, W.shape[1]))
    P[:, : len(s)] = U[:, : len(s)] * (s * signs)
    H[: len(s)] = Vt * (s * signs)[:, None]
    return P, H


def nearest(data: LabelledRows, W: Float, b: Float, rank: int) -> Float:
    """W reduced to the rank in which it keeps most of its logits."""
    logits = data.axes.logits_of(W, data.curvature(W, b).mean())
    Vt = linalg.svd(logits, full_matrices=False)[2][:rank]
    return W @ Vt.T @ Vt
