"""Pipelines, searches and pickles of the embedded pair, fused."""

import io
import subprocess
import sys

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GroupKFold, cross_validate
from sklearn.pipeline import Pipeline

from sklearn_difffeat import (
    FusionClassifier,
    ImageDiffusionFeatureTransformer,
    TextDiffusionFeatureTransformer,
    make_fusion_pipeline,
)

RARE_LABELS = pytest.mark.filterwarnings("ignore:.*are constant in y")


def fused():
    return make_fusion_pipeline(
        ("image", ImageDiffusionFeatureTransformer(timestep=0), "image"),
        ("text", TextDiffusionFeatureTransformer(), "text"),
        classifier=FusionClassifier(C=0.1),
    )


@RARE_LABELS
def test_the_documented_pipeline_fuses_by_column_prefix(clipart):
    X, Y, _ = clipart
    features = ColumnTransformer(
        [
            ("image", ImageDiffusionFeatureTransformer(), "image"),
            ("text", TextDiffusionFeatureTransformer(), "text"),
        ]
    )
    model = Pipeline([("features", features), ("classifier", FusionClassifier())])
    model.fit(X, Y)
    assert list(model["classifier"].modalities_) == ["image", "text"]
    assert model.predict_proba(X).shape == Y.shape
    named = clone(model).set_output(transform="pandas").fit(X, Y)
    assert list(named["classifier"].modalities_) == ["image", "text"]
    np.testing.assert_allclose(
        named.predict_proba(X), model.predict_proba(X), atol=1e-6
    )


@RARE_LABELS
def test_cross_validate_scores_the_fused_pipeline_by_group(clipart):
    X, Y, groups = clipart
    scores = cross_validate(
        fused(), X, Y, groups=groups, cv=GroupKFold(2), error_score="raise"
    )
    assert np.isfinite(scores["test_score"]).all()


SEARCH = """
import sys
import joblib
import numpy as np
from sklearn.model_selection import GridSearchCV

model, X, Y = joblib.load("job.joblib")
grid = {"features__image__block": [2, 4], "features__image__timestep": [0, 100]}
search = GridSearchCV(model, grid, cv=2, n_jobs=int(sys.argv[1]), error_score="raise")
search.fit(X, Y)
fitted = search.best_estimator_["features"].named_transformers_["image"]
assert fitted.block_ == search.best_params_["features__image__block"]
np.save(f"scores{sys.argv[1]}.npy", search.cv_results_["mean_test_score"])
"""


def test_grid_search_over_block_and_timestep_runs_in_two_processes(clipart, tmp_path):
    X, Y, _ = clipart
    joblib.dump((fused(), X[:16], Y[:16]), tmp_path / "job.joblib")
    # A process of its own: joblib warns of workers it replaces, in a thread that
    # warnings turned into errors would end.
    for n_jobs in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", SEARCH, n_jobs],
            check=True,
            cwd=tmp_path,
            timeout=240,
        )
    one, two = (np.load(tmp_path / f"scores{n}.npy") for n in "12")
    np.testing.assert_allclose(one, two, atol=1e-6)


@RARE_LABELS
def test_model_dumped_by_joblib_predicts_the_same_in_a_new_process(clipart, tmp_path):
    X, Y, _ = clipart
    model = fused().fit(X, Y)
    joblib.dump(model, tmp_path / "model.joblib")
    X.to_pickle(tmp_path / "X.pickle")
    code = (
        "import joblib, numpy, pandas; "
        "model = joblib.load('model.joblib'); X = pandas.read_pickle('X.pickle'); "
        "numpy.save('p.npy', model.predict_proba(X))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    expected = model.predict_proba(X)
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), expected, atol=1e-6)
    buffer = io.BytesIO()
    joblib.dump(model["features"], buffer)
    assert buffer.tell() < 200_000
