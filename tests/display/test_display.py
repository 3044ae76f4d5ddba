"""What the pictures show, read off their axes."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from helpers.surfaces import Surface
from scipy.sparse import csr_array
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline

from sklearn_difffeat import BlockTimestepDisplay, EmbeddingDisplay, LocalSearchCV

matplotlib.use("agg")
X = np.zeros((6, 1))
SPACE = {
    "head__a": [0, 1, 2],
    "head__block": [2, 4, 6, 8],
    "head__timestep": [0, 50, 100, 200],
}


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


class Place(Surface):
    """Scores highest at block 6, timestep 50 and a = 1."""

    def __init__(self, a=0, block=0, timestep=0):
        self.a = a
        self.block = block
        self.timestep = timestep

    def score(self, X, y=None):
        return 1 - abs(self.block - 6) / 10 - abs(self.timestep - 50) / 500 - self.a**2

    fails = None


class Passing(Surface):
    def transform(self, X):
        return X


def searched(kind, space, **options):
    model = Pipeline([("image", Passing()), ("head", Place())])
    return kind(model, space, cv=2, **options).fit(X)


def test_the_map_of_a_grid_holds_the_best_score_over_other_parameters():
    search = searched(GridSearchCV, SPACE)
    display = BlockTimestepDisplay.from_search(search)
    assert display.blocks == [2, 4, 6, 8]
    assert display.timesteps == [0, 50, 100, 200]
    assert display.scores.shape == (4, 4)
    assert display.scores.max() == display.scores[2, 1] == 1
    assert np.isfinite(display.scores).all()
    assert display.path == []


def test_the_map_of_a_walk_shows_what_was_tried_and_the_path():
    search = searched(LocalSearchCV, SPACE)
    display = BlockTimestepDisplay.from_search(search, modality="head")
    tried = {
        (p["head__block"], p["head__timestep"]) for p in search.cv_results_["params"]
    }
    assert np.isfinite(display.scores).sum() == len(tried) < 16
    first, last = search.path_[0]["params"], search.path_[-1]["params"]
    for place, params in [(display.path[0], first), (display.path[-1], last)]:
        assert display.blocks[place[0]] == params["head__block"]
        assert display.timesteps[place[1]] == params["head__timestep"]
    texts = [text for text in display.text_.ravel() if text is not None]
    assert len(texts) == len(tried)
    assert display.text_[display.path[-1]].get_text() == "1.000"


def test_the_map_names_its_axes_and_its_score():
    search = searched(GridSearchCV, SPACE, scoring=lambda m, X, y=None: m.score(X))
    display = BlockTimestepDisplay.from_search(search, cmap="viridis")
    assert display.ax_.get_xlabel() == "timestep"
    assert display.ax_.get_ylabel() == "block"
    assert [t.get_text() for t in display.ax_.get_yticklabels()] == list("2468")
    bar = display.figure_.axes[1]
    assert bar.get_ylabel() == "mean test score"
    assert display.im_.get_cmap().name == "viridis"
    assert display.ax_.get_figure() is display.figure_


def test_a_map_can_be_drawn_again_into_axes_of_the_caller():
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2)
    display = BlockTimestepDisplay.from_search(searched(GridSearchCV, SPACE), ax=left)
    again = display.plot(ax=right, include_values=False, colorbar=False)
    assert again is display
    assert display.ax_ is right
    assert display.figure_ is figure
    assert not right.texts


def test_a_search_over_blocks_alone_is_a_map_of_one_column():
    search = searched(GridSearchCV, {"head__block": [2, 6]})
    display = BlockTimestepDisplay.from_search(search)
    assert display.scores.shape == (2, 1)
    assert display.timesteps == [0]


def test_maps_of_other_searches_have_sorted_axes():
    search = searched(RandomizedSearchCV, SPACE, n_iter=15, random_state=0)
    display = BlockTimestepDisplay.from_search(search)
    assert display.blocks == sorted(display.blocks)


def test_the_metric_of_refit_is_shown_unless_another_is_named():
    scoring = {"up": lambda m, X, y=None: m.score(X), "one": lambda m, X, y=None: 1.0}
    search = searched(GridSearchCV, SPACE, scoring=scoring, refit="up")
    assert BlockTimestepDisplay.from_search(search).score_name == "mean test up"
    display = BlockTimestepDisplay.from_search(search, metric="one")
    assert (display.scores == 1).all()
    with pytest.raises(ValueError, match="metric='two' was not computed"):
        BlockTimestepDisplay.from_search(search, metric="two")


def test_a_map_of_nothing_but_nan_is_still_drawn():
    display = BlockTimestepDisplay(np.full((2, 2), np.nan), [1, 2], [0, 1]).plot()
    assert all(text is None for text in display.text_.ravel())


def test_searches_without_a_map_are_errors():
    model = Pipeline([("image", Passing()), ("head", Place())])
    other = GridSearchCV(model, {"head__a": [1, 2]}, cv=2).fit(X)
    with pytest.raises(ValueError, match="no parameter named block or timestep"):
        BlockTimestepDisplay.from_search(other)
    search = searched(GridSearchCV, SPACE)
    with pytest.raises(ValueError, match="modality='text' is not in the search"):
        BlockTimestepDisplay.from_search(search, modality="text")
    search.cv_results_["params"] = [{"image__block": 1, "text__block": 2}]
    with pytest.raises(ValueError, match="leaves several transformers"):
        BlockTimestepDisplay.from_search(search)


def test_the_most_frequent_labels_are_coloured_and_named():
    random = np.random.default_rng(0)
    Y = (random.random((60, 4)) < [0.1, 0.5, 0.3, 0.0]).astype(int)
    names = ["rare", "often", "some", "never"]
    display = EmbeddingDisplay.from_features(
        random.normal(size=(60, 5)), Y, target_names=names, n_labels=2, title="points"
    )
    assert list(display.names) == ["often", "some"]
    only_often = (Y[:, 1] == 1) & (Y[:, 2] == 0)
    assert ((display.colors_of == 0) == only_often).all()
    assert (display.colors_of[Y[:, [1, 2]].sum(axis=1) != 1] == -1).all()
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts == ["other or several", "often", "some"]
    assert display.ax_.get_title() == "points"
    sparse = EmbeddingDisplay.from_features(
        random.normal(size=(60, 5)), csr_array(Y), n_labels=2
    )
    assert list(sparse.names) == [1, 2]


def test_classes_are_labels_and_few_rows_lower_the_perplexity():
    Z, y = load_iris(return_X_y=True)
    names = load_iris().target_names
    display = EmbeddingDisplay.from_features(Z[::10], names[y[::10]])
    assert sorted(display.names) == sorted(names)
    assert display.embedding.shape == (15, 2)
    assert (display.colors_of >= 0).all()


def test_the_embedding_is_that_of_its_random_state():
    Z, y = load_iris(return_X_y=True)
    one, other = (
        EmbeddingDisplay.from_features(Z[::3], y[::3]).embedding for _ in range(2)
    )
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_labels": 8}, "n_labels=8 is not from 1 to 7"),
        ({"n_labels": 0}, "n_labels=0 is not from 1 to 7"),
        ({"target_names": ["a"]}, "target_names has 1 names for 3 labels"),
    ],
)
def test_bad_options_of_an_embedding_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        EmbeddingDisplay.from_features(*load_iris(return_X_y=True), **options)


def test_an_embedding_of_missing_features_is_an_error():
    with pytest.raises(ValueError, match="Z contains NaN"):
        EmbeddingDisplay.from_features(np.full((4, 2), np.nan), [0, 1, 0, 1])


def test_an_indicator_of_other_numbers_is_an_error():
    Z = np.zeros((4, 2))
    with pytest.raises(ValueError, match="Y holds values other than 0 and 1"):
        EmbeddingDisplay.from_features(Z, [[0, 1], [1, 0], [0, 2], [1, 1]])


def test_importing_the_package_imports_no_matplotlib():
    code = "import sklearn_difffeat, sys; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_a_missing_matplotlib_is_an_error_of_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="requires matplotlib"):
        BlockTimestepDisplay([[1.0]], [1], [0]).plot()
    with pytest.raises(ImportError, match="requires matplotlib"):
        EmbeddingDisplay.from_features([[0.0], [1.0], [2.0]], [0, 1, 1])
