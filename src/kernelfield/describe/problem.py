"""What is learned: inputs and targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kernelfield.common.settings import real_array
from kernelfield.describe import losses
from kernelfield.describe.losses import Loss

ROUNDING = 1e-12  # error of a sum of weights


@dataclass(frozen=True, eq=False)
class Problem:
    """A training set for the loss sum_mu w_mu loss(f_mu, y_mu), with weights w that sum to one.

    Inputs are used as given, neither centred nor scaled. Points of weight zero do not train; predictions and all
    kernels have them too, as test points.

    Args:
        X: inputs, finite: (P, D), or with sites and C channels (P, positions, C) or (P, rows, columns, C).
        y: targets, finite: (P,), or (P, C) for a network of C outputs.
        weights: weights of the points in the loss (P,), not negative; divided by their sum. Equal by default.
        loss: "mse", |f - y|^2 / 2; "logistic", log(1 + exp(-y f)), and "hinge", max(0, 1 - y f), with targets -1 and 1;
            "cross_entropy" of softmax(f), with labels (P,) of any kind or rows of probabilities (P, C), kept as such
            rows; or any JAX function of the outputs and targets of one point that can be differentiated in the outputs.
        stream: fresh points (X, y) that train, each once, by `kernelfield.OnlineSGD`: the points above are then only
            observed, and the reported loss is theirs. The attribute is a Problem.
        X_test, y_test: test points, which follow the others with weight zero.
        vocabulary: V, of X that are token ids 0..V-1 (P, positions); the attribute X then has rows `encode_tokens` of
            them, (P, positions, V + positions). None for inputs that are numbers.
        classes: names of the C outputs of "cross_entropy"; by default the different labels, sorted. As an attribute it
            is None where targets are no labels and no names are given.

    Raises:
        ValueError: naming the argument, what is required and what came.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> problem = kf.Problem(np.eye(3), [1.0, -1.0, 1.0], weights=[1, 1, 0])
        >>> problem.points, problem.dimensions, problem.weights.tolist()
        (3, 3, [0.5, 0.5, 0.0])
        >>> kf.Problem(np.eye(3), ["cat", "dog", "cat"], loss="cross_entropy").classes.tolist()
        ['cat', 'dog']
    """

    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray
    loss: Loss
    stream: Problem | None
    classes: np.ndarray | None
    vocabulary: int | None

    def __init__(
        self,
        X: ArrayLike,
        y: ArrayLike,
        weights: ArrayLike | None = None,
        loss: str | Loss | Callable[..., Any] = "mse",
        stream: tuple[ArrayLike, ArrayLike] | Problem | None = None,
        X_test: ArrayLike | None = None,
        y_test: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        vocabulary: int | None = None,
    ) -> None:
        loss = losses.loss(loss)
        if loss.name == "cross_entropy":
            classes, (y, y_test, stream) = _encode_all(classes, y, y_test, stream)
        elif classes is not None:
            raise ValueError(f"classes are for the loss 'cross_entropy', not '{loss.name}'")
        if vocabulary is not None:
            X = encode_tokens(X, vocabulary) if np.ndim(X) == 2 else X
            X_test = X_test if X_test is None or np.ndim(X_test) != 2 else encode_tokens(X_test, vocabulary)
            if isinstance(stream, (tuple, list)) and len(stream) == 2 and np.ndim(stream[0]) == 2:
                stream = encode_tokens(stream[0], vocabulary), stream[1]
        X, y = real_array("X", X, dimensions=(2, 3, 4)), real_array("y", y, dimensions=(1, 2))
        weights = real_array("weights", np.ones(len(y)) if weights is None else weights, dimensions=1)
        if X_test is not None or y_test is not None:
            X_more, y_more = _match_shapes(("X_test", "y_test"), (X_test, y_test), X, y)
            weights = np.concatenate([weights, np.zeros(len(y_more))])
            X, y = np.concatenate([X, X_more]), np.concatenate([y, y_more])
        fresh = None if stream is None else _read_stream(stream, X, y)
        losses.check_targets(loss.name, y)
        if loss.name not in losses.LOSSES:
            loss = replace(loss, numbers=y.ndim == 1)
        if len(X) != len(y):
            raise ValueError(f"X and y must have the same length, got {len(X)} and {len(y)}")
        if len(weights) != len(y):
            raise ValueError(f"weights must have one entry for each of {len(y)} points, got {len(weights)}")
        if weights.min() < 0 or weights.max() == 0:
            raise ValueError(f"weights must not be negative, nor all zero, got {weights.min():g} to {weights.max():g}")
        if abs(weights.sum() - 1) > ROUNDING:  # weights that sum to one already keep every bit
            weights = weights / weights.sum()
        self.__dict__.update(  # a frozen object refuses assignments
            X=real_array("X", X, dimensions=(2, 3, 4)),
            y=real_array("y", y, dimensions=(1, 2)),
            weights=real_array("weights", weights, dimensions=1),
            loss=loss,
            stream=fresh and Problem(*fresh, loss=loss, classes=classes),
            classes=classes,
            vocabulary=vocabulary,
        )

    @property
    def points(self) -> int:
        """The number of points P, those of weight zero included."""
        return self.X.shape[0]

    @property
    def outputs(self) -> int:
        """The number of outputs C of the network."""
        return self.targets.shape[1]

    @property
    def targets(self) -> np.ndarray:
        """y (P, C), with an axis of outputs where it has none."""
        return self.y.reshape(self.points, -1)

    @property
    def labels(self) -> np.ndarray:
        """The classes (P,) of the points, if they are known for certain; else y."""
        is_certain = self.classes is not None and bool(np.isin(self.y, (0, 1)).all())
        return self.classes[self.y.argmax(axis=1)] if is_certain else self.y  # type: ignore[index]

    @property
    def initial_loss(self) -> float:
        """The loss at f = 0."""
        return float(self.loss.measured(np.zeros(self.y.shape), self.y) @ self.weights)

    @property
    def dimensions(self) -> int:
        """The input dimension D; images have sites times channels."""
        return self.X[0].size

    @property
    def input_kernel(self) -> np.ndarray:
        """K_x = X X^T / D, shape (P, P); for images, this is the mean over sites."""
        rows = self.X.reshape(self.points, -1)
        return rows @ rows.T / self.dimensions

    @property
    def input_coordinates(self) -> np.ndarray:
        """F_x (P, k) with F_x F_x^T = K_x and k <= min(P, D): the data in its own principal axes."""
        rows = self.X.reshape(self.points, -1)
        return InputAxes.of(rows).coordinates(rows)[0]


def encode_tokens(ids: ArrayLike, vocabulary: int) -> np.ndarray:
    """Returns rows (P, positions, V + positions) of token ids (P, positions): one-hot tokens and one-hot positions.

    They have |x|^2 = V + positions, half of it of the token. Ids of -1 are padding, with rows of zeros.

    Raises:
        ValueError: ids are not whole numbers from -1 to V - 1.
    """
    array = np.asarray(ids)
    whole = array.dtype.kind in "iu" or (array.dtype.kind == "f" and bool((array == np.round(array)).all()))
    if array.ndim != 2 or not whole or array.min(initial=0) < -1 or array.max(initial=0) >= vocabulary:
        raise ValueError(f"token ids must be whole numbers in 0..{vocabulary - 1} (-1 for padding), (P, positions)")
    tokens, positions = array.astype(int), array.shape[1]
    places = np.broadcast_to(np.eye(positions), (len(tokens), positions, positions))
    rows = np.concatenate([np.eye(vocabulary)[tokens], places], axis=-1) * np.sqrt((vocabulary + positions) / 2)
    return rows * (tokens >= 0)[..., None]


def _encode_all(classes: Any, y: Any, y_test: Any, stream: Any) -> tuple[np.ndarray | None, tuple[Any, Any, Any]]:
    """Returns the classes, and targets, test targets and stream with rows of probabilities in place of labels."""
    pair = (stream.X, stream.labels) if isinstance(stream, Problem) else stream
    streams = isinstance(pair, (tuple, list)) and len(pair) == 2
    every = [y, y_test, pair[1] if streams else None]
    labels = [values for values in every if values is not None and np.ndim(values) == 1 and np.size(values)]
    if classes is None and labels:
        classes = losses.find_classes(labels[0] if len(labels) == 1 else np.concatenate(labels))
    if classes is None:
        return None, (y, y_test, stream)
    names = np.array(classes)
    if names.ndim != 1 or len(np.unique(names)) != len(names):
        raise ValueError(f"classes must be different names in one row, got {classes!r}")
    y, y_test, fresh = (
        losses.encode_labels(values, names) if any(values is label for label in labels) else values for values in every
    )
    if np.ndim(y) == 2 and np.shape(y)[1] != len(names):
        raise ValueError(f"classes must name {np.shape(y)[1]} outputs, got {len(names)} names")
    return names, (y, y_test, (pair[0], fresh) if streams else stream)


def _read_stream(stream: Any, *observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs and targets of a stream, shaped as those that are observed."""
    pair = (stream.X, stream.y) if isinstance(stream, Problem) else stream
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(f"stream must be a pair (X, y), got {type(stream).__name__}")
    return _match_shapes(("X of the stream", "y of the stream"), pair, *observed)


