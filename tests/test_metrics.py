"""Scores against hand-counted values and scikit-learn."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.datasets import make_blobs
from sklearn.metrics import (
    average_precision_score,
    calinski_harabasz_score,
    davies_bouldin_score,
    f1_score,
    silhouette_score,
)

from sklearn_difffeat import clustering_report, multilabel_report


@pytest.fixture
def scored():
    random = np.random.default_rng(0)
    Y = (random.random((200, 7)) < 0.3).astype(int)
    return Y, np.clip(0.4 * Y + 0.7 * random.random(Y.shape), 0, 1)


def test_scores_equal_those_counted_by_hand():
    Y = np.array([[1, 0], [1, 1], [0, 1], [0, 0]])
    P = np.array([[0.9, 0.6], [0.4, 0.7], [0.8, 0.2], [0.1, 0.1]])
    report = multilabel_report(Y, P)
    # Label 1: 1 of 2 predicted is right, 1 of 2 found; label 2 the same.
    assert report["CP"] == report["CR"] == report["CF1"] == 0.5
    assert report["OP"] == report["OR"] == report["OF1"] == 0.5
    # Label 1 ranks + - + -, label 2 + - + -.
    assert report["mAP"] == pytest.approx((1 + 2 / 3) / 2)


def test_scores_agree_with_scikit_learn(scored):
    Y, P = scored
    report = multilabel_report(Y, P)
    assert report["mAP"] == pytest.approx(average_precision_score(Y, P))
    assert report["OF1"] == pytest.approx(f1_score(Y, P >= 0.5, average="micro"))
    assert report["CF1_mean"] == pytest.approx(f1_score(Y, P >= 0.5, average="macro"))
    harmonic = 2 * report["CP"] * report["CR"] / (report["CP"] + report["CR"])
    assert report["CF1"] == pytest.approx(harmonic)
    assert report["CF1"] != pytest.approx(report["CF1_mean"], abs=1e-6)


def test_top_k_keeps_the_highest_scores_that_reach_the_threshold(scored):
    Y, P = scored
    report = multilabel_report(Y, P, top_k=2)
    kept = np.zeros_like(Y)
    for row, scores in enumerate(P):
        for label in np.argsort(-scores)[:2]:
            kept[row, label] = scores[label] >= 0.5
    assert report["OF1_top2"] == pytest.approx(f1_score(Y, kept, average="micro"))
    everything = multilabel_report(Y, P, top_k=7)
    assert everything["CF1_top7"] == everything["CF1"]


def test_a_single_label_is_one_label_not_two_classes():
    report = multilabel_report([[1], [0], [0], [0]], [[0.9], [0.8], [0.1], [0.1]])
    assert (report["CP"], report["CR"]) == (0.5, 1.0)
    assert report["OF1"] == report["CF1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("top_k", [0, -1, 2.5])
def test_top_k_must_be_a_positive_integer(scored, top_k):
    with pytest.raises(ValueError, match="'top_k' parameter"):
        multilabel_report(*scored, top_k=top_k)


def test_labels_without_positives_are_left_out_of_map_and_counted(scored):
    Y, P = scored
    Y = Y.copy()
    Y[:, [1, 4]] = 0
    with pytest.warns(UserWarning, match="2 of 7 labels have no positive"):
        report = multilabel_report(Y, P)
    kept = [0, 2, 3, 5, 6]
    assert report["mAP"] == pytest.approx(
        average_precision_score(Y[:, kept], P[:, kept])
    )


@pytest.mark.parametrize(
    ("Y", "P", "message"),
    [
        ([[1, 0]], [[0.1, 0.2, 0.3]], "one column per label"),
        ([[1, 0], [0, 1]], [[0.1, 0.2]], "inconsistent numbers of samples"),
        ([[2, 0]], [[0.1, 0.2]], "other than 0 and 1"),
        ([[1, 0]], [[np.nan, 0.2]], "NaN"),
    ],
)
def test_bad_input_is_an_error(Y, P, message):
    with pytest.raises(ValueError, match=message):
        multilabel_report(Y, P)


def test_cluster_figures_are_those_of_scikit_learn():
    Z, labels = make_blobs(60, centers=4, random_state=0)
    report = clustering_report(Z, labels)
    assert report == {
        "silhouette": pytest.approx(silhouette_score(Z, labels)),
        "davies_bouldin": pytest.approx(davies_bouldin_score(Z, labels)),
        "calinski_harabasz": pytest.approx(calinski_harabasz_score(Z, labels)),
        "n_rows": 60,
        "n_clusters": 4,
    }
    assert clustering_report(Z, np.array(list("abcd"))[labels]) == report


def test_rows_with_several_labels_or_none_belong_to_no_cluster():
    Z, labels = make_blobs(60, centers=4, random_state=0)
    Y = np.eye(5, dtype=int)[labels]
    Y[:7, 4] = 1
    Y[7:9] = 0
    report = clustering_report(Z, Y)
    assert report == clustering_report(Z[9:], labels[9:])
    assert report["n_rows"] == 51
    assert clustering_report(Z, csr_array(Y)) == report


@pytest.mark.parametrize(
    ("Z", "labels", "message"),
    [
        (np.zeros((3, 2)), [0, 0, 0], "leave 1 clusters in 3 rows"),
        (np.zeros((3, 2)), [0, 1, 2], "leave 3 clusters in 3 rows"),
        (np.zeros((2, 2)), [[1, 1], [0, 0]], "leave 0 clusters in 0 rows"),
        (np.zeros((2, 2)), [[2, 0], [0, 1]], "labels holds values other than 0 and 1"),
        (np.zeros((2, 2)), [0, 1, 1], "inconsistent numbers of samples"),
        (np.full((3, 2), np.nan), [0, 1, 1], "Z contains NaN"),
    ],
)
def test_labels_that_make_no_clusters_are_an_error(Z, labels, message):
    with pytest.raises(ValueError, match=message):
        clustering_report(Z, labels)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int8, np.float16])
def test_scores_of_any_type_are_ranked_as_numbers(dtype):
    random = np.random.default_rng(0)
    scores = random.integers(0, 2, size=(40, 6))
    if dtype is not bool:
        scores = random.permuted(np.tile([0, 1, 2, 7, 50, 100], (40, 1)), axis=1)
    truth = random.integers(0, 2, size=scores.shape)
    params = {"threshold": 1, "top_k": 2}
    expected = multilabel_report(truth, scores.astype(float), **params)
    assert multilabel_report(truth, scores.astype(dtype), **params) == expected


def test_of_equal_scores_the_first_are_the_highest():
    scores = np.random.default_rng(0).choice([0.7, 0.8], size=(1, 400))
    truth = np.zeros_like(scores, dtype=int)
    truth[0, np.flatnonzero(scores[0] == 0.8)[:3]] = 1
    with pytest.warns(UserWarning, match="397 of 400 labels"):
        report = multilabel_report(truth, scores)
    assert report["OP_top3"] == report["OR_top3"] == 1
