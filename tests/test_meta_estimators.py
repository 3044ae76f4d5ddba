"""What the page on scikit-learn's meta-estimators says: which take an indicator y."""

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_multilabel_classification
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import RFECV, SelectFromModel
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import permutation_importance
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    StratifiedKFold,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_validate,
    learning_curve,
    validation_curve,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.semi_supervised import SelfTrainingClassifier

from sklearn_difffeat import (
    FusionClassifier,
    LocalSearchCV,
    TunedThresholdsClassifierCV,
)

MAP = {"scoring": "average_precision", "cv": 3}
ONE_COLUMN = "y should be a 1d array"


def labelled(n_classes=4, n_features=10):
    return make_multilabel_classification(
        n_samples=120, n_features=n_features, n_classes=n_classes, random_state=0
    )


def named(n_classes=3):
    X, Y = labelled(n_classes, 4)
    columns = ["image__0", "image__1", "text__0", "text__1"]
    return pd.DataFrame(X, columns=columns), Y


def head():
    return FusionClassifier(C=0.1)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
def test_cross_val_predict_takes_an_indicator(method):
    X, Y = labelled()
    assert cross_val_predict(head(), X, Y, cv=3, method=method).shape == Y.shape


def test_cross_validate_and_the_curves_take_an_indicator():
    X, Y = labelled()
    assert cross_validate(head(), X, Y, **MAP)["test_score"].min() > 0.5
    assert learning_curve(head(), X, Y, **MAP)[2].shape == (5, 3)
    values = {"param_name": "C", "param_range": [0.01, 0.1, 1]}
    assert validation_curve(head(), X, Y, **values, **MAP)[1].shape == (3, 3)


@pytest.mark.parametrize("search", [GridSearchCV, LocalSearchCV])
def test_searches_take_an_indicator(search):
    assert search(head(), {"C": [0.01, 0.1]}, **MAP).fit(*labelled()).best_score_ > 0.5


def test_permutation_importance_takes_an_indicator():
    X, Y = labelled()
    importance = permutation_importance(
        head().fit(X, Y), X, Y,
        scoring="average_precision", n_repeats=2, random_state=0,
    )  # fmt: skip
    assert importance.importances_mean.shape == (10,)


def test_one_label_at_a_time_gives_the_same():
    X, Y = labelled()
    fitted = head().fit(X, Y)
    expected = fitted.predict_proba(X)
    np.testing.assert_array_equal(FrozenEstimator(fitted).predict_proba(X), expected)
    one_by_one = OneVsRestClassifier(head()).fit(X, Y)
    np.testing.assert_allclose(one_by_one.predict_proba(X), expected, atol=1e-5)
    by_label = MultiOutputClassifier(head()).fit(X, Y).predict_proba(X)
    assert isinstance(by_label, list)
    columns = np.column_stack([each[:, 1] for each in by_label])
    np.testing.assert_allclose(columns, expected, atol=1e-5)


def test_chains_and_selections_take_an_indicator():
    X, Y = labelled()
    chain = ClassifierChain(head(), cv=3).fit(X, Y)
    assert chain.predict_proba(X).shape == Y.shape
    assert RFECV(head(), **MAP).fit(X, Y).predict(X).shape == Y.shape
    assert SelectFromModel(head()).fit(X, Y).transform(X).shape[1] < 10


def test_stacking_takes_an_indicator_by_its_decisions():
    X, Y = labelled(n_classes=2)
    models = [("weak", FusionClassifier(C=0.01)), ("strong", FusionClassifier(C=1))]
    with pytest.raises(ValueError, match=ONE_COLUMN):
        StackingClassifier(models).fit(X, Y)

    # Two labels are taken for two classes, and the first is dropped.
    dropped = StackingClassifier(models, final_estimator=FusionClassifier()).fit(X, Y)
    assert dropped.transform(X).shape[1] == 2

    stack = StackingClassifier(
        models, final_estimator=FusionClassifier(), stack_method="decision_function"
    ).fit(X, Y)
    assert stack.transform(X).shape[1] == 4
    assert stack.predict(X).shape == stack.decision_function(X).shape == Y.shape
    with pytest.raises(IndexError):
        stack.predict_proba(X)
    proba = stack.final_estimator_.predict_proba(stack.transform(X))
    np.testing.assert_array_equal(proba >= 0.5, stack.predict(X))


@pytest.mark.parametrize("search", [HalvingGridSearchCV, HalvingRandomSearchCV])
def test_halving_takes_an_indicator_if_it_need_not_count_classes(search):
    X, Y = labelled()
    params = {"cv": 3, "random_state": 0, "scoring": "average_precision"}
    space = {"C": [0.01, 0.1, 1]}
    with pytest.raises(ValueError, match=ONE_COLUMN):
        search(FusionClassifier(), space, **params).fit(X, Y)
    found = search(FusionClassifier(), space, min_resources=40, **params).fit(X, Y)
    assert found.n_resources_ == [40, 120]
    assert found.predict_proba(X).shape == Y.shape


