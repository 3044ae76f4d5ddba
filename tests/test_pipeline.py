import numpy as np
import pandas as pd
import pytest
from helpers.fusion_oracles import make_multilabel
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from sklearn_difffeat import FusionClassifier, make_fusion_pipeline
from sklearn_difffeat.modalities._array import ModalityArray


class Embed(TransformerMixin, BaseEstimator):
    """Toy transformer: one column of numbers -> a labelled array of features."""

    def __init__(self, modality, width=3):
        self.modality = modality
        self.width = width

    def fit(self, X, y=None):
        self.n_features_in_ = 1
        return self

    def transform(self, X):
        cells = np.asarray(X, dtype=np.float32).reshape(-1, 1)
        features = np.hstack([cells**p for p in range(1, self.width + 1)])
        return ModalityArray.wrap(features, modality=self.modality)

    def get_feature_names_out(self, input_features=None):
        return np.array([f"f{i}" for i in range(self.width)], dtype=object)


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"picture": rng.normal(size=60), "caption": rng.normal(size=60)})
    Y = np.column_stack([X.sum(axis=1) > 0, X["picture"] > 1]).astype(int)
    return X, Y


def triples():
    return [
        ("image", Embed("image"), "picture"),
        ("text", Embed("text", width=2), "caption"),
    ]


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize("output", ["default", "pandas"])
def test_modalities_come_through_a_column_transformer(table, n_jobs, output):
    X, Y = table
    features = ColumnTransformer(triples(), n_jobs=n_jobs)
    if output == "pandas":
        features.set_output(transform=output)
    model = Pipeline([("features", features), ("classifier", FusionClassifier())])
    model.fit(X, Y)
    expected = {"image": slice(0, 3), "text": slice(3, 5)}
    assert model["classifier"].modalities_ == expected
    X.loc[::2, "caption"] = np.nan
    assert model.predict_proba(X).shape == (60, 2)
    search = GridSearchCV(
        model, {"features__image__width": [2, 3]}, scoring="average_precision", cv=3
    ).fit(X, Y)
    found = search.best_estimator_["classifier"].modalities_
    assert list(found) == ["image", "text"]


def two_texts(**params):
    steps = [
        ("title", Embed("text"), "picture"),
        ("text", Embed("text", width=2), "caption"),
    ]
    return ColumnTransformer(steps, **params)


def test_two_transformers_of_a_kind_fuse_under_numbers(table):
    X, Y = table
    model = Pipeline([("features", two_texts()), ("head", FusionClassifier())])
    X.loc[::2, "caption"] = np.nan
    model.fit(X, Y)
    assert model["head"].modalities_ == {"text_1": slice(0, 3), "text_2": slice(3, 5)}
    shares = model["head"].modality_contributions(model["features"].transform(X))
    assert not shares["text_2"][::2].any() and shares["text_1"].all()


@pytest.mark.parametrize("name", ["text", "title", "image"])
def test_a_weight_for_a_name_that_no_modality_has_asks_for_modalities(table, name):
    head = FusionClassifier(modality_weights={name: 0.1})
    model = Pipeline([("features", two_texts()), ("head", head)])
    with pytest.raises(ValueError, match=rf"names '{name}'.*by modalities="):
        model.fit(*table)


@pytest.mark.parametrize("output", ["pandas", "polars"])
def test_a_weight_means_the_transformer_of_that_name_in_a_frame(table, output):
    X, Y = table
    head = FusionClassifier(modality_weights={"text": 0.1})
    features = two_texts().set_output(transform=output)
    if output == "polars":
        polars = pytest.importorskip("polars")
        X = polars.DataFrame({name: X[name].to_list() for name in X})
    model = Pipeline([("features", features), ("head", head)]).fit(X, Y)
    expected = make_fusion_pipeline(*two_texts().transformers, classifier=clone(head))
    expected.fit(X, Y)
    assert list(model["head"].modalities_) == ["title", "text"]
    assert_allclose(model.predict_proba(X), expected.predict_proba(X), rtol=1e-3)


