"""The walk of a local search, on indices only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import combinations, product

import numpy as np

from sklearn_difffeat.search._axes import Axis

Point = tuple[int, ...]
# Number of an axis to places along it.
Steps = dict[int, int]


class CandidatesSpent(Exception):
    """The next point of the walk would exceed the candidates allowed."""


class Walk:
    """Climb to a local maximum of a score over ordered axes.

    The axes of each estimator with parameters in the space are climbed separately, then
    all axes together. Steps start at a quarter of an axis and are halved when no step
    improves the score, down to one. Where a new value costs a pass, only one is tried
    at a time.

    Parameters
    ----------
    axes : list of n_axes Axis
    score : callable
        Takes a list of new points, each a tuple of n_axes indices into the values of
        its axes, and returns their scores as floats; NaN is the worst.
    max_candidates : int or None
        Most points to score.
    on_move : callable
        Called with each point that the walk goes to, and the stage.
    max_passes : int or None
        Largest number of passes; the start is always tried.

    Attributes
    ----------
    scores : dict of point to float
        The points that were tried; -inf stands for NaN.
    passes : set of (str, tuple of int)
        The passes that were made: the path of a transformer, and the indices of its
        costly values.
    """

    def __init__(
        self,
        axes: Sequence[Axis],
        score: Callable[[list[Point]], Sequence[float]],
        max_candidates: int | None = None,
        on_move: Callable[[Point, str], None] = lambda point, stage: None,
        max_passes: int | None = None,
    ) -> None:
        self.axes = axes
        self.scores: dict[Point, float] = {}
        self.passes: set[tuple[str, Point]] = set()
        self._score = score
        self._max_candidates = max_candidates
        self._max_passes = max_passes
        self._on_move = on_move
        self._stage = ""

    def run(self, n_restarts: int, random: np.random.RandomState) -> None:
        """Walk from the start of the axes, and then from ``n_restarts`` far points."""
        with suppress(CandidatesSpent):
            self._climb_from(tuple(axis.start for axis in self.axes), "start")
            for number in range(1, n_restarts + 1):
                far = self._far_point(random)
                if far is None or not self._is_affordable(far):
                    return
                self._climb_from(far, f"restart {number}")

    def _climb_from(self, point: Point, name: str) -> None:
        if not self._try([point]):
            raise CandidatesSpent
        self._on_move(point, name)
        for group in dict.fromkeys(axis.group for axis in self.axes):
            self._stage = group or "walk"
            for there in self._recommended(point, group):
                if self._is_affordable(there):
                    point = self._better(point, [there])
            steps = {n: a.step for n, a in enumerate(self.axes) if a.group == group}
            point = self._climb_free(point, self._free(steps))
            point = self._climb_costly(point, self._costly(steps))
        self._stage = "joint"
        joint = {n: max(1, axis.step // 2) for n, axis in enumerate(self.axes)}
        self._climb(point, joint, self._step_jointly)

    def _recommended(self, point: Point, group: str) -> list[Point]:
        """The recommended points of a group, with the other axes left as they are."""
        choices = [
            axis.recommended if axis.group == group and axis.recommended else (index,)
            for axis, index in zip(self.axes, point, strict=True)
        ]
        return list(product(*choices))

    def _climb(
        self, point: Point, steps: Steps, advance: Callable[[Point, Steps], Point]
    ) -> Point:
        """Advance while the score rises; halve the steps if not, down to one."""
        while True:
            reached = advance(point, steps)
            if reached == point:
                if all(step == 1 for step in steps.values()):
                    return point
                steps = {n: max(1, step // 2) for n, step in steps.items()}
            point = reached

    def _climb_free(self, point: Point, steps: Steps) -> Point:
        def advance(reached: Point, steps: Steps) -> Point:
            return self._better(reached, self._neighbours(reached, steps))

        return self._climb(point, steps, advance)

    def _climb_costly(self, point: Point, steps: Steps) -> Point:
        def advance(reached: Point, steps: Steps) -> Point:
            for number, step in steps.items():
                reached = self._climb_axis(reached, number, step)
            return reached

        return self._climb(point, steps, advance)

    def _climb_axis(self, point: Point, number: int, step: int) -> Point:
        """Try one new costly value at a time, and continue only while the score rises.

        A pass gives all blocks, so the neighbours on the free axes are scored together
        with it: another block may be best there.
        """
        group = self.axes[number].group
        own = (n for n, axis in enumerate(self.axes) if axis.group == group)
        free = self._free(dict.fromkeys(own, 1))
        for direction in self._directions(point, number):
            reached = point
            while shifted := self._shifted(reached, {number: direction * step}):
                if self._is_paid(shifted) or not self._is_affordable(shifted):
                    break
                there = [shifted, *self._neighbours(shifted, free)]
                best = self._better(reached, there)
                if best == reached:
                    break
                reached = self._climb_free(best, free)
            if reached != point:
                return reached
        return point

    def _step_jointly(self, point: Point, steps: Steps) -> Point:
        """Step along one axis or two, with passes that were already made.

        Only if none of these improves the score, one new pass is made, next to the
        best.
        """
        near = self._neighbours(point, steps)
        best = self._better(point, [p for p in near if self._is_paid(p)])
        if best == point:
            best = self._better(point, self._pairs(point, steps))
        if best == point:
            best = self._climb_costly(point, self._costly(dict.fromkeys(steps, 1)))
        return best

    def _free(self, steps: Steps) -> Steps:
        return {n: step for n, step in steps.items() if not self.axes[n].costly}

    def _costly(self, steps: Steps) -> Steps:
        return {n: step for n, step in steps.items() if self.axes[n].costly}

    def _pairs(self, point: Point, steps: Steps) -> list[Point]:
        """Steps along two axes at once, the most promising ones.

        The most promising have the highest sum of the scores of both single steps; as
        many are taken as there are single steps.
        """
        promises: dict[Point, float] = {}
        for a, b in combinations(steps, 2):
            for up, right in product((-1, 1), repeat=2):
                way = {a: up * steps[a], b: right * steps[b]}
                both = self._shifted(point, way)
                if both is not None and self._is_paid(both):
                    alone = (self._shifted(point, {n: way[n]}) for n in way)
                    promises[both] = sum(
                        self.scores.get(p, -np.inf) for p in alone if p
                    )
        best = sorted(promises, key=promises.__getitem__, reverse=True)
        return best[: 2 * len(self.axes)]

    def _directions(self, point: Point, number: int) -> tuple[int, int]:
        """Both directions of an axis, the one with the better scores first."""
        nearest: dict[int, tuple[int, float]] = {}
        for tried, score in self.scores.items():
            distance = tried[number] - point[number]
            if distance:
                side = 1 if distance > 0 else -1
                seen = (-abs(distance), score)
                nearest[side] = max(nearest.get(side, seen), seen)
        first = self.axes[number].downward
        if len(nearest) == 2 and nearest[-first][1] > nearest[first][1]:
            first = -first
        return first, -first

    def _far_point(self, random: np.random.RandomState) -> Point | None:
        """The one of eight random new points that is farthest from all points tried."""
        lengths = np.array([len(axis.values) for axis in self.axes], dtype=int)
        drawn = random.randint(lengths, size=(64, len(lengths))).tolist()
        new = [p for p in dict.fromkeys(map(tuple, drawn)) if p not in self.scores][:8]
        if not new:
            return None
        scale = np.maximum(lengths - 1, 1)
        gaps = np.abs(np.array(new)[:, None] - np.array(list(self.scores))) / scale
        return new[int(gaps.sum(axis=2).min(axis=1).argmax())]

    def _better(self, point: Point, others: list[Point]) -> Point:
        """Go to the best of some points, if it is better than the current point."""
        complete = self._try(others)
        known = [p for p in others if p in self.scores]
        best = max(known, key=self.scores.__getitem__, default=point)
        if self.scores[best] > self.scores[point]:
            self._on_move(best, self._stage)
        else:
            best = point
        if not complete:
            raise CandidatesSpent
        return best

    def _try(self, points: list[Point]) -> bool:
        """Score new points; False if there were more than allowed."""
        new = [p for p in dict.fromkeys(points) if p not in self.scores]
        most = self._max_candidates
        asked = new if most is None else new[: most - len(self.scores)]
        if asked:
            scores = np.asarray(self._score(asked), dtype=float)
            scores[np.isnan(scores)] = -np.inf
            self.scores |= dict(zip(asked, scores.tolist(), strict=True))
            self.passes.update(*map(self._passes_of, asked))
        return len(asked) == len(new)

    def _passes_of(self, point: Point) -> set[tuple[str, Point]]:
        """The passes that a point needs: one entry for each transformer."""
        settings: dict[str, Point] = {}
        for axis, index in zip(self.axes, point, strict=True):
            if axis.passes_model:
                known = settings.get(axis.group, ())
                settings[axis.group] = (*known, index) if axis.costly else known
        return set(settings.items())

    def _is_paid(self, point: Point) -> bool:
        return self._passes_of(point) <= self.passes

    def _is_affordable(self, point: Point) -> bool:
        n_passes = len(self.passes | self._passes_of(point))
        return self._max_passes is None or n_passes <= self._max_passes

    def _neighbours(self, point: Point, steps: Steps) -> list[Point]:
        ways = [{n: sign * step} for n, step in steps.items() for sign in (-1, 1)]
        return [p for way in ways if (p := self._shifted(point, way)) is not None]

    def _shifted(self, point: Point, shifts: Steps) -> Point | None:
        """A point some steps away; None outside the space."""
        moved = list(point)
        for number, shift in shifts.items():
            moved[number] += shift
            if not 0 <= moved[number] < len(self.axes[number].values):
                return None
        return tuple(moved)
