"""Which inputs a network has learned to use: the outer products of its gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernelfield.solution.estimate import Estimate
from kernelfield.solution.solution import Solution

MOST = 1000  # points that are averaged over by default


def gradient_outer_product(solution: Solution, X: Any = None, step: int = -1) -> Estimate:
    """Returns the average gradient outer product (AGOP), the mean over points of sum_c grad f_c(x) grad f_c(x)^T.

    Its large entries are inputs that the outputs depend on; a network that learns features makes them larger.

    Args:
        solution: what to measure; it must keep a state to predict from.
        X: inputs (n, D) to average over; by default the points that train, 1,000 of them at most.
        step: one that the state was kept at, negative from the end.

    Returns:
        Estimate (D, D), for images of pixels times channels; in units of outputs^2 / inputs^2.

    Raises:
        ValueError: as for `Solution.predict`.

    Source: Radhakrishnan et al., Science 383 (2024), arXiv:2212.13881.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> X = np.random.default_rng(0).standard_normal((30, 4))
        >>> training = kf.GradientDescent(learning_rate=0.5, steps=40)
        >>> solution = kf.solve(kf.MLP(depth=1, activation="linear"), kf.Problem(X, X[:, 1]), training, progress=False)
        >>> int(kf.observables.gradient_outer_product(solution).mean.diagonal().argmax())
        1
    """
    if X is None:
        X = solution.problem.X[solution.problem.weights > 0]
        X = X[:: -(-len(X) // MOST)]
    gradients = solution.input_gradients(X, step)
    rows = gradients.replicates.reshape(len(gradients.replicates), -1, solution.problem.dimensions)
    return Estimate(rows.swapaxes(1, 2) @ rows / len(X), gradients.exact)


def input_shares(solution: Solution, X: Any = None, step: int = -1) -> Estimate:
    """Returns the share of every input in the squared gradients: the diagonal of the AGOP over its sum.

    Args:
        solution, X, step: as of `gradient_outer_product`.

    Returns:
        Estimate (D,) of shares, which sum to one; all zero if the outputs depend on no input.

    Raises:
        ValueError: as for `Solution.predict`.
    """
    product = gradient_outer_product(solution, X, step)
    diagonal = np.diagonal(product.replicates, axis1=1, axis2=2)
    total = diagonal.sum(axis=1, keepdims=True)
    return Estimate(np.divide(diagonal, total, out=np.zeros(diagonal.shape), where=total > 0), product.exact)