def test_a_modality_that_is_called_all_is_a_modality(table):
    X, Y = table
    X.loc[0, "caption"] = np.nan
    model = make_fusion_pipeline(("all", Embed("text"), "caption")).fit(X, Y)
    shares = model["classifier"].modality_contributions(model["features"].transform(X))
    assert not shares["all"][0].any()


def test_words_beside_features_fuse_or_are_warned_about(table):
    X, Y = table
    X["words"] = [f"w{i} w{i % 7}" for i in range(60)]
    parts = [
        ("words", CountVectorizer(), "words"),
        ("image", Embed("image"), "picture"),
    ]
    lost = Pipeline([("stack", ColumnTransformer(parts)), ("head", FusionClassifier())])
    with pytest.warns(UserWarning, match="sparse_threshold=0"):
        lost.fit(X, Y)
    model = clone(lost).set_params(stack__sparse_threshold=0).fit(X, Y)
    assert list(model["head"].modalities_) == ["other", "image"]
    assert_allclose(model.predict_proba(X), lost.predict_proba(X), rtol=1e-6)
    named = make_fusion_pipeline(*parts, classifier=FusionClassifier()).fit(X, Y)
    assert list(named["classifier"].modalities_) == ["words", "image"]
    assert_allclose(model.predict_proba(X), named.predict_proba(X))


def test_make_fusion_pipeline_names_the_columns_of_any_transformer(table):
    X, Y = table
    model = make_fusion_pipeline(
        ("numbers", StandardScaler(), ["caption"]),
        ("image", Embed("picture"), "picture"),
        classifier=FusionClassifier(fusion_dim=1),
    ).fit(X, Y)
    assert model["classifier"].modalities_ == {
        "numbers": slice(0, 1),
        "image": slice(1, 4),
    }
    assert clone(model).set_params(features__image__width=2).fit(X, Y)
    assert model.predict(X).shape == Y.shape


def test_make_fusion_pipeline_takes_triples_only():
    with pytest.raises(ValueError, match="Transformer 0 of make_fusion_pipeline"):
        make_fusion_pipeline(("image", Embed("image")))


def test_modalities_in_another_order_than_in_fit_are_an_error():
    X, Y = make_multilabel()
    a, b = ModalityArray.wrap(X[:, :4], "a"), ModalityArray.wrap(X[:, 4:], "b")
    model = FusionClassifier().fit(np.hstack([a, b]), Y)
    with pytest.raises(ValueError, match="should match those of fit"):
        model.predict(np.hstack([b, a]))
    assert_array_equal(model.predict(X), model.predict(np.hstack([a, b])))


def test_sample_weight_is_routed_through_a_pipeline():
    X, Y = make_multilabel(n=60)
    weight = np.random.default_rng(0).uniform(0.1, 3, len(X))
    with config_context(enable_metadata_routing=True):
        head = FusionClassifier().set_fit_request(sample_weight=True)
        pipe = Pipeline([("scale", MinMaxScaler()), ("head", head)])
        pipe.set_params(head__C=0.5).fit(X, Y, sample_weight=weight)
    direct = FusionClassifier(C=0.5).fit(
        pipe["scale"].transform(X), Y, sample_weight=weight
    )
    assert_allclose(pipe["head"].coef_, direct.coef_)


def test_sample_weight_is_routed_through_a_search():
    X, Y = make_multilabel(n=90)
    weight, groups = np.arange(90) % 3 + 0.5, np.arange(90) // 6
    with config_context(enable_metadata_routing=True):
        head = FusionClassifier().set_fit_request(sample_weight=True)
        search = GridSearchCV(
            Pipeline([("scale", MinMaxScaler()), ("head", head)]),
            {"head__C": [0.1, 1.0]},
            scoring=get_scorer("average_precision").set_score_request(
                sample_weight=True
            ),
            cv=GroupKFold(3),
        ).fit(X, Y, sample_weight=weight, groups=groups)
    C = search.best_params_["head__C"]
    scaled = search.best_estimator_["scale"].transform(X)
    direct = FusionClassifier(C=C).fit(scaled, Y, sample_weight=weight)
    assert_allclose(search.best_estimator_["head"].coef_, direct.coef_)
