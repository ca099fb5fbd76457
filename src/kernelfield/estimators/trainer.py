"""Runs of one estimator on one problem: the rate, the length and the gamma0 that suit the data."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from kernelfield.activations.gaussian_averages import NotConverged
from kernelfield.common.progress import Report
from kernelfield.describe.networks import MLP
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import SGD, GradientDescent
from kernelfield.march.method import March
from kernelfield.solution.solution import Solution
from kernelfield.solve import check, solve
from kernelfield.theories.static_ntk import StaticNTK, initial_kernels

if TYPE_CHECKING:
    from kernelfield.estimators.base import InfiniteWidth

WHOLE = 300  # points that "auto" takes all at once
BATCH = 128  # points of a batch, of more
EXACT = 1000  # points that "auto" takes all at once for gamma0 = 0, whose kernel is then exact
SOME = 4000  # points that choose gamma0, of more
FEW, SPLITS = 1000, 4  # points up to which one split says little, and the number of splits then
LAZY = 1e-2  # gamma0 of batches in place of 0, whose predictor is the tangent kernel's to LAZY^2
FIRST = {"step": 50, "epoch": 5}  # rows of a run whose length is not known
RESTS = 0.01  # a run has converged if the second half of its steps changes the loss by less than this part
SOLVED = 1e-3  # a run has converged if its loss is below this part of the initial loss
OVERFITS = 0.7  # a run is long enough if its best step lies before this part of it
RETRIES = 8  # of runs that diverge or overshoot
OVERSHOOTS = {"step": 0.01, "epoch": 0.1}  # a row overshoots if it raises the loss by more of the initial loss
SLOPES = {"mse": 1.0, "logistic": 0.25, "cross_entropy": 0.5}  # largest second derivatives of a loss


class Trainer:
    """Runs of one estimator on one problem.

    Args:
        model: whose settings count.
        problem: all points.
        seed: of samples and splits.
    """

    def __init__(self, model: InfiniteWidth, problem: Problem, seed: int) -> None:
        self.model, self.problem, self.seed = model, problem, seed
        size = model.batch_size
        self.size = (None if problem.points <= WHOLE else BATCH) if isinstance(size, str) else size
        if self.size is not None and self.size >= problem.points * (1 - model.validation_fraction):
            self.size = None
        self.gamma0, self.learning_rate = 0.0, 0.0
        self.lazy_rate: float | None = None
        self.first: int | None = None  # rows of the first run, where something is known of its length
        self.validation_losses: dict[float, np.ndarray] = {}
        self.report: Callable[[], Report] = lambda: lambda done, total: None

    @property
    def batch(self) -> int | None:
        """The number of points of an update, None for all of them, of which the static kernel is exact."""
        model = self.model
        is_free = isinstance(model.batch_size, str) and model.steps == "converged"
        return None if is_free and self.gamma0 == 0 and self.problem.points <= EXACT else self.size

    @property
    def unit(self) -> str:
        """What a row of a run is: a step or an epoch."""
        return "step" if self.batch is None else "epoch"

    @property
    def most(self) -> int:
        """The number of rows of the longest run."""
        model = self.model
        if self.problem.initial_loss == 0:  # nothing is to be learned
            return 1
        if model.steps != "converged":
            return int(model.steps)
        return model.max_steps if self.batch is None else model.max_epochs

    def start_with(self, gamma0: float) -> None:
        """Sets gamma0, and the learning rate to begin with: the user's, or less than that of the lazy limit."""
        self.gamma0 = gamma0
        if self.model.learning_rate != "auto":
            self.learning_rate = float(self.model.learning_rate)
            return
        if self.lazy_rate is None:
            self.lazy_rate = self._find_lazy_rate()
        self.learning_rate = self.lazy_rate / (1 + gamma0)

    def choose(self, choices: Sequence[float], labels: np.ndarray | None) -> int:
        """Sets the gamma0 with the least validation loss, with its learning rate; returns its best row.

        Of more than SOME points, SOME choose gamma0 and all choose the row.
        """
        if len(choices) > 1 and self.problem.points > SOME:
            choices = [self._choose_among_some(choices, labels)]
        splits = [self._split(labels, number) for number in range(SPLITS if self.problem.points <= FEW else 1)]
        losses, rates = {}, {}
        for gamma0 in choices:
            self.start_with(gamma0)
            losses[gamma0] = self._find_validation_losses(splits)
            rates[gamma0] = self.learning_rate
        self.validation_losses = self.validation_losses or losses
        self.gamma0 = min(choices, key=lambda gamma0: losses[gamma0].min())
        self.learning_rate = rates[self.gamma0]
        return max(1, int(losses[self.gamma0].argmin()))

    def _choose_among_some(self, choices: Sequence[float], labels: np.ndarray | None) -> float:
        """Returns the gamma0 that SOME points choose; its best row begins the search of all points for theirs."""
        problem, rows = self.problem, np.random.default_rng(self.seed).permutation(self.problem.points)[:SOME]
        some = Problem(problem.X[rows], problem.y[rows], problem.weights[rows], problem.loss)
        search = Trainer(self.model, some, self.seed)
        search.report = self.report
        best = search.choose(choices, None if labels is None else labels[rows])
        self.validation_losses, self.first = search.validation_losses, int(np.ceil((best + 1) / OVERFITS))
        return search.gamma0

    def _split(self, labels: np.ndarray | None, number: int) -> tuple[Problem, np.ndarray]:
        """Returns the problem with some points of weight zero, and the weights of these in the validation loss."""
        problem, points = self.problem, np.arange(self.problem.points)
        try:
            parts: Any = train_test_split(
                points, test_size=self.model.validation_fraction, random_state=self.seed + number, stratify=labels
            )
        except ValueError as error:
            raise ValueError(f"the points cannot be divided for validation: {error}") from None
        trains = np.isin(points, parts[0])
        validation = problem.weights * ~trains
        return Problem(problem.X, problem.y, problem.weights * trains, problem.loss), validation / validation.sum()

    def solve_until_converged(self) -> Solution:
        """Returns the solution of a run the second half of which changes little; warns if that took too long."""

        def has_converged(solutions: list[Solution]) -> bool:
            late = solutions[0].loss[solutions[0].steps_done // 2 :]
            return bool(np.ptp(late) <= RESTS * late.max() or late[-1] < SOLVED * self.problem.initial_loss)

        solutions = self._solve_long_enough([self.problem], has_converged)
        if not has_converged(solutions):
            limit = f"max_{self.unit}s = {self.most} {self.unit}s"
            advice = f"raise max_{self.unit}s, or take early_stopping=True or a number of steps"
            warnings.warn(f"not converged after {limit}: {advice}", ConvergenceWarning, stacklevel=5)
        return solutions[0]

    def solve(self, problem: Problem, steps: int | None = None, report: Report | None = None) -> Solution:
        """Returns the solution; if it overshoots, that of more and smaller steps, `most` of them at most."""
        steps, report = steps or self.most, report or self.report()
        least = self.learning_rate / 2**RETRIES
        while True:
            method, fields_at = self._method()
            solution = solve(
                self._network(), problem, self._rule(steps), method, fields_at=fields_at, throw=False, progress=report
            )
            code, rises = solution.status.code, np.diff(solution.loss).max(initial=0)
            overshot = code == "diverged" or (code == "ok" and rises > OVERSHOOTS[self.unit] * problem.initial_loss)
            if not overshot or self.model.learning_rate != "auto" or self.learning_rate <= least:
                check(solution.status, solution)
                return solution
            self.learning_rate /= 2
            steps = min(2 * steps, self.most)

    def _network(self) -> MLP:
        """Returns the network; that of the tangent kernel, where gamma0 is 0, has another that counts for nothing."""
        model, gamma0 = self.model, self.gamma0
        gamma0 = gamma0 or (1.0 if self.batch is None else LAZY)
        return MLP(depth=model.depth, activation=model.activation, gamma0=gamma0, bias_scale=model.bias_scale)

    def _method(self) -> tuple[March | StaticNTK, tuple[int, ...]]:
        """Returns the method, and the rows whose states it keeps to predict from."""
        if self.gamma0 == 0 and self.batch is None:
            return StaticNTK(), (-1,)
        model = self.model
        return March(particles=model.particles, replicates=model.replicates, seed=self.seed, kernels="none"), ()

    def _rule(self, steps: int) -> GradientDescent | SGD:
        """Returns the training rule for so many rows."""
        rate, momentum = self.learning_rate, self.model.momentum
        if self.batch is None:
            return GradientDescent(learning_rate=rate, steps=steps, momentum=momentum)
        return SGD(learning_rate=rate, epochs=steps, momentum=momentum, batch_size=self.batch, seed=self.seed)

    def _solve_long_enough(
        self, problems: list[Problem], is_long_enough: Callable[[list[Solution]], bool]
    ) -> list[Solution]:
        """Returns the solutions of the first runs that are long enough, of runs of twice the rows, up to `most`.

        All have the same learning rate: where one of them needs a smaller one, all begin again.
        """
        steps, report = min(self.first or FIRST[self.unit], self.most), self.report()
        whole = self.most * len(problems)
        while True:
            rate, solutions = self.learning_rate, []
            for problem in problems:
                before = steps * len(solutions)
                solutions.append(
                    self.solve(problem, steps, lambda done, _, before=before: report(before + done, whole))
                )
            if self.learning_rate == rate or len(problems) == 1:
                steps = solutions[0].steps_done
                if steps == self.most or is_long_enough(solutions):
                    return solutions
            steps = min(2 * steps, self.most)

    def _find_validation_losses(self, splits: list[tuple[Problem, np.ndarray]]) -> np.ndarray:
        """Returns the mean over splits of the loss of points that do not train, at every row of runs long enough."""

        def measure(solution: Solution, weights: np.ndarray) -> np.ndarray:
            problem, points = solution.problem, np.flatnonzero(weights)
            losses = problem.loss.measured(solution.predictions[:, points], problem.y[points])
            return losses @ weights[points]

        def measure_all(solutions: list[Solution]) -> np.ndarray:
            pairs = zip(solutions, splits, strict=True)
            return np.mean([measure(solution, weights) for solution, (_, weights) in pairs], axis=0)

        def is_long_enough(solutions: list[Solution]) -> bool:
            return bool(measure_all(solutions).argmin() < OVERFITS * solutions[0].steps_done)

        return measure_all(self._solve_long_enough([problem for problem, _ in splits], is_long_enough))

    def _find_lazy_rate(self) -> float:
        """Returns a quarter of the learning rate that is stable in the lazy limit, on a batch.

        For an activation whose kernel is not known it is that of erf.
        """
        problem, count = self.problem, self.size or WHOLE
        rows = np.random.default_rng(self.seed).permutation(problem.points)[:count]
        some = Problem(problem.X[rows], np.zeros(len(rows)), problem.weights[rows])
        network = self._network()
        try:
            ntk = initial_kernels(network, some).ntk
        except NotConverged:
            ntk = initial_kernels(network.model_copy(update={"activation": "erf"}), some).ntk
        roots = np.sqrt(some.weights)
        largest = np.linalg.eigvalsh(roots[:, None] * ntk * roots)[-1]
        return float(0.5 / (max(largest, 1e-12) * SLOPES[problem.loss.name]))


def in_parts(report: Report, parts: int) -> Callable[[], Report]:
    """Returns a function whose every call returns a Report on the next of equally long parts of the work."""
    begun = 0

    def next_part() -> Report:
        nonlocal begun
        start, begun = begun, begun + 1
        return lambda done, total: report(round(1000 * (min(start, parts - 1) + done / total)), 1000 * parts)

    return next_part
