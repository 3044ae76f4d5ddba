"""scikit-learn's checks of TunedThresholdsClassifierCV: each runs or has a twin."""

import numpy as np
import pytest
from helpers.fusion_oracles import make_multilabel
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import estimator_checks_generator

from sklearn_difffeat import FusionClassifier, TunedThresholdsClassifierCV

PLAIN = TunedThresholdsClassifierCV(FusionClassifier(), cv=2)


class OfClasses(TunedThresholdsClassifierCV):
    """Turns classes to an indicator matrix, and the labels' probabilities back."""

    def fit(self, X, y, sample_weight=None):
        classes, codes = np.unique(np.asarray(y), return_inverse=True)
        super().fit(X, np.eye(len(classes), dtype=int)[codes], sample_weight)
        self.classes_ = classes
        return self

    def predict(self, X):
        margin = self.predict_proba(X) - self.best_thresholds_
        return self.classes_[margin.argmax(axis=1)]


# These fit a column of classes, which PLAIN refuses; they run on OfClasses.
FIT_CLASSES = {
    "check_all_zero_sample_weights_error",
    "check_classifier_data_not_an_array",
    "check_classifiers_classes",
    "check_classifiers_one_label_sample_weights",
    "check_dict_unchanged",
    "check_dont_overwrite_parameters",
    "check_dtype_object",
    "check_estimator_sparse_array",
    "check_estimator_sparse_matrix",
    "check_estimator_sparse_tag",
    "check_estimators_dtypes",
    "check_estimators_empty_data_messages",
    "check_estimators_fit_returns_self",
    "check_estimators_nan_inf",
    "check_estimators_overwrite_params",
    "check_estimators_pickle",
    "check_f_contiguous_array_estimator",
    "check_fit2d_1feature",
    "check_fit2d_predict1d",
    "check_fit_check_is_fitted",
    "check_fit_idempotent",
    "check_fit_score_takes_y",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_n_features_in",
    "check_n_features_in_after_fitting",
    "check_pipeline_consistency",
    "check_positive_only_tag_during_fit",
    "check_readonly_memmap_input",
    "check_sample_weight_equivalence_on_dense_data",
    "check_sample_weight_equivalence_on_sparse_data",
    "check_sample_weights_list",
    "check_sample_weights_not_an_array",
    "check_sample_weights_not_overwritten",
    "check_sample_weights_pandas_series",
    "check_sample_weights_shape",
}


def predictions_are_right_and_bad_rows_refused():
    """Twin, since the check wants the class of the highest probability predicted."""
    X, Y = make_multilabel(n=400)
    model = clone(PLAIN)
    with pytest.raises(NotFittedError):
        model.predict(X)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(X, Y[:-1])
    for kept in (X, X.astype(np.float32)):
        kept.setflags(write=False)
        model.fit(kept, Y)
        proba, found = model.predict_proba(kept), model.predict(kept)
        assert proba.shape == found.shape == Y.shape
        assert ((proba >= 0) & (proba <= 1)).all()
        assert_array_equal(found, proba >= model.best_thresholds_)
        assert np.mean(found == Y) > 0.83
    for rows in (X.T, X[:, :3]):
        with pytest.raises(ValueError, match="features, but FusionClassifier is exp"):
            model.predict(rows)


def a_constant_label_is_predicted():
    """Twin, since one class alone makes one column, which is no indicator matrix."""
    X, Y = make_multilabel(n=60)
    Y[:, 1] = 1
    with pytest.warns(UserWarning, match="constant in y"):
        model = clone(PLAIN).fit(X, Y)
    assert (model.predict(X)[:, 1] == 1).all()


def a_column_is_refused():
    """Twin, since the check wants a column of classes fitted, with a warning."""
    X, Y = make_multilabel(n=60)
    with pytest.raises(ValueError, match="Only multilabel-indicator targets"):
        clone(PLAIN).fit(X, Y[:, :1])


def classes_are_refused():
    """Twin, since the check wants a message that binary classes are taken."""
    X, Y = make_multilabel(n=60)
    with pytest.raises(ValueError, match="Only multilabel-indicator targets"):
        clone(PLAIN).fit(X, Y.sum(axis=1))


def one_row_is_refused():
    """Twin, since the one class of one row makes one column, refused for that."""
    with pytest.raises(ValueError, match="number of samples: n_samples=1"):
        clone(PLAIN).fit([[1.0, 2.0]], [[0, 1]])


TWINS = {
    "check_classifiers_train": predictions_are_right_and_bad_rows_refused,
    "check_classifiers_one_label": a_constant_label_is_predicted,
    "check_supervised_y_2d": a_column_is_refused,
    "check_classifier_not_supporting_multiclass": classes_are_refused,
    "check_fit2d_1sample": one_row_is_refused,
}


def name_of(check):
    return check.func.__name__


CHECKS = [check for _, check in estimator_checks_generator(PLAIN)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "check", [c for c in CHECKS if name_of(c) not in TWINS], ids=name_of
)
def test_every_other_scikit_learn_check_passes(check):
    kind = OfClasses if name_of(check) in FIT_CLASSES else TunedThresholdsClassifierCV
    check(kind(FusionClassifier(), cv=2))


@pytest.mark.parametrize("name", TWINS)
def test_twins_hold_where_a_check_cannot_run(name):
    TWINS[name]()


def test_no_check_is_listed_that_scikit_learn_does_not_have():
    assert FIT_CLASSES | set(TWINS) <= {name_of(check) for check in CHECKS}
    assert not FIT_CLASSES & set(TWINS)
