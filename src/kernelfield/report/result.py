"""A solution as the report shows it: its name and colour, and which of its steps are on the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kernelfield.finite.method import FiniteWidth
from kernelfield.plotting import thin
from kernelfield.solution.kernel import Key, Symbol
from kernelfield.solution.solution import Solution

COLOURS = ("#c8374d", "#2a78b5", "#b97a10", "#2f8f6b", "#6a4c93", "#5c6670")
MOST_LINE_STEPS, FEW_LINE_STEPS = 200, 60  # of a curve; few where kernels are large
MOST_DOTS = 13
LARGE = 100_000  # entries of a kernel, all replicates
NO_BREAK = "\N{NO-BREAK SPACE}"
Style = Literal["line", "dots", "dashes", "dotted"]


@dataclass(frozen=True, eq=False)
class Result:
    """A solution on the page, and how its curves are drawn.

    Finite networks beside others are drawn as dots, the main result as a line, other theories dashed.
    """

    name: str
    solution: Solution
    number: int  # 0 of the main result
    style: Style

    @property
    def finite(self) -> bool:
        """Whether these are networks of finite width."""
        return isinstance(self.solution.method, FiniteWidth)

    @property
    def colour(self) -> str:
        """The CSS colour of its curves."""
        return COLOURS[self.number % len(COLOURS)]

    @property
    def replicates(self) -> int:
        """The number of independent replicates."""
        return len(self.solution.replicate_predictions)

    @property
    def kernels(self) -> list[Key]:
        """The kernels that it tracked, with their layers: Phi and G of the hidden layers, and the NTK."""
        symbols: tuple[Symbol, ...] = ("Phi", "G")
        kernels: list[Key] = [(symbol, layer) for symbol in symbols for layer in self.solution.hidden(symbol)]
        return [*kernels, ("NTK", None)] if self.solution.keeps("NTK") else kernels

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
        """The steps at which its curves are drawn: about a dozen for dots, and all for lines.

        If there are too many for a line, half of its steps are equally spaced and half are closer to the start.
        """
        rows = self.solution.steps_done + 1
        entries = self.replicates * self.solution.problem.points**2
        most = MOST_LINE_STEPS if entries < LARGE else FEW_LINE_STEPS
        steps = np.arange(rows)
        if rows > most:
            early = np.geomspace(1, rows - 1, most // 2).round().astype(int)
            steps = np.union1d(thin(rows, most // 2), early)
        dots = np.unique(np.searchsorted(steps, thin(rows, MOST_DOTS)))
        return steps[dots] if self.style == "dots" else steps

    @property
    def kernel_steps(self) -> np.ndarray:
        """The steps at which curves of its kernels are drawn: both ends if they rest."""
        return self.steps[[0, -1]] if self.rests else np.intersect1d(self.steps, self.kept_steps)

    @property
    def kept_steps(self) -> np.ndarray:
        """The steps whose kernels were kept."""
        symbols: set[Symbol] = {symbol for symbol, _ in self.kernels}
        return self.solution.kernel_steps(*symbols)

    def sample_kernel(self, symbol: Symbol, layer: int | None, t: int) -> np.ndarray:
        """Returns the mean of a kernel between samples (P, P) at one step; of several outputs, their mean."""
        values, points = self.solution.kernel_estimate(symbol, layer, t).mean, self.solution.problem.points
        outputs = len(values) // points
        blocks = values.reshape(points, outputs, points, outputs)
        return values if outputs == 1 else np.einsum("mcnc->mn", blocks) / outputs


def number_results(solutions: Mapping[str, Solution]) -> list[Result]:
    """Returns solutions as Results, the main one first."""
    results = []
    for number, (name, solution) in enumerate(solutions.items()):
        dots = len(solutions) > 1 and isinstance(solution.method, FiniteWidth)
        results.append(
            Result(name, solution.with_both_ends(), number, "dots" if dots else "dashes" if number else "line")
        )
    return results


def format_number(value: float, digits: int = 3) -> str:
    """Returns a number with a proper minus sign; a dash where there is none."""
    return f"{value:.{digits}g}".replace("-", "\N{MINUS SIGN}") if np.isfinite(value) else "\N{EN DASH}"


def format_interval(low: float, high: float) -> str:
    """Returns "low to high", with enough digits to tell them apart."""
    pairs = [(format_number(low, digits), format_number(high, digits)) for digits in range(3, 7)]
    return " to ".join(next((pair for pair in pairs if pair[0] != pair[1]), pairs[0]))


def format_with_error(value: float, se: float, digits: int = 3, error_digits: int = 2) -> str:
    """Returns "value ± se" with so many digits of the standard error; a value without one has its own `digits`."""
    if not np.isfinite(value) or not np.isfinite(se) or se <= 0 or abs(value) >= 1e6 or se < 1e-7:
        return format_number(value, digits)
    places = max(0, error_digits - 1 - int(np.floor(np.log10(se))))
    return f"{value:.{places}f} ± {se:.{places}f}".replace("-", "\N{MINUS SIGN}")
