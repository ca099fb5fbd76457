"""How the network learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import numpy as np
import optax
from pydantic import Field

from kernelfield.common.settings import Spec
from kernelfield.describe.problem import Problem

Schedule = Literal["constant", "linear", "cosine"] | list[float] | Callable[[int], Any]


class Batches(NamedTuple):
    """Points that every update learns from: their numbers (T, B), and their weights in the mean loss (T, B)."""

    rows: np.ndarray
    weights: np.ndarray


class Descent(Spec):
    """What all rules of gradient descent in discrete time have.

    Update t has the rate eta_t = learning_rate * schedule(t): v <- momentum v + gradient of the mean loss, and
    W <- (1 - eta_t weight_decay) W - eta_t gamma0^2 N v for every weight (N the width), so that training time
    advances by eta_t at any gamma0 and width.
    """

    learning_rate: float = Field(gt=0, allow_inf_nan=False)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    schedule: Schedule = "constant"

    unit: ClassVar[str] = "step"  # what rows of a Solution count

    @property
    def plain(self) -> bool:
        """Whether all updates are the same, along the gradient alone."""
        return self.momentum == self.weight_decay == 0 and self.schedule == "constant"

    def updates(self, problem: Problem) -> int:
        """Number of updates T."""
        raise NotImplementedError

    def updates_per_step(self, problem: Problem) -> int:
        """Updates between two rows of a Solution."""
        raise NotImplementedError

    def batches(self, problem: Problem) -> Batches | None:
        """The points of every update; None if they are all points every time."""
        return None

    def rates(self, problem: Problem) -> np.ndarray:
        """eta_t of every update (T,).

        Raises:
            ValueError: the schedule does not give a number >= 0 for every update.
        """
        count = self.updates(problem)
        if isinstance(self.schedule, list):
            factors = np.array(self.schedule, float)
        else:
            named = {
                "constant": optax.constant_schedule(1.0),
                "linear": optax.linear_schedule(1.0, 0.0, count),
                "cosine": optax.cosine_decay_schedule(1.0, count),
            }
            schedule: Any = named[self.schedule] if isinstance(self.schedule, str) else self.schedule
            with jax.enable_x64(True):
                factors = np.array([float(schedule(t)) for t in range(count)])
        if factors.shape != (count,) or not np.isfinite(factors).all() or factors.min() < 0:
            raise ValueError(f"schedule must give {count} numbers >= 0, one for every update")
        return self.learning_rate * factors

    def times(self, problem: Problem) -> np.ndarray:
        """Training time of every row of a Solution, the sum of eta_t so far."""
        rates = self.rates(problem)
        if self.schedule == "constant":
            return self.learning_rate * np.arange(0, len(rates) + 1, self.updates_per_step(problem))
        return np.concatenate([[0.0], np.cumsum(rates)])[:: self.updates_per_step(problem)]


class GradientDescent(Descent):
    """Full-batch gradient descent in discrete time.

    Every weight moves with learning rate `learning_rate` * gamma0^2 * N on the mean loss (N the width), so
    that one step advances training time by `learning_rate` at any gamma0 and width.

    Args:
        learning_rate: eta, training time per step.
        steps: number of updates T. Solutions have T + 1 rows: row t is before update t, row T is final.
        momentum: mu in v <- mu v + gradient; weights move along v.
        weight_decay: lambda, decoupled from the gradient: an update first takes the part eta lambda off all weights.
        schedule: factor of the learning rate for every update: "constant", "linear" or "cosine" (both down to zero), a
            list, or a function of the number of the update, such as the schedules of optax.

    Source: theory of arXiv:2205.09653 in discrete time.

    Example:
        >>> import kernelfield as kf
        >>> kf.GradientDescent(learning_rate=0.2, steps=100).time
        20.0
    """

    steps: int = Field(ge=1)

    @property
    def time(self) -> float:
        """Total training time eta * T at a constant learning rate."""
        return self.learning_rate * self.steps

    def updates(self, problem: Problem) -> int:
        """Number of updates T."""
        return self.steps

    def updates_per_step(self, problem: Problem) -> int:
        """One."""
        return 1


class SGD(Descent):
    """Stochastic gradient descent on mini-batches.

    A Solution has a row for every epoch: row t is before epoch t, of all points, those of weight zero included.

    Args:
        learning_rate, momentum, weight_decay, schedule: as for GradientDescent.
        batch_size: points that an update learns from, of those that have a weight; its loss is their weighted mean.
        epochs: of as many updates as all points take.
        replacement: draw every batch from all points. Else an epoch takes each point once, in a new order, and its last
            batch has what is left.
        seed: of the order in which points are drawn, the same for all networks and replicates.

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
        """Rows of a Solution after the first."""
        return self.epochs

    def updates(self, problem: Problem) -> int:
        """Number of updates T."""
        return self.epochs * self.updates_per_step(problem)

    def updates_per_step(self, problem: Problem) -> int:
        """Batches of an epoch."""
        return -(-int(np.count_nonzero(problem.weights)) // self.batch_size)

    def batches(self, problem: Problem) -> Batches | None:
        """The points of every update.

        Args:
            problem: whose points are drawn.

        Returns:
            Batches, each in the order of the points; one that is not full has weights of zero. None if every batch has
            all points that train once: this is GradientDescent.

        Raises:
            ValueError: `batch_size` is more than the points that have a weight.
        """
        trained, size, rng = np.flatnonzero(problem.weights), self.batch_size, np.random.default_rng(self.seed)
        if size > len(trained):
            raise ValueError(f"batch_size must be at most {len(trained)}, the points that train, got {size}")
        if size == len(trained) and not self.replacement:
            return None
        each = self.updates_per_step(problem)
        if self.replacement:
            rows = np.sort(rng.choice(trained, (self.epochs * each, size)), axis=1)
            shares = problem.weights[rows]
        else:
            rows, shares = np.full((self.epochs, each * size), trained[0]), np.zeros((self.epochs, each * size))
            for epoch in rows:
                epoch[: len(trained)] = rng.permutation(trained)
            shares[:, : len(trained)] = problem.weights[rows[:, : len(trained)]]
            rows, shares = rows.reshape(-1, size), shares.reshape(-1, size)
            order = np.lexsort((rows, shares == 0), axis=1)
            rows, shares = (np.take_along_axis(values, order, axis=1) for values in (rows, shares))
        return Batches(rows, shares / shares.sum(axis=1, keepdims=True))


class OnlineSGD(Descent):
    """One pass over a stream: every update learns from fresh points, in the order in which they come.

    The stream is that of the Problem, whose other points are only observed: a Solution has rows of these, and an
    update costs what its batch costs, however long the stream is.

    Args:
        learning_rate, momentum, weight_decay, schedule: as for GradientDescent.
        batch_size: fresh points of an update.
        steps: rows of a Solution after the first.
        every: updates between two rows.

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

    def updates(self, problem: Problem) -> int:
        """Number of updates T."""
        return self.steps * self.every

    def updates_per_step(self, problem: Problem) -> int:
        """Updates between two rows of a Solution."""
        return self.every

    def batches(self, problem: Problem) -> Batches:
        """The points of every update, those of the stream in order.

        Raises:
            ValueError: the stream has too few points.
        """
        shape, stream = (self.updates(problem), self.batch_size), problem.stream
        found = 0 if stream is None else stream.points
        if found < np.prod(shape):
            raise ValueError(
                f"the stream must have at least steps * every * batch_size = {np.prod(shape)} points, got {found}"
            )
        return Batches(np.arange(np.prod(shape)).reshape(shape), np.full(shape, 1 / self.batch_size))


class GradientFlow(Spec):
    """Full-batch gradient descent in continuous time, the limit of small learning rates.

    Args:
        time: total training time.
        steps: rows recorded after the first, equally spaced in time; the solver takes steps of its own.
        rtol: error of the predictions that comes from these, relative to the targets.

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
        """Training time between two rows."""
        return self.time / self.steps

    def times(self, problem: Problem) -> np.ndarray:
        """Training time of every row of a Solution."""
        return self.learning_rate * np.arange(self.steps + 1)


Training = GradientDescent | SGD | OnlineSGD | GradientFlow
