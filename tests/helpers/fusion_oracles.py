"""Data and per-label solvers that FusionClassifier is measured against."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def make_multilabel(n=300, d=12, L=5, seed=0, dtype=np.float64):
    """Correlated columns of very different scales, labels of different rarity."""
    rng = np.random.default_rng(seed)
    Z = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    logits = Z @ rng.normal(size=(d, L)) / np.sqrt(d) + rng.normal(size=L)
    Y = (logits + rng.logistic(size=(n, L)) > 1).astype(int)
    X = 5 + Z * np.logspace(-2, 3, d)
    return X.astype(dtype), Y


def log_loss_objective(model, X, Y, C, weight=None, label_weight=(1, 1)):
    """Objective per label on standardised columns, weights from the raw space."""
    F = np.asarray(X, dtype=float) @ model.coef_.T + model.intercept_
    weight = np.ones(len(X)) if weight is None else weight
    each = np.where(Y, label_weight[1], label_weight[0]) * (np.logaddexp(0, F) - Y * F)
    return C * weight @ each + 0.5 * ((model.coef_ * X.std(0)) ** 2).sum(axis=1)


def one_vs_rest(X, Y, **params):
    logistic = LogisticRegression(tol=1e-8, max_iter=10_000, **params)
    return OneVsRestClassifier(make_pipeline(StandardScaler(), logistic)).fit(X, Y)
