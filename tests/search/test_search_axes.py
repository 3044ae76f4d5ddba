"""Where a search starts on each axis, and which values make an axis."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.surfaces import Surface, X, fused
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC

from sklearn_difffeat import (
    ImageDiffusionFeatureTransformer,
    LocalSearchCV,
    TextDiffusionFeatureTransformer,
)
from sklearn_difffeat.search._axes import Axis, build_axes
from sklearn_difffeat.search._walk import Walk


@pytest.mark.parametrize(
    ("blocks", "timesteps", "deepest", "clean"),
    [
        ([2, 4, 6], [0, 100, 300], 6, 0),
        ([6, 4, 2], [300, 100, 20], 6, 20),
        ([-5, -3, -1], [0], -1, 0),
        ([2, "last", "middle"], ["middle", 0], "last", "middle"),
        ([[2, 4], [4, 6]], [[0], [100]], [4, 6], [0]),
    ],
)
def test_the_prior_of_texts_is_deepest_and_noise_free(
    blocks, timesteps, deepest, clean
):
    model, space = fused(caption__block=blocks, caption__timestep=timesteps)
    block, timestep = build_axes(model, space, None)
    assert blocks[block.start] == deepest
    assert timesteps[timestep.start] == clean


def test_the_prior_of_images_is_the_middle():
    model, space = fused(
        picture__block=[0, 2, 4, 6, 8], picture__timestep=[0, 50, 100, 200]
    )
    block, timestep = build_axes(model, space, None)
    assert (space[block.name][block.start], timestep.values[timestep.start]) == (4, 50)
    assert (block.costly, timestep.costly) == (False, True)


def test_the_name_of_a_step_tells_the_modality_where_the_estimator_does_not():
    model = Pipeline([("text", Surface()), ("image", Surface())])
    space = {"text__block": [1, 2, 3], "image__block": [1, 2, 3], "other__block": [1]}
    assert [axis.start for axis in build_axes(model, space, None)] == [2, 1, 0]


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        ({"a": []}, {}, "need to be a non-empty sequence, got: \\[\\]"),
        ({"a": [1, 3, 2]}, {}, "'a' are not in order or repeat"),
        ({"a": [1, 1, 2]}, {}, "'a' are not in order or repeat"),
        ({"a": ["x", "y", "x"]}, {}, "'a' hold 'x' twice"),
        ({"a": np.ones((2, 2))}, {}, "one-dimensional"),
        ({"a": [1, 2]}, {"start": {"a": 3}}, "start=3 of parameter 'a' is outside"),
        ({"a": [1, 2]}, {"start": {"e": 3}}, "start names 'e'"),
        ({"e": [1, 2]}, {}, "Invalid parameter 'e' for estimator Surface"),
        ({"a": [1, 2]}, {"max_candidates": 0}, "'max_candidates' parameter"),
        ({"a": [1, 2]}, {"max_candidates": 1.5}, "'max_candidates' parameter"),
        ({"a": [1, 2]}, {"max_passes": 0}, "'max_passes' parameter"),
        ({"a": [1, 2]}, {"n_restarts": -1}, "'n_restarts' parameter"),
        ([{"a": [1, 2]}], {}, "'param_space' parameter"),
    ],
)
def test_bad_spaces_are_errors_that_name_the_parameter(space, options, message):
    with pytest.raises(ValueError, match=message):
        LocalSearchCV(Surface(), space, cv=2, **options).fit(X)


@pytest.mark.parametrize("values", [1, "abc"])
def test_values_that_are_no_list_are_refused_as_by_grid_search(values):
    with pytest.raises(TypeError, match="needs to be a list or a numpy array"):
        LocalSearchCV(Surface(), {"a": values}, cv=2).fit(X)


def test_values_may_be_arrays_dicts_estimators_and_none():
    space = {
        "a": [None, np.array([1, 2]), np.array([1, 2, 3])],
        "b": [{"x": 1}, {"x": 2}],
        "c": [SVC(), LogisticRegression()],
    }
    search = LocalSearchCV(Surface(lambda *point: 0.0), space, cv=2)
    assert search.fit(X).n_candidates_ > 3


def hinted(transformer, space, **options):
    model = Pipeline([("z", transformer), ("head", RidgeClassifier())])
    space = {f"z__{name}": values for name, values in space.items()}
    return [
        [axis.values[index] for index in axis.recommended]
        for axis in build_axes(model, space, "auto")
    ]


def test_what_is_recommended_for_a_backbone_is_looked_up():
    image, text = ImageDiffusionFeatureTransformer, TextDiffusionFeatureTransformer
    space = {"block": [0, 1, 2, 3, 4], "timestep": [300, 50]}
    assert hinted(image(), space) == [[0, 3], [50]]
    assert hinted(text(), {"block": [0, 2, 6], "C": [1, 2]}) == [[0, 6], []]
    both = {"block": [[0], [0, 3]], "pooling": ["mean", "max"], "n_jobs": [1, 2]}
    assert hinted(image(), both) == [[[0, 3]], ["max"], []]
    dit = image(backbone="facebook/DiT-XL-2-256")
    assert hinted(dit, {"block": [8, 12, 16], "timestep": [0, 100]}) == [[12], [100]]
    assert hinted(dit, {"block": [8, 16]}) == [[]]
    assert hinted(image(backbone="unknown/one"), space) == [[], []]
    for axis in build_axes(RidgeClassifier(), {"alpha": [1, 2]}, "auto"):
        assert axis.recommended == ()


def test_a_walk_goes_on_from_the_best_of_what_is_recommended():
    # The middle is a peak of its own; block 0 without noise is higher.
    heights = {(0, 0): 0.9, (3, 0): 0.2, (2, 1): 0.5}
    axes = [
        Axis("z__block", (0, 1, 2, 3, 4), 2, False, True, (0, 3)),
        Axis("z__timestep", (0, 100, 200), 1, True, True, (0,)),
    ]

    def climb(axes, **options):
        moves = []
        walk = Walk(
            axes,
            lambda points: [heights.get(point, 0) for point in points],
            on_move=lambda *move: moves.append(move),
            **options,
        )
        walk.run(0, None)
        return walk, moves

    walk, moves = climb(axes)
    assert moves[:2] == [((2, 1), "start"), ((0, 0), "z")]
    assert walk.passes == {("z", (1,)), ("z", (0,))}
    plain = [replace(axis, recommended=()) for axis in axes]
    walk, moves = climb(plain)
    assert max(walk.scores.values()) == 0.5
    # No pass beyond what is allowed, no candidate either.
    walk, moves = climb(axes, max_passes=1)
    assert len(walk.passes) == 1
    walk, moves = climb(axes, max_candidates=2)
    assert len(walk.scores) == 2
    # Several recommended values that cost a pass each are paid for one by one.
    axes[1] = replace(axes[1], recommended=(0, 2))
    walk, moves = climb(axes, max_passes=2)
    assert walk.passes == {("z", (1,)), ("z", (0,))}
