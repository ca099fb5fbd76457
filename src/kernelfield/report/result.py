"""A solution as the report shows it: its name and colour, and which steps and samples are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kernelfield.describe.problem import Problem
from kernelfield.finite.method import FiniteWidth
from kernelfield.observables.groups import by_target
from kernelfield.solution.kernel import Symbol
from kernelfield.solution.solution import Solution

COLOURS = ("#c8374d", "#2a78b5", "#b97a10", "#2f8f6b", "#6a4c93", "#5c6670")
MOST_LINE_STEPS, FEW_LINE_STEPS = 200, 60  # of a curve; few where kernels are large
LARGE = 100_000  # entries of a kernel, all replicates
MOST_CLASSES = 10  # more different targets are no classes
NO_BREAK = "\N{NO-BREAK SPACE}"
Style = Literal["line", "dots", "dashes"]


@dataclass(frozen=True, eq=False)
class Result:
    """A solution on the page.

    Args:
        name: what the page calls it.
        solution: what it is.
        number: its place, 0 for the main result.
        style: how its curves are drawn: finite networks beside others as dots, the main result as a line, other
            theories dashed.
    """

    name: str
    solution: Solution
    number: int
    style: Style

    @property
    def finite(self) -> bool:
        """Whether these are networks of finite width."""
        return isinstance(self.solution.method, FiniteWidth)

    @property
    def colour(self) -> str:
        """CSS colour of its curves."""
        return COLOURS[self.number % len(COLOURS)]

    @property
    def replicates(self) -> int:
        """Number of independent replicates."""
        return len(self.solution.replicate_predictions)

    @property
    def sampled(self) -> bool:
        """Whether it has sampling errors."""
        return not self.solution.exact

    @property
    def kernels(self) -> list[tuple[Symbol, int | None]]:
        """The kernels that it tracked, with their layers: Phi and G of the hidden layers, and the NTK."""
        symbols: tuple[Symbol, ...] = ("Phi", "G")
        found: list[tuple[Symbol, int | None]] = [
            (each, layer) for each in symbols for layer in self.solution.hidden(each)
        ]
        return [*found, ("NTK", None)] if self.solution.keeps("NTK") else found

    @property
    def unit(self) -> str:
        """What its steps are: "step" or "epoch"."""
        return self.solution.training.unit

    @property
    def rests(self) -> bool:
        """Whether its kernels do not depend on time."""
        return all(kernel.rests for kernel in self.solution.kernels.values())

    @property
    def steps(self) -> np.ndarray:
        """Steps at which its curves are drawn: those of lines, or those of dots."""
        return self.dot_steps if self.style == "dots" else self.line_steps

    @property
    def kernel_steps(self) -> np.ndarray:
        """The same for what is measured on kernels: both ends if they rest."""
        return self.steps[[0, -1]] if self.rests else np.intersect1d(self.steps, self.kept_steps)

    @property
    def kept_steps(self) -> np.ndarray:
        """Steps whose kernels were kept."""
        symbols: set[Symbol] = {symbol for symbol, _ in self.kernels}
        return self.solution.kernel_steps(*symbols)

    @property
    def line_steps(self) -> np.ndarray:
        """Steps at which curves are drawn: all, or half of them equally spaced and half closer to the start."""
        rows = self.solution.steps_done + 1
        entries = self.replicates * self.solution.problem.points**2
        most = MOST_LINE_STEPS if entries < LARGE else FEW_LINE_STEPS
        if rows <= most:
            return np.arange(rows)
        early = np.geomspace(1, rows - 1, most // 2).round().astype(int)
        return np.union1d(thinned(rows, most // 2), early)

    @property
    def dot_steps(self) -> np.ndarray:
        """Steps at which dots are drawn, about a dozen."""
        steps = self.line_steps
        return steps[np.unique(np.searchsorted(steps, thinned(self.solution.steps_done + 1, 13)))]

    def sample_kernel(self, kernel: Symbol, layer: int | None, t: int) -> np.ndarray:
        """The mean of a kernel at one step between samples (P, P): of one between outputs, its mean over equal ones."""
        values, points = self.solution.kernel_estimate(kernel, layer, t).mean, self.solution.problem.points
        outputs = len(values) // points
        blocks = values.reshape(points, outputs, points, outputs)
        return values if outputs == 1 else np.einsum("mcnc->mn", blocks) / outputs


@dataclass(frozen=True)
class Samples:
    """Which samples kernels are shown of: ordered by target (test points last), equally spaced ones of too many.

    Args:
        rows: of the problem.
        labels: of the groups of equal targets; empty where there are too many groups.
        counts: how many of the shown samples each group has.
        targets: of every shown sample, "y = 1" or "class 0".
    """

    rows: np.ndarray
    labels: tuple[str, ...]
    counts: tuple[int, ...]
    targets: tuple[str, ...]


def samples(problem: Problem, most: int) -> Samples:
    """The samples to show.

    Args:
        problem: whose points.
        most: how many are shown at most.

    Returns:
        Samples.
    """
    by_class, tests = by_target(problem), problem.weights == 0
    rows = np.lexsort((by_class.of_sample, tests))
    rows = rows[thinned(len(rows), most)]
    targets = tuple(by_class.names[by_class.of_sample[row]] for row in rows)
    groups: dict[str, int] = {}
    for row, target in zip(rows, targets, strict=True):
        name = f"{'test, ' if tests[row] else ''}{target}".replace(" ", NO_BREAK)
        groups[name] = groups.get(name, 0) + 1
    if len(groups) > min(MOST_CLASSES * (1 + tests.any()), len(rows) / 2):
        return Samples(rows, (), (len(rows),), targets)
    return Samples(rows, tuple(groups), tuple(groups.values()), targets)


def results(solutions: Mapping[str, Solution]) -> list[Result]:
    """Solutions by name as numbered Results."""
    found = []
    for number, (name, solution) in enumerate(solutions.items()):
        dots = len(solutions) > 1 and isinstance(solution.method, FiniteWidth)
        found.append(Result(name, solution, number, "dots" if dots else "dashes" if number else "line"))
    return found


def thinned(count: int, most: int) -> np.ndarray:
    """Places in range(count), equally spaced with both ends: all of them, or `most`."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def plain(value: float, digits: int = 3) -> str:
    """A number for reading, to so many digits, with a proper minus sign; a dash where there is none."""
    return f"{value:.{digits}g}".replace("-", "\N{MINUS SIGN}") if np.isfinite(value) else "\N{EN DASH}"


def between(low: float, high: float) -> str:
    """Ends of an interval, with enough digits to tell them apart."""
    digits = next((digits for digits in range(3, 7) if plain(low, digits) != plain(high, digits)), 3)
    return f"{plain(low, digits)} to {plain(high, digits)}"


def with_error(value: float, se: float, digits: int = 3, figures: int = 2) -> str:
    """A number, with its standard error if it has one.

    Args:
        value: the number.
        se: its standard error; zero or NaN for none.
        digits: of a number without one.
        figures: digits of the standard error.

    Returns:
        Text for reading.
    """
    if not np.isfinite(value) or not np.isfinite(se) or se <= 0 or abs(value) >= 1e6 or se < 1e-7:
        return plain(value, digits)
    places = max(0, figures - 1 - int(np.floor(np.log10(se))))
    return f"{value:.{places}f} ± {se:.{places}f}".replace("-", "\N{MINUS SIGN}")
