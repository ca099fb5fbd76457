"""What is learned: inputs and targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernelfield.common.settings import real_array
from kernelfield.describe import losses
from kernelfield.describe.losses import Loss

ROUNDING = 1e-12  # of a sum of weights


@dataclass(frozen=True, eq=False)
class Problem:
    """A training set for the loss sum_mu w_mu loss(f_mu, y_mu), with weights w that sum to one.

    Inputs are used as given: neither centred nor scaled. Points of weight zero do not train: they are carried along,
    in predictions and in all kernels, as test points.

    Args:
        X: inputs, finite: (P, D), or with sites and C channels (P, positions, C) or (P, rows, columns, C).
        y: targets, finite: (P,), or (P, C) for a network of C outputs.
        weights: of the points in the loss (P,), not negative; divided by their sum. Equal ones by default.
        loss: "mse", |f - y|^2 / 2; "logistic", log(1 + exp(-y f)), and "hinge", max(0, 1 - y f), with targets -1 and 1;
            "cross_entropy" of softmax(f), with labels 0, 1, ... or rows of probabilities, kept as such rows; or any JAX
            function of the outputs and targets of one point that can be differentiated in the outputs.
        stream: fresh points (X, y) that train, each once, by `kernelfield.OnlineSGD`: the points above are then only
            observed, and the loss that is reported is theirs. Kept as a Problem.
        X_test, y_test: test points, which follow the others with weight zero.

    Raises:
        ValueError: naming the argument, what is required and what came.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> problem = kf.Problem(np.eye(3), [1.0, -1.0, 1.0], weights=[1, 1, 0])
        >>> problem.points, problem.dimensions, problem.weights.tolist()
        (3, 3, [0.5, 0.5, 0.0])
    """

    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray
    loss: Loss
    stream: Problem | None

    def __init__(
        self,
        X: Any,
        y: Any,
        weights: Any = None,
        loss: str | Loss | Callable[..., Any] = "mse",
        stream: tuple[Any, Any] | Problem | None = None,
        X_test: Any = None,
        y_test: Any = None,
    ) -> None:
        X, y = real_array("X", X, dimensions=(2, 3, 4)), real_array("y", y, dimensions=(1, 2))
        if X_test is not None or y_test is not None:
            weights = np.ones(len(y)) if weights is None else real_array("weights", weights, dimensions=1)
            tests = _shaped(("X_test", "y_test"), (X_test, y_test), X, y)
            weights = np.concatenate([weights, np.zeros(len(tests[1]))])
            X, y = (np.concatenate(pair) for pair in zip((X, y), tests, strict=True))
        object.__setattr__(self, "X", real_array("X", X, dimensions=(2, 3, 4)))
        object.__setattr__(self, "loss", losses.loss(loss))
        fresh = None if stream is None else _fresh(stream, self.X, y)
        every = losses.targets(self.loss.name, y if fresh is None else np.concatenate([y, fresh[1]]))  # of all classes
        object.__setattr__(self, "y", real_array("y", every[: len(y)], dimensions=(1, 2)))
        object.__setattr__(self, "stream", fresh and Problem(fresh[0], every[len(y) :], loss=self.loss))
        if len(self.X) != len(self.y):
            raise ValueError(f"X and y must have the same length, got {len(self.X)} and {len(self.y)}")
        given = real_array("weights", np.ones(len(self.y)) if weights is None else weights, dimensions=1)
        if len(given) != len(self.y):
            raise ValueError(f"weights must have one entry for each of {len(self.y)} points, got {len(given)}")
        if given.min() < 0 or given.max() == 0:
            raise ValueError(f"weights must not be negative, nor all zero, got {given.min():g} to {given.max():g}")
        if abs(given.sum() - 1) > ROUNDING:  # else they are as this made them: not a bit of them changes
            given = real_array("weights", given / given.sum(), dimensions=1)
        object.__setattr__(self, "weights", given)

    @property
    def points(self) -> int:
        """Number of points P, those of weight zero included."""
        return self.X.shape[0]

    @property
    def outputs(self) -> int | None:
        """Number of outputs C of the network; None for a single one without an axis of its own."""
        return self.y.shape[1] if self.y.ndim == 2 else None

    @property
    def initial_loss(self) -> float:
        """The loss at f = 0."""
        return float(self.loss.measured(np.zeros(self.y.shape), self.y) @ self.weights)

    @property
    def dimensions(self) -> int:
        """Input dimension D: of images, sites times channels."""
        return self.X[0].size

    @property
    def input_kernel(self) -> np.ndarray:
        """K_x = X X^T / D, shape (P, P): of images, the mean over sites."""
        rows = self.X.reshape(self.points, -1)
        return rows @ rows.T / self.dimensions

    @property
    def input_coordinates(self) -> np.ndarray:
        """F_x (P, k) with F_x F_x^T = K_x and k <= min(P, D): the data in its own principal axes."""
        rows = self.X.reshape(self.points, -1)
        return InputAxes.of(rows).coordinates(rows)[0]


def _fresh(stream: Any, *observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of a stream, shaped as those that are observed."""
    pair = (stream.X, stream.y) if isinstance(stream, Problem) else stream
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(f"stream must be a pair (X, y), got {type(stream).__name__}")
    return _shaped(("X of the stream", "y of the stream"), pair, *observed)


