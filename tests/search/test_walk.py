"""The walk finds the top of known surfaces, and spends little on the way."""

import itertools

import numpy as np
import pytest
from helpers.surfaces import (
    AXIS,
    Surface,
    X,
    best_of,
    noisy,
    plateau,
    ridge,
    tried,
    two_peaks,
    unimodal,
    walk,
)

from sklearn_difffeat import LocalSearchCV
from sklearn_difffeat.search._axes import build_axes
from sklearn_difffeat.search._walk import Walk


@pytest.mark.parametrize("surface", [unimodal, ridge])
def test_the_peak_of_a_single_hill_is_found_with_few_candidates(surface):
    search = walk(surface)
    assert search.best_score_ == pytest.approx(best_of(surface))
    assert search.n_candidates_ < 0.01 * len(AXIS) ** 4


def test_a_noisy_hill_is_climbed_nearly_to_its_top():
    search = walk(noisy)
    worst = min(noisy(*point) for point in itertools.product((0, 11), repeat=4))
    best = best_of(noisy)
    assert (search.best_score_ - worst) / (best - worst) > 0.93


@pytest.mark.parametrize("surface", [plateau, two_peaks])
def test_restarts_are_the_way_out_of_a_plateau_or_a_lesser_peak(surface):
    start = {"a": 2, "b": 2, "c": 2, "d": 2}
    alone = walk(surface, start=start)
    assert alone.best_score_ < best_of(surface)
    restarted = walk(surface, start=start, n_restarts=40, random_state=0)
    assert restarted.best_score_ == pytest.approx(best_of(surface))
    stages = [step["stage"] for step in restarted.path_]
    assert stages[0] == "start"
    assert "restart 1" in stages


def test_restarts_are_the_same_with_the_same_random_state():
    one, other = (walk(two_peaks, n_restarts=3, random_state=5) for _ in range(2))
    assert tried(one) == tried(other)
    assert tried(one) != tried(walk(two_peaks, n_restarts=3, random_state=6))


@pytest.mark.parametrize("surface", [unimodal, ridge, plateau, two_peaks, noisy])
def test_no_candidate_is_tried_twice(surface):
    search = walk(surface, n_restarts=5, random_state=0)
    assert len(set(tried(search))) == len(tried(search)) == search.n_candidates_


@pytest.mark.parametrize("max_candidates", [1, 2, 7, 20])
def test_max_candidates_is_respected_to_the_candidate(max_candidates):
    search = walk(unimodal, max_candidates=max_candidates, n_restarts=2)
    assert search.n_candidates_ == max_candidates == len(tried(search))
    assert search.best_score_ == max(search.cv_results_["mean_test_score"])


def test_a_small_space_is_never_searched_beyond_its_size():
    space = {"a": [7, 8], "b": [3]}
    search = LocalSearchCV(Surface(), space, cv=2, n_restarts=50, random_state=0)
    assert search.fit(X).n_candidates_ <= 2


def test_an_empty_space_is_the_estimator_as_it_is():
    search = LocalSearchCV(Surface(a=8), {}, cv=2, n_restarts=1).fit(X)
    assert search.best_params_ == {}


def test_the_path_rises_and_ends_at_the_best():
    search = walk(unimodal)
    scores = [step["score"] for step in search.path_]
    assert scores == sorted(scores)
    last = search.path_[-1]
    assert last["params"] == search.best_params_
    assert last["index"] == search.best_index_
    for step in search.path_:
        assert search.cv_results_["params"][step["index"]] == step["params"]


def test_the_walk_starts_from_the_middle_or_from_start():
    assert tried(walk(unimodal))[0] == (5, 5, 5, 5)
    assert tried(walk(unimodal, start={"b": 9}))[0] == (5, 9, 5, 5)


def test_blocks_cost_no_pass_and_timesteps_are_paid_one_at_a_time():
    class Model:
        def get_params(self, deep=True):
            return {}

    space = {
        "image__block": list(range(12)),
        "image__timestep": [0, 50, 100, 200, 400, 700],
        "text__block": list(range(6)),
        "text__timestep": [0, 100, 300],
    }
    axes = build_axes(Model(), space, None)
    top = (8, 1, 3, 0)

    def score(points):
        batches.append(points)
        return [-sum((p - t) ** 2 for p, t in zip(q, top, strict=True)) for q in points]

    batches = []
    search = Walk(axes, score)
    search.run(0, np.random.RandomState(0))
    assert max(search.scores, key=search.scores.get) == top
    seen = set()
    for points in batches:
        new = {(p[1], p[3]) for p in points} - seen
        assert len(new) <= 1
        seen |= new
    # Of the image 100, 50 and 0, of the text 0 and 100.
    assert search.passes == {
        *(("image", (i,)) for i in (0, 1, 2)),
        *(("text", (i,)) for i in (0, 1)),
    }


@pytest.mark.parametrize("max_passes", [1, 2, 3, 5])
def test_max_passes_bounds_the_passes_and_not_the_blocks(max_passes):
    space = {"image__block": list(range(12)), "image__timestep": list(range(9))}
    axes = build_axes(Surface(), space, None)
    top = (9, 0)

    def score(points):
        return [-sum((p - t) ** 2 for p, t in zip(q, top, strict=True)) for q in points]

    search = Walk(axes, score, max_passes=max_passes)
    search.run(3, np.random.RandomState(0))
    assert len(search.passes) == max_passes
    assert max(search.scores, key=search.scores.get)[0] == 9
    assert len({timestep for _, timestep in search.scores}) == max_passes