def _match_shapes(names: tuple[str, str], pair: Any, *others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns inputs and targets as arrays, if they are shaped as X and y but for the number of points."""
    X, y = (real_array(name, values, (1, 2, 3, 4)) for name, values in zip(names, pair, strict=True))
    for name, array, symbol, other in zip(names, (X, y), "Xy", others, strict=True):
        if array.shape[1:] != other.shape[1:]:
            raise ValueError(
                f"{name} must be shaped as {symbol}, {other.shape} but for the number of points, got {array.shape}"
            )
    if len(X) != len(y):
        raise ValueError(f"{names[0]} and {names[1]} must have the same length, got {len(X)} and {len(y)}")
    return X, y


OUTSIDE = 4096  # dimensions outside the span of the data that have coordinates of their own


@dataclass(frozen=True, eq=False)
class InputAxes:
    """Principal axes (k, D) of inputs that train, orthonormal."""

    axes: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> InputAxes:
        """Returns the axes of rows (n, D), as few as span them."""
        square = rows if len(rows) <= 2 * rows.shape[1] else np.linalg.qr(rows, mode="r")
        _, singular, axes = np.linalg.svd(square, full_matrices=False)
        rank = np.count_nonzero(singular > ROUNDING * max(singular[0], 1e-300))
        return cls(axes[: max(1, rank)])

    def basis(self, inputs: np.ndarray) -> np.ndarray:
        """Returns axes (k + r, D): those of the inputs that train, and orthonormal ones of all dimensions outside.

        The latter are left out where none of the inputs (..., D) is there, and where there are more than OUTSIDE.
        """
        rows = inputs.reshape(-1, inputs.shape[-1])
        rest, outside = rows - rows @ self.axes.T @ self.axes, rows.shape[1] - len(self.axes)
        if not outside or outside > OUTSIDE or np.linalg.norm(rest) <= 1e-9 * np.linalg.norm(rows):
            return self.axes
        complement = np.linalg.qr(self.axes.T, mode="complete")[0][:, len(self.axes) :]
        return np.concatenate([self.axes, complement.T])

    def coordinates(self, inputs: np.ndarray) -> tuple[np.ndarray, int]:
        """Returns F (n, *sites, k + r) with F F^T = inputs inputs^T / D for inputs (n, *sites, D), and r.

        r counts the dimensions outside the axes: none if no input is there; and if there are more than OUTSIDE, every
        input has one coordinate there, its length.
        """
        rows, basis = inputs.reshape(-1, inputs.shape[-1]), self.basis(inputs)
        F = rows @ basis.T
        if rows.shape[1] - len(basis) > OUTSIDE:
            rest = np.linalg.norm(rows - F @ basis, axis=1, keepdims=True)
            if np.linalg.norm(rest) > 1e-9 * np.linalg.norm(rows):
                F = np.concatenate([F, rest], axis=1)
        return (F / np.sqrt(rows.shape[1])).reshape(*inputs.shape[:-1], -1), F.shape[1] - len(self.axes)