def test_halving_over_another_resource_takes_an_indicator():
    steps = {"resource": "max_iter", "max_resources": 1000, "min_resources": 500}
    search = HalvingGridSearchCV(
        FusionClassifier(), {"C": [0.01, 0.1, 1]}, factor=2, random_state=0,
        **steps, **MAP,
    )  # fmt: skip
    assert search.fit(*labelled()).n_resources_ == [500, 1000]


@pytest.mark.parametrize(
    "model, message",
    [
        (CalibratedClassifierCV(head(), cv=3), ONE_COLUMN),
        (BaggingClassifier(head(), n_estimators=2, random_state=0), ONE_COLUMN),
        (AdaBoostClassifier(head(), n_estimators=2), ONE_COLUMN),
        (SelfTrainingClassifier(head()), ONE_COLUMN),
        (
            VotingClassifier([("a", head()), ("b", head())], voting="soft"),
            "only supports binary or multiclass classification",
        ),
        (FixedThresholdClassifier(head()), "Only binary classification is supported"),
        (
            TunedThresholdClassifierCV(head(), cv=3),
            "Only binary classification is supported",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
# Every row has its labels here, of which self-training warns.
@pytest.mark.filterwarnings("ignore:.*no unlabeled samples:UserWarning")
def test_others_refuse_an_indicator_and_work_label_by_label(model, message):
    X, Y = labelled()
    with pytest.raises((ValueError, RuntimeError), match=message):
        model.fit(X, Y)
    with_all_labels = OneVsRestClassifier(model).fit(X, Y)
    assert with_all_labels.predict(X).shape == Y.shape
    assert with_all_labels.predict_proba(X).shape == Y.shape


def test_self_training_keeps_the_labels_it_is_given():
    X, Y = labelled()
    label = Y[:, 0].copy()
    label[::3] = -1
    found = SelfTrainingClassifier(head()).fit(X, label).transduction_
    np.testing.assert_array_equal(found[label >= 0], label[label >= 0])


def test_thresholds_of_several_labels_are_tuned():
    found = TunedThresholdsClassifierCV(head(), cv=3).fit(*labelled())
    assert found.best_thresholds_.shape == (4,)


def test_stratified_folds_refuse_an_indicator():
    with pytest.raises(ValueError, match="Supported target types"):
        cross_val_predict(head(), *labelled(), cv=StratifiedKFold(3))


@pytest.mark.parametrize(
    "fit",
    [
        lambda X, Y: OneVsRestClassifier(head()).fit(X, Y).estimators_[0],
        lambda X, Y: MultiOutputClassifier(head()).fit(X, Y).estimators_[0],
        lambda X, Y: (
            CalibratedClassifierCV(head(), ensemble=False, cv=2)
            .fit(X, Y[:, 0])
            .calibrated_classifiers_[0]
            .estimator
        ),
        lambda X, Y: VotingClassifier([("a", head())]).fit(X, Y[:, 0]).estimators_[0],
        lambda X, Y: (
            StackingClassifier([("a", head())], final_estimator=head())
            .fit(X, Y)
            .estimators_[0]
        ),
        lambda X, Y: (
            LocalSearchCV(head(), {"C": [0.1, 1]}, cv=2).fit(X, Y).best_estimator_
        ),
    ],
    ids=["one vs rest", "multi-output", "calibrated", "voting", "stacking", "search"],
)
def test_modalities_are_kept(fit):
    assert list(fit(*named()).modalities_) == ["image", "text"]


@pytest.mark.parametrize(
    "fit",
    [
        lambda X, Y: BaggingClassifier(head(), n_estimators=2).fit(X, Y[:, 0]),
        lambda X, Y: AdaBoostClassifier(head(), n_estimators=2).fit(X, Y[:, 0]),
        lambda X, Y: ClassifierChain(head()).fit(X, Y),
    ],
    ids=["bagging", "boosting", "chain"],
)
def test_modalities_are_lost_where_columns_lose_their_names(fit):
    assert list(fit(*named()).estimators_[0].modalities_) == ["all"]


def test_modalities_are_lost_in_recursive_elimination():
    assert list(RFECV(head(), cv=2).fit(*named()).estimator_.modalities_) == ["all"]
    model = FusionClassifier(modalities={"a": slice(0, 2), "b": slice(2, 4)})
    with pytest.raises(ValueError, match="outside X"):
        RFECV(model).fit(*named())


def test_modalities_that_are_named_hold_without_names_of_columns():
    X, Y = named()
    spans = {"image": slice(0, 2), "text": slice(2, None)}
    model = FusionClassifier(modalities=spans)
    found = BaggingClassifier(model, n_estimators=2).fit(X, Y[:, 0]).estimators_[0]
    assert list(found.modalities_) == ["image", "text"]
    last = ClassifierChain(model).fit(X, Y).estimators_[2]
    assert last.modalities_ == {"image": slice(0, 2), "text": slice(2, 6)}
