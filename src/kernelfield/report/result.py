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
    """A solution on the page, and how its curves are drawn."""

    name: str
    solution: Solution
    number: int  # 0 of the main result
    finite: bool  # networks of finite width
    replicates: int
    colour: str  # CSS colour of its curves
    style: Style  # dots for finite networks beside others, a line for the main result, dashes for other theories

    @property
    def kernels(self) -> list[Key]:
        """The kernels that it tracked, with their layers: Phi and G of the hidden layers, and the NTK."""
        symbols: tuple[Symbol, ...] = ("Phi", "G")
        kernels: list[Key] = [(symbol, layer) for symbol in symbols for layer in self.solution.hidden(symbol)]
        return [*kernels, ("NTK", None)] if self.solution.keeps("NTK") else kernels

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
        rest = all(kernel.rests for kernel in self.solution.kernels.values())
        return self.steps[[0, -1]] if rest else np.intersect1d(self.steps, self.kept_steps)

    @property
    def kept_steps(self) -> np.ndarray:
        """The steps whose kernels were kept."""
        symbols: set[Symbol] = {symbol for symbol, _ in self.kernels}
        return self.solution.kernel_steps(*symbols)


def number_results(solutions: Mapping[str, Solution]) -> list[Result]:
    """Returns solutions as Results, the main one first."""
    results = []
    for number, (name, solution) in enumerate(solutions.items()):
        finite = isinstance(solution.method, FiniteWidth)
        style = "dots" if finite and len(solutions) > 1 else "dashes" if number else "line"
        replicates, colour = len(solution.replicate_predictions), COLOURS[number % len(COLOURS)]
        results.append(Result(name, solution.with_both_ends(), number, finite, replicates, colour, style))
    return results