def _shaped(names: tuple[str, str], pair: Any, *others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Further inputs and targets, shaped as X and y but for their number."""
    X, y = (real_array(name, each, (1, 2, 3, 4)) for name, each in zip(names, pair, strict=True))
    for name, each, symbol, other in zip(names, (X, y), "Xy", others, strict=True):
        if each.shape[1:] != other.shape[1:]:
            raise ValueError(
                f"{name} must be shaped as {symbol}, {other.shape} but for the number of points, got {each.shape}"
            )
    if len(X) != len(y):
        raise ValueError(f"{names[0]} and {names[1]} must have the same length, got {len(X)} and {len(y)}")
    return X, y


OUTSIDE = 4096  # dimensions outside the span of the data that have coordinates of their own


@dataclass(frozen=True, eq=False)
class InputAxes:
    """Principal axes of inputs that train.

    Args:
        axes: (k, D), orthonormal.
    """

    axes: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> InputAxes:
        """Those of rows (n, D), as few as span them."""
        square = rows if len(rows) <= 2 * rows.shape[1] else np.linalg.qr(rows, mode="r")
        _, singular, axes = np.linalg.svd(square, full_matrices=False)
        kept = max(1, np.count_nonzero(singular > ROUNDING * max(singular[0], 1e-300)))
        return cls(axes[:kept])

    def coordinates(self, inputs: np.ndarray) -> tuple[np.ndarray, int]:
        """F with F F^T = inputs inputs^T / D.

        Args:
            inputs: (n, *sites, D).

        Returns:
            F (n, *sites, k + r), and r: dimensions outside the axes, none if no input is there. With more than OUTSIDE
            of them every input has one coordinate there, its length.
        """
        rows = inputs.reshape(-1, inputs.shape[-1])
        inside = rows @ self.axes.T
        every, rest = [inside], rows - inside @ self.axes
        outside = rows.shape[1] - len(self.axes)
        if not outside or np.linalg.norm(rest) <= 1e-9 * np.linalg.norm(rows):
            outside = 0
        elif outside > OUTSIDE:
            every.append(np.linalg.norm(rest, axis=1, keepdims=True))
            outside = 1
        else:
            complement = np.linalg.qr(self.axes.T, mode="complete")[0][:, len(self.axes) :]
            every.append(rest @ complement)
        F = np.concatenate(every, axis=1) / np.sqrt(rows.shape[1])
        return F.reshape(*inputs.shape[:-1], -1), outside
