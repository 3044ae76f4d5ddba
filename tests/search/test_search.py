"""The contract of LocalSearchCV, on surfaces that are known."""

import pickle
import warnings

import numpy as np
import pytest
from helpers.surfaces import (
    AXIS,
    SPACE,
    Surface,
    X,
    best_of,
    fused,
    tried,
    unimodal,
    walk,
)
from joblib import parallel_config
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_iris
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    ShuffleSplit,
)
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_difffeat import (
    FusionClassifier,
    ImageDiffusionFeatureTransformer,
    LocalSearchCV,
)

C_GRID = [0.001, 0.01, 0.1, 1, 10, 100]


def test_a_search_on_a_cache_passes_each_row_once_a_timestep(
    clipart, pass_counter, tmp_path
):
    X, Y, groups = clipart
    model, space = fused(
        tmp_path / "features.db",
        picture__block=[1, 2, 3, 4],
        picture__timestep=[0, 100, 400],
        caption__block=[2, 4, 6],
    )
    search = LocalSearchCV(model, space, cv=GroupKFold(2), error_score="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search.fit(X, Y, groups=groups)
    unique = len(X), X["text"].nunique()
    n_image = len({p["features__picture__timestep"] for p in params_of(search)})
    assert search.n_passes_ == n_image + 1
    assert pass_counter["rows"] == n_image * unique[0] + unique[1]


def params_of(search):
    return search.cv_results_["params"]


def test_an_interrupted_search_loses_no_computed_feature(
    clipart, pass_counter, tmp_path
):
    X, Y, groups = clipart

    class Interrupting(FusionClassifier):
        def fit(self, X, y, **params):
            if countdown.pop():
                raise KeyboardInterrupt
            return super().fit(X, y, **params)

    countdown = [True] + [False] * 5
    transformer = ImageDiffusionFeatureTransformer(cache=tmp_path / "features.db")
    model = Pipeline([("image", transformer), ("head", Interrupting(C=0.1))])
    space = {"image__block": [2, 3, 4], "image__timestep": [0, 100]}
    search = LocalSearchCV(model, space, cv=GroupKFold(2), refit=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(KeyboardInterrupt):
            search.fit(X["image"], Y, groups=groups)
        assert not hasattr(search, "cv_results_")
        passed = pass_counter["rows"]
        assert passed
        countdown[:] = [False] * 100
        search.fit(X["image"], Y, groups=groups)
    assert pass_counter["rows"] == len(X) * search.n_passes_


def test_scores_and_attributes_are_those_of_grid_search():
    iris = load_iris(return_X_y=True)
    search = LocalSearchCV(SVC(), {"C": C_GRID}, return_train_score=True).fit(*iris)
    grid = GridSearchCV(SVC(), {"C": C_GRID}, return_train_score=True).fit(*iris)
    assert set(search.cv_results_) == set(grid.cv_results_)
    for params, score in zip(
        params_of(search), search.cv_results_["mean_test_score"], strict=True
    ):
        place = grid.cv_results_["params"].index(params)
        assert score == grid.cv_results_["mean_test_score"][place]
    assert search.best_score_ == grid.best_score_
    assert search.n_splits_ == 5
    assert (search.predict(iris[0]) == search.best_estimator_.predict(iris[0])).all()
    assert is_classifier(search)
    assert search.classes_.tolist() == [0, 1, 2]
    assert search.n_features_in_ == 4


def test_clones_and_pickles_work_and_hold_no_splits():
    search = LocalSearchCV(SVC(), {"C": C_GRID}, cv=KFold(3, shuffle=True))
    fitted = clone(search).fit(*load_iris(return_X_y=True))
    again = pickle.loads(pickle.dumps(fitted))
    assert again.best_params_ == fitted.best_params_
    assert again.path_ == fitted.path_
    assert not any("evaluated" in name for name in vars(fitted))


def test_without_refit_the_best_is_known_but_nothing_is_fitted():
    search = walk(unimodal, refit=False)
    assert search.best_score_ == pytest.approx(best_of(unimodal))
    assert not hasattr(search, "best_estimator_")


def test_a_callable_refit_chooses_among_the_candidates_of_the_walk():
    search = walk(unimodal, refit=lambda results: 0)
    assert search.best_index_ == 0
    assert search.path_[-1]["score"] == pytest.approx(best_of(unimodal))


def test_the_walk_follows_the_metric_that_refit_names():
    scoring = {"falling": lambda m, X, y=None: -m.a, "rising": lambda m, X, y=None: m.a}
    for refit, wanted in [("falling", 0), ("rising", 11)]:
        search = LocalSearchCV(
            Surface(), {"a": AXIS}, scoring=scoring, refit=refit, cv=2
        ).fit(X)
        assert search.best_params_ == {"a": wanted}
    first = LocalSearchCV(
        Surface(), {"a": AXIS}, scoring=scoring, refit=False, cv=2
    ).fit(X)
    assert first.path_[-1]["params"] == {"a": 0}


def test_several_metrics_without_one_to_refit_by_are_refused_as_by_grid_search():
    scoring = ["accuracy", "balanced_accuracy"]
    search = LocalSearchCV(SVC(), {"C": C_GRID}, scoring=scoring)
    with pytest.raises(ValueError, match="For multi-metric scoring, the parameter"):
        search.fit(*load_iris(return_X_y=True))

    def both(model, X, y=None):
        fits.append(model)
        return {"one": 1.0, "two": 2.0}

    fits = []
    search = LocalSearchCV(Surface(), SPACE, scoring=both, cv=2)
    with pytest.raises(ValueError, match="For multi-metric scoring, the parameter"):
        search.fit(X)
    assert len(fits) == 2


@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
def test_a_score_of_nan_is_the_worst():
    def score(a, b, c, d):
        return np.nan if a > 8 else float(a)

    search = walk(score, start={"a": 11})
    assert search.best_params_["a"] in (8, 11)
    search = walk(score, start={"a": 9})
    assert search.best_params_["a"] == 8
    assert np.isnan(search.path_[0]["score"])


def test_scores_that_are_not_finite_are_told_once_as_by_grid_search():
    search = LocalSearchCV(
        Surface(lambda a, b, c, d: np.nan if a > 8 else float(a)), {"a": AXIS}, cv=2
    )
    with pytest.warns(UserWarning, match="test scores are non-finite") as told:
        search.fit(X)
    assert len(told) == 1


@pytest.mark.parametrize("error_score", [np.nan, -5.0])
@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
def test_a_candidate_that_fails_to_fit_follows_error_score(error_score):
    model = Surface(lambda a, b, c, d: float(a), fails=lambda a: a in (5, 7, 10, 11))
    search = LocalSearchCV(model, {"a": AXIS}, cv=2, error_score=error_score)
    with pytest.warns(FitFailedWarning, match="does not fit"):
        search.fit(X)
    assert search.best_params_ == {"a": 9}
    scores = {
        p["a"]: s
        for p, s in zip(
            params_of(search), search.cv_results_["mean_test_score"], strict=True
        )
    }
    # The start, 5, failed in a batch of its own.
    assert scores[5] == pytest.approx(error_score, nan_ok=True)
    assert scores[11] == pytest.approx(error_score, nan_ok=True)
    assert scores[8] == 8
    assert search.path_[0]["params"] == {"a": 5}
    assert len(params_of(search)) == search.n_candidates_


def test_error_score_raise_raises_the_error():
    model = Surface(fails=lambda a: a == 5)
    search = LocalSearchCV(model, {"a": AXIS}, cv=2, error_score="raise")
    with pytest.raises(RuntimeError, match="a=5 does not fit"):
        search.fit(X)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
def test_a_search_of_which_all_fits_fail_is_an_error_as_of_grid_search():
    search = LocalSearchCV(Surface(fails=lambda a: True), {"a": [1, 2, 3]}, cv=2)
    with pytest.raises(ValueError, match="All the 6 fits failed"):
        search.fit(X)


# The batches of a walk on AXIS are 5; 2 and 8; 11 (from 8); then 7 and 9, and so on.
@pytest.mark.parametrize(
    ("failing", "n_failed"),
    [({5}, 2), ({11}, 2), ({2, 8}, 4), ({8}, 2), ({5, 2, 11}, 6), ({5, 2, 8}, 6)],
    ids=["first", "later", "later of two", "some", "first and some", "first two"],
)
@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
def test_one_warning_counts_the_fits_that_failed_in_any_batch(
    failing, n_failed, n_jobs
):
    model = Surface(lambda a, b, c, d: float(a), fails=lambda a: a in failing)
    search = LocalSearchCV(model, {"a": AXIS}, cv=2, n_jobs=n_jobs)
    with parallel_config("threading"), pytest.warns(FitFailedWarning) as told:
        search.fit(X)
    n_fits = 2 * search.n_candidates_
    failures = [w for w in told if w.category is FitFailedWarning]
    assert len(failures) == 1
    message = str(failures[0].message)
    assert f"{n_failed} fits failed out of a total of {n_fits}." in message
    scores = dict(
        zip(tried(search), search.cv_results_["mean_test_score"], strict=True)
    )
    assert {a for (a,), score in scores.items() if np.isnan(score)} == failing
    assert all(scores[a,] == a for (a,) in scores if a not in failing)
    assert search.path_[0]["params"] == {"a": 5}
    assert search.best_score_ == np.nanmax(search.cv_results_["mean_test_score"])
    ranks = search.cv_results_["rank_test_score"]
    assert (ranks[np.isnan(search.cv_results_["mean_test_score"])] > 1).all()


@pytest.mark.parametrize("failing", [5, 8, 11])
def test_error_score_raise_raises_the_error_of_any_batch(failing):
    model = Surface(lambda a, b, c, d: float(a), fails=lambda a: a == failing)
    search = LocalSearchCV(model, {"a": AXIS}, cv=2, error_score="raise")
    with pytest.raises(RuntimeError, match=f"a={failing} does not fit"):
        search.fit(X)


def test_error_score_raise_raises_that_all_fits_of_an_inner_search_failed():
    class Counting(Surface):
        def fit(self, X, y=None):
            fits.append(self.b)
            return super().fit(X, y)

    fits = []
    inner = GridSearchCV(Counting(fails=lambda a: True), {"a": [1]}, cv=2)
    space = {"estimator__b": AXIS}
    search = LocalSearchCV(inner, space, cv=2, error_score="raise")
    with pytest.raises(ValueError, match="All the 2 fits failed"):
        search.fit(X)
    assert fits == [5, 5]


def test_an_error_of_another_kind_in_a_later_batch_is_no_failed_fit():
    def score(model, X, y=None):
        return 1.0 if model.a == 5 else "high"

    search = LocalSearchCV(Surface(), {"a": AXIS}, cv=2, scoring=score)
    with pytest.raises(ValueError, match="scoring must return a number, got high"):
        search.fit(X)


def test_what_travels_with_every_fit_does_not_grow_with_the_walk():
    def score(model, X, y=None):
        names.append(set(vars(search)))
        return float(model.a)

    names = []
    search = LocalSearchCV(Surface(), {"a": AXIS}, cv=2, scoring=score)
    search.fit(X)
    assert len(names) > 4 and all(held == names[0] for held in names)


@pytest.mark.parametrize(
    "scoring",
    [
        {"one": lambda m, X, y=None: m.a, "two": lambda m, X, y=None: -m.a},
        lambda m, X, y=None: {"one": m.a, "two": -m.a},
    ],
    ids=["dict", "callable"],
)
def test_failures_of_several_metrics_fill_every_metric(scoring):
    search = LocalSearchCV(
        Surface(fails=lambda a: a == 1),
        {"a": [0, 1, 2]},
        scoring=scoring,
        refit="one",
        cv=2,
        error_score=-9,
        return_train_score=True,
    )
    with pytest.warns(FitFailedWarning):
        search.fit(X)
    assert search.cv_results_["mean_test_two"].min() == -9
    assert search.cv_results_["mean_train_one"].min() == -9


def test_groups_reach_the_splitter():
    iris = load_iris(return_X_y=True)
    groups = np.arange(150) % 7
    search = LocalSearchCV(SVC(), {"C": C_GRID}, cv=GroupKFold(3))
    with pytest.raises(ValueError, match="'groups' parameter should not be None"):
        search.fit(*iris)
    assert search.fit(*iris, groups=groups).n_splits_ == 3


def test_all_candidates_get_the_same_splits_of_a_random_splitter():
    search = LocalSearchCV(
        Surface(lambda *point: 0.0),
        {"a": AXIS},
        cv=ShuffleSplit(2),
        scoring=lambda model, X, y=None: float(X.sum()),
    ).fit(np.random.default_rng(0).random((20, 1)))
    for split in ("split0_test_score", "split1_test_score"):
        assert len(set(search.cv_results_[split])) == 1


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_the_walk_does_not_depend_on_n_jobs(backend):
    alone = walk(unimodal, max_candidates=12)
    with parallel_config(backend):
        shared = walk(unimodal, max_candidates=12, n_jobs=2)
    assert tried(alone) == tried(shared)


def test_verbose_tells_the_moves(capsys):
    walk(unimodal, verbose=1, max_candidates=9)
    told = capsys.readouterr().out
    assert "Fitting 2 folds for each of 1 candidates" in told
    assert "start: " in told


def test_metadata_reaches_estimator_and_scorer():
    iris = load_iris(return_X_y=True)
    weights = np.r_[np.ones(100), np.zeros(50)]
    search = LocalSearchCV(LogisticRegression(), {"C": C_GRID}, max_candidates=2)
    search.fit(*iris, sample_weight=weights)
    assert 2 not in search.predict(iris[0])


def test_a_scorer_that_returns_no_number_is_refused_as_by_grid_search():
    search = LocalSearchCV(Surface(), SPACE, cv=2, scoring=lambda *a: "high")
    with pytest.raises(ValueError, match="scoring must return a number, got high"):
        search.fit(X)
    scorer = make_scorer(lambda y, p: 1.0)
    assert LocalSearchCV(Surface(), SPACE, cv=2, scoring=scorer).fit(X, X[:, 0])


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [LocalSearchCV(LogisticRegression(), {"C": [0.1, 1.0, 10.0]}, cv=2)]
)
def test_the_search_passes_scikit_learns_checks(estimator, check):
    check(estimator)
