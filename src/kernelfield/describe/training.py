"""Training rules: how a network learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import jax
import numpy as np
from pydantic import Field, field_validator, model_validator

from kernelfield.common.settings import Spec
from kernelfield.describe.problem import Problem
from kernelfield.describe.rules import LearningRule, learning_rule

Schedule = Literal["constant", "linear", "cosine"] | list[float] | Callable[[int], Any]


class Batches(NamedTuple):
    """The points of every update: their row numbers (T, B), and their weights in the mean loss (T, B)."""

    rows: np.ndarray
    weights: np.ndarray


class Descent(Spec):
    """The base of all training rules in discrete time."""

    learning_rate: float = Field(gt=0, allow_inf_nan=False)
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    schedule: Schedule = "constant"

    unit: ClassVar[str] = "step"  # what rows of a Solution count

    if TYPE_CHECKING:  # an argument of the rules below, or derived from one
        steps: Any = None

    @property
    def plain(self) -> bool:
        """Whether all updates are the same, along the gradient alone."""
        return self.weight_decay == 0 and self.schedule == "constant"

    def updates(self, problem: Problem) -> int:
        """Returns the number of updates T."""
        return self.steps * self.updates_per_step(problem)

    def updates_per_step(self, problem: Problem) -> int:
        """Returns the number of updates between two rows of a Solution."""
        return 1

    def batches(self, problem: Problem) -> Batches | None:
        """Returns the points of every update, or None if every update learns from all points."""
        return None

    def rates(self, problem: Problem) -> np.ndarray:
        """Returns eta_t of every update (T,); raises ValueError unless the schedule gives a number >= 0 for each."""
        count = self.updates(problem)
        schedule: Any = self.schedule
        if schedule == "linear" or schedule == "cosine":
            import optax  # lazy: takes a tenth of a second to import

            linear, cosine = optax.linear_schedule(1.0, 0.0, count), optax.cosine_decay_schedule(1.0, count)
            schedule = linear if schedule == "linear" else cosine
        if schedule == "constant":
            factors = np.ones(count)
        elif isinstance(schedule, list):
            factors = np.array(schedule, float)
        else:
            with jax.enable_x64(True):
                factors = np.array([float(schedule(t)) for t in range(count)])
        if factors.shape != (count,) or not np.isfinite(factors).all() or factors.min() < 0:
            raise ValueError(f"schedule must give {count} numbers >= 0, one for every update")
        return self.learning_rate * factors

    def times(self, problem: Problem) -> np.ndarray:
        """Returns the training time of every row of a Solution, the sum of eta_t so far."""
        rates = self.rates(problem)
        if self.schedule == "constant":
            return self.learning_rate * np.arange(0, len(rates) + 1, self.updates_per_step(problem))
        return np.concatenate([[0.0], np.cumsum(rates)])[:: self.updates_per_step(problem)]


class Momentum(Descent):
    """The base of the rules along gradients or what stands for them; `GradientDescent` has the formula of an update."""

    momentum: float = Field(default=0.0, ge=0, lt=1)
    rule: LearningRule | None = None

    @field_validator("rule", mode="before")
    @classmethod
    def _read_rule(cls, rule: Any) -> Any:
        return learning_rule(rule) if isinstance(rule, dict) else rule

    @property
    def plain(self) -> bool:
        """Whether all updates are the same, along the gradient alone."""
        return super().plain and self.momentum == 0 and self.rule is None


class GradientDescent(Momentum):
    """Full-batch gradient descent in discrete time.

    Update t has the rate eta_t = learning_rate * schedule(t): v <- momentum v + gradient of the mean loss, and
    W <- (1 - eta_t weight_decay) W - eta_t gamma0^2 N v for every weight (N the width), so that training time
    advances by eta_t at any gamma0 and width.

    Args:
        learning_rate: eta, training time per step.
        steps: number of updates T. Solutions have T + 1 rows: row t is before update t, row T is final.
        momentum: mu in v <- mu v + gradient; weights move along v.
        weight_decay: lambda, decoupled from the gradient.
        schedule: factor of the learning rate for every update: "constant", "linear" or "cosine" (both down to zero), a
            list, or a function of the number of the update, such as the schedules of optax.
        rule: what moves the weights below the readout in place of gradients: `FeedbackAlignment`,
            `DirectFeedbackAlignment` or `Hebbian`; None for gradients.

    Source: theory of arXiv:2205.09653 in discrete time.

    Example:
        >>> import kernelfield as kf
        >>> kf.GradientDescent(learning_rate=0.2, steps=100).time
        20.0
    """

    steps: int = Field(ge=1)

    @property
    def time(self) -> float:
        """The total training time eta * T at a constant learning rate."""
        return self.learning_rate * self.steps


class SGD(Momentum):
    """Stochastic gradient descent on mini-batches.

    A Solution has a row for every epoch: row t is before epoch t, of all points, those of weight zero included.

    Args:
        learning_rate, momentum, weight_decay, schedule, rule: as for GradientDescent.
        batch_size: number of points of an update, drawn from those that have a weight; the loss is their weighted mean.
        epochs: number of epochs, each of as many updates as all points take.
        replacement: whether every batch is drawn from all points. Else an epoch takes each point once, in a new order,
            and its last batch has the points that are left.
        seed: seed of the order in which points are drawn, the same for all networks and replicates.

    Example:
        >>> import kernelfield as kf
        >>> kf.SGD(learning_rate=0.2, batch_size=10, epochs=3).steps
        3
    """

    batch_size: int = Field(ge=1)
    epochs: int = Field(ge=1)
    replacement: bool = False
    seed: int = Field(default=0, ge=0)

    unit: ClassVar[str] = "epoch"

    @property
    def steps(self) -> int:
        """The number of rows of a Solution after the first."""
        return self.epochs

    def updates_per_step(self, problem: Problem) -> int:
        """Returns the number of batches of an epoch."""
        return -(-int(np.count_nonzero(problem.weights)) // self.batch_size)

    def batches(self, problem: Problem) -> Batches | None:
        """Returns the points of every update, or None if every batch has all points that train once.

        Raises ValueError if `batch_size` is more than the points that have a weight.
        """
        return draw_batches(problem, self.batch_size, self.epochs, self.replacement, self.seed)


def draw_batches(problem: Problem, size: int, epochs: int, replacement: bool, seed: int) -> Batches | None:
    """Returns the points of every update, in the order of the points; a batch that is not full has weights of zero.

    Returns None if every batch has all points that train once: there are no mini-batches. Raises ValueError if a batch
    has more points than have a weight.
    """
    trained, rng = np.flatnonzero(problem.weights), np.random.default_rng(seed)
    if size > len(trained):
        raise ValueError(f"batch_size must be at most {len(trained)}, the points that train, got {size}")
    if size == len(trained) and not replacement:
        return None
    count = -(-len(trained) // size)
    if replacement:
        rows = rng.choice(trained, (epochs * count, size))
        shares = problem.weights[rows]
    else:
        rows = np.full((epochs, count * size), trained[0])
        rows[:, : len(trained)] = [rng.permutation(trained) for _ in rows]
        shares = np.where(np.arange(count * size) < len(trained), problem.weights[rows], 0)
    rows, shares = rows.reshape(-1, size), shares.reshape(-1, size)
    order = np.lexsort((rows, shares == 0), axis=1)
    rows, shares = (np.take_along_axis(values, order, axis=1) for values in (rows, shares))
    return Batches(rows, shares / shares.sum(axis=1, keepdims=True))


class OnlineSGD(Momentum):
    """One pass over a stream: every update learns from fresh points, in the order in which they come.

    The stream is that of the Problem, whose other points are only observed: a Solution has rows of these. An update
    costs as much as its batch, however long the stream is.

    Args:
        learning_rate, momentum, weight_decay, schedule, rule: as for GradientDescent.
        batch_size: number of fresh points of an update.
        steps: number of rows of a Solution after the first.
        every: number of updates between two rows.

    Source: the setting of Tensor Programs, arXiv:2011.14522.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> X = np.random.default_rng(0).standard_normal((1000, 3))
        >>> problem = kf.Problem(np.eye(3), np.ones(3), stream=(X, X.sum(axis=1)))
        >>> rule = kf.OnlineSGD(learning_rate=0.1, batch_size=10, steps=5, every=20)
        >>> kf.solve(kf.MLP(depth=1, activation="linear"), problem, rule).predictions.shape
        (6, 3)
    """

    batch_size: int = Field(ge=1)
    steps: int = Field(ge=1)
    every: int = Field(default=1, ge=1)

    def updates_per_step(self, problem: Problem) -> int:
        """Returns the number of updates between two rows of a Solution."""
        return self.every

    def batches(self, problem: Problem) -> Batches:
        """Returns the points of every update, those of the stream in order; raises ValueError if they are too few."""
        shape, stream = (self.updates(problem), self.batch_size), problem.stream
        available = 0 if stream is None else stream.points
        if available < np.prod(shape):
            need = f"at least steps * every * batch_size = {np.prod(shape)} points"
            raise ValueError(f"the stream must have {need}, got {available}")
        return Batches(np.arange(np.prod(shape)).reshape(shape), np.full(shape, 1 / self.batch_size))


class Adam(Descent):
    """Adam, on all points or on mini-batches, as muP scales it: it converges as the width grows.

    With G = -gamma0 N sqrt(n) dL/dW, the gradient of the mean loss in units in which its entries are of order one (n
    numbers enter each sum: the places of a window times the channels below; 1 for readout, biases and gains),

        m <- b1 m + (1 - b1) G,   v <- b2 v + (1 - b2) G^2,   Q = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
        W <- (1 - eta_t weight_decay) W + eta_t gamma0 Q / sqrt(n)

    for weights that start as W ~ N(0, 1) and are used as W / sqrt(n), or w / (gamma0 N) in the readout. Adam does not
    know the size of its gradients, so eta is not training time but how far fields move: by about eta gamma0 a step.
    A scale sigma of the initialization does not change this; where sigma multiplies the weight in use, G has the factor
    sigma that its gradient has, and fields move sigma times as far.
    A Solution has a row for every step, or for every epoch.

    Args:
        learning_rate: eta.
        steps: number of updates on all points; either this or `epochs`.
        epochs, batch_size: number of epochs, of mini-batches of so many points, drawn as by `SGD`.
        betas: b1 and b2.
        eps: in units of G. With eps = 0 a gradient that is zero moves nothing.
        weight_decay: lambda, decoupled from the gradient, as in AdamW.
        schedule: as for GradientDescent.
        seed: of the order of points.

    Source: Adam: arXiv:1412.6980; its limit: Tensor Programs IVb, arXiv:2308.01814.

    Example:
        >>> import kernelfield as kf
        >>> kf.Adam(learning_rate=0.05, steps=20).unit
        'step'
    """

    steps: int = Field(default=0, ge=0)
    epochs: int | None = Field(default=None, ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(default=1e-8, ge=0, allow_inf_nan=False)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check_length(self) -> Adam:
        if (self.epochs is None) != (self.batch_size is None):
            raise ValueError("epochs and batch_size belong together: for updates on all points give steps")
        if not self.epochs and not self.steps:
            raise ValueError("give steps, or epochs and batch_size")
        if self.epochs is not None and self.steps not in (0, self.epochs):
            raise ValueError("give steps, or epochs and batch_size, not both")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be at least 0 and below 1, got {self.betas}")
        object.__setattr__(self, "steps", self.epochs or self.steps)  # rows of a Solution after the first
        return self

    @property
    def unit(self) -> str:  # type: ignore[override]
        """What rows of a Solution count."""
        return "step" if self.epochs is None else "epoch"

    def updates_per_step(self, problem: Problem) -> int:
        """Returns the number of batches of an epoch, 1 without batches."""
        return 1 if self.batch_size is None else -(-int(np.count_nonzero(problem.weights)) // self.batch_size)

    def batches(self, problem: Problem) -> Batches | None:
        """Returns the points of every update, or None if every update learns from all points."""
        if self.batch_size is None or self.epochs is None:
            return None
        return draw_batches(problem, self.batch_size, self.epochs, False, self.seed)


class AdamW(Adam):
    """Adam with decoupled weight decay of 0.01, unless told otherwise.

    Args:
        learning_rate, steps, epochs, batch_size, betas, eps, weight_decay, schedule, seed: as for Adam.

    Source: arXiv:1711.05101.
    """

    weight_decay: float = Field(default=0.01, ge=0, allow_inf_nan=False)


class SignDescent(Adam):
    """Descent along the signs of gradients: Adam without memory, whose betas and eps are zero.

    Args:
        learning_rate, steps, epochs, batch_size, betas, eps, weight_decay, schedule, seed: as for Adam.
    """

    betas: tuple[float, float] = (0.0, 0.0)
    eps: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class Langevin(Descent):
    """Full-batch Langevin dynamics: gradient descent with weight decay and noise on all weights.

    Update t is W <- (1 - eta weight_decay) W - eta gamma0^2 N gradient of the mean loss + sqrt(2 eta temperature) xi,
    with xi ~ N(0, 1) for every weight. For small eta it samples from the posterior exp(-weight_decay |W|^2 / (2
    temperature) - gamma0^2 N L / temperature), whose prior is the initialization where temperature = weight_decay;
    see `BayesianPosterior`. f is the output itself (its mean over the noise at infinite width is what moves).

    Args:
        learning_rate: eta, training time per step.
        steps: number of updates. Solutions have a row for each, and one before the first.
        weight_decay: lambda > 0.
        temperature: T, of order one at any width.
        schedule: as for GradientDescent.

    Example:
        >>> import kernelfield as kf
        >>> kf.Langevin(learning_rate=0.1, steps=50, weight_decay=0.5, temperature=0.5).steps
        50
    """

    steps: int = Field(ge=1)
    weight_decay: float = Field(gt=0, allow_inf_nan=False)  # type: ignore[assignment]
    temperature: float = Field(ge=0, allow_inf_nan=False)


class GradientFlow(Spec):
    """Full-batch gradient descent in continuous time, the limit of small learning rates.

    Args:
        time: total training time.
        steps: number of rows after the first, equally spaced in time; the solver takes steps of its own.
        rtol: error of the predictions that comes from the solver's steps, relative to the targets.

    Source: arXiv:2205.09653, section 2.

    Example:
        >>> import kernelfield as kf
        >>> kf.GradientFlow(time=20.0, steps=100).learning_rate
        0.2
    """

    time: float = Field(gt=0, allow_inf_nan=False)
    steps: int = Field(default=100, ge=1)
    rtol: float = Field(default=1e-3, gt=1e-12, lt=1)

    unit: ClassVar[str] = "step"

    @property
    def learning_rate(self) -> float:
        """The training time between two rows."""
        return self.time / self.steps

    def times(self, problem: Problem) -> np.ndarray:
        """Returns the training time of every row of a Solution."""
        return self.learning_rate * np.arange(self.steps + 1)


Training = GradientDescent | SGD | OnlineSGD | GradientFlow | Adam | Langevin
