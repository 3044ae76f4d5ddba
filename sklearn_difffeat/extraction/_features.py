"""The feature matrix, filled as passes are computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from sklearn.utils import gen_batches

from sklearn_difffeat.extraction._plan import Plan
from sklearn_difffeat.store._chunk import Pass

ROWS_AT_ONCE = 1024
# Up to this size torch works on an array in the caller's thread.
ONE_THREAD = 32768


class Features:
    """Columns laid out as a plan says, the draws of a timestep averaged.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_features), float32
        Filled in place; whatever it holds at first.
    rows : ndarray of int
        The rows that will be filled; the others become NaN.
    plan : Plan
    """

    def __init__(self, values: np.ndarray, rows: np.ndarray, plan: Plan) -> None:
        self.values = values
        self.plan = plan
        absent = np.ones(len(values), dtype=bool)
        absent[rows] = False
        values[absent] = np.nan
        if plan.n_draws > 1:
            values[rows] = 0

    def write(
        self,
        rows: np.ndarray,
        one: Pass,
        values: Mapping[int, np.ndarray],
        positions: np.ndarray | None = None,
    ) -> None:
        """Enter the results of a pass.

        Parameters
        ----------
        rows : ndarray of int
        one : Pass
        values : mapping of int to ndarray
            By block, (n, n_pooled), float16 or float32.
        positions : ndarray of int, optional
            Which rows of the values; None takes all.
        """
        plan = self.plan
        at = plan.timesteps.index(one.timestep)
        n_draws = plan.draws_of(one.timestep)
        where = _as_slice(rows)
        taken = slice(None) if positions is None else _as_slice(positions)
        first = 0
        for block in plan.blocks:
            share = values[block][taken]
            n_columns = share.shape[1]
            start = first + at * n_columns
            columns = slice(start, start + n_columns)
            first += len(plan.timesteps) * n_columns
            if n_draws > 1:
                self.values[where, columns] += as_float32(share) / n_draws
            elif isinstance(where, slice):
                copy_as_float32(share, self.values[where, columns])
            else:
                self.values[where, columns] = as_float32(share)

    def finish(self, widths: Sequence[int]) -> None:
        """Scale the result of each pooling, block and timestep to unit length.

        Parameters
        ----------
        widths : sequence of int
            Channels of the plan's blocks.
        """
        if self.plan.norm is None:
            return
        each = [self.plan.shares(width) * len(self.plan.timesteps) for width in widths]
        ends = np.cumsum([share for shares in each for share in shares])
        for rows in gen_batches(len(self.values), ROWS_AT_ONCE):
            for part in np.split(self.values[rows], ends[:-1], axis=1):
                length = np.linalg.norm(part, axis=1, keepdims=True)
                # A row of zeros has no direction, and is left as it is.
                np.divide(part, length, out=part, where=length > 0)


def _as_slice(numbers: np.ndarray) -> slice | np.ndarray:
    """Return a run of numbers as a slice, which avoids a copy."""
    first, last = int(numbers[0]), int(numbers[-1])
    steps = numbers[1:] - numbers[:-1]
    is_run = last - first == len(numbers) - 1 and bool((steps == 1).all())
    return slice(first, last + 1) if is_run else numbers


def as_float32(values: np.ndarray) -> np.ndarray:
    """Return float16 or float32 as float32; the latter are not copied."""
    if values.dtype == np.float32:
        return values
    found = np.empty(values.shape, dtype=np.float32)
    copy_as_float32(values, found)
    return found


def copy_as_float32(values: np.ndarray, target: np.ndarray) -> None:
    """Copy float16 or float32; float16 several times faster than NumPy does."""
    if values.dtype != np.float16:
        target[:] = values
        return
    # Parts this small stay in one thread: starting others would take longer.
    step = max(1, ONE_THREAD // values.shape[1])
    found = torch.from_numpy(target)
    for rows in gen_batches(len(values), step):
        # A copy: torch warns of arrays that it may not write to.
        found[rows] = torch.from_numpy(values[rows].copy())
