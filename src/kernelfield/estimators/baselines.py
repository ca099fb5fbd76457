"""What a table is predicted by otherwise: kernel ridge regression with a Gaussian kernel, and gradient boosting."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.kernel_approximation import Nystroem
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_limits

EXACT = 1500  # points of which the whole kernel is taken
LANDMARKS = 1000  # of more
SMALL = 5 * 10**6  # numbers in a table that one thread takes: several would wait for each other on a busy machine
RIDGES = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
WIDTHS = [0.03, 0.1, 0.3, 1.0, 3.0]  # times 1 / D: of exp(-gamma |x - x'|^2)


def predict(X: np.ndarray, y: np.ndarray, X_test: np.ndarray, classes: bool, seed: int) -> dict[str, np.ndarray]:
    """Returns predictions (n,) for X_test (n, D) by name, of models that are trained on X (P, D) and y (P,)."""
    boosting = (HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor)(random_state=seed)
    with threadpool_limits(1 if X.size <= SMALL else None):
        return {
            "kernel ridge, RBF": _predict_by_kernel_ridge(X, y, X_test, classes, seed),
            "gradient boosting": boosting.fit(X, y).predict(X_test),
        }


def _predict_by_kernel_ridge(X: np.ndarray, y: np.ndarray, X_test: np.ndarray, classes: bool, seed: int) -> np.ndarray:
    """Returns predictions (n,); ridge and width are chosen by cross-validation, on EXACT points at most."""
    labels, numbers = np.unique(y, return_inverse=True) if classes else (None, None)
    targets = y if labels is None else np.eye(len(labels))[numbers]
    mean, grid = targets.mean(axis=0), {"alpha": RIDGES, "gamma": [width / X.shape[1] for width in WIDTHS]}
    some = np.random.default_rng(seed).permutation(len(X))[:EXACT]
    search: Any = GridSearchCV(KernelRidge(kernel="rbf"), grid, cv=3, scoring="neg_mean_squared_error")
    model: Any = search.fit(X[some], targets[some] - mean).best_estimator_
    if len(X) > EXACT:
        landmarks = Nystroem(gamma=model.gamma, n_components=LANDMARKS, random_state=seed)
        model = make_pipeline(landmarks, Ridge(model.alpha)).fit(X, targets - mean)
    predictions = model.predict(X_test) + mean
    return predictions if labels is None else labels[predictions.argmax(axis=1)]
