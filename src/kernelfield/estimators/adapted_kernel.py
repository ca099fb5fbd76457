"""The kernel that a trained network has made, as a scikit-learn transformer."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from kernelfield.estimators.estimators import InfiniteWidthRegressor


@dataclass(eq=False, repr=False)
class AdaptedKernel(TransformerMixin, BaseEstimator):
    """The kernel that a trained network has made, for `KernelRidge` or `SVC` with kernel="precomputed".

    Args:
        estimator: a regressor or classifier of infinite width; `InfiniteWidthRegressor()` by default.
        layer: whose feature kernel, the last hidden one by default; or "ntk", the tangent kernel, of several outputs
            the mean of theirs.

    Attributes:
        estimator_: trained.
        X_fit_: inputs (P, D) that it was trained on.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> X = np.random.default_rng(0).standard_normal((10, 3))
        >>> network = kf.InfiniteWidthRegressor(depth=1, activation="linear", steps=20)
        >>> kf.AdaptedKernel(network).fit(X, X[:, 0]).transform(X[:4]).shape
        (4, 10)
    """

    estimator: Any = None
    _: KW_ONLY
    layer: int | Literal["ntk"] = -1

    def fit(self, X: Any, y: Any) -> AdaptedKernel:
        """Trains the estimator on inputs X (n, D) and targets or labels y."""
        model: Any = InfiniteWidthRegressor() if self.estimator is None else clone(self.estimator)
        self.estimator_ = model.fit(X, y)
        self.X_fit_ = validate_data(self, X, dtype=np.float64)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Returns the kernel (n, P) between X (n, D) and the points of training."""
        check_is_fitted(self)
        X, solution = validate_data(self, X, dtype=np.float64, reset=False), self.estimator_.solution_
        layers, layer = solution.network.hidden_layers, self.layer
        if layer == "ntk":
            return solution.ntk_between(-1, X, self.X_fit_).mean
        if layer not in range(-layers, layers + 1):
            raise ValueError(f"layer must be 'ntk' or in 0..{layers} (or negative, from the last), got {layer!r}")
        return solution.feature_kernel_between(int(layer) % (layers + 1), -1, X, self.X_fit_).mean
