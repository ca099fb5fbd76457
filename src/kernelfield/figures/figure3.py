"""Figure 3 of the paper: four theories of a deep linear network beside networks of finite width.

Linear, five hidden layers, gamma0 = 1.5, 20 and 100 points, networks of width 1000; then the range of gamma0.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kernelfield.describe.networks import MLP
from kernelfield.describe.training import GradientDescent
from kernelfield.figures.common import Say, Settings, solve_and_say, teacher, write_caption
from kernelfield.finite.method import FiniteWidth
from kernelfield.plotting.comparison import draw as draw_comparison
from kernelfield.plotting.gammas import draw as draw_sweep
from kernelfield.solution.method import Method
from kernelfield.sweeps.gammas import sweep_gamma
from kernelfield.theories.deep_linear import DeepLinear
from kernelfield.theories.gradient_independence import GradientIndependence
from kernelfield.theories.perturbation import Perturbation
from kernelfield.theories.static_ntk import StaticNTK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEPTH, GAMMA0, WIDTH = 5, 1.5, 1000
RATE = 0.1  # of the mean loss; the paper's 0.025 of the sum makes training unstable on these data
GAMMAS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
FULL, FINITE = "full theory", "networks, N = {}"


def methods(width: int, seeds: int) -> dict[str, Method]:
    """Returns the four theories and networks of finite width, by name."""
    return {
        FULL: DeepLinear(),
        "gradient independence": GradientIndependence(),
        "leading order": Perturbation(),
        "static NTK": StaticNTK(),
        FINITE.format(width): FiniteWidth(width=width, seeds=seeds),
    }


def draw(settings: Settings, say: Say) -> Iterator[tuple[str, Figure]]:
    """Yields the figures with their file names, and says a line about each run."""
    sizes, steps, width, seeds = ((10,), 20, 200, 2) if settings.quick else ((20, 100), 100, WIDTH, 8)
    for points in sizes:
        yield f"figure3-P{points}", draw_methods(points, steps, width, seeds, say)
    gammas = GAMMAS[1::2] if settings.quick else GAMMAS
    yield "figure3-gamma0", draw_gammas(sizes[0], steps, width, seeds, gammas, say)


def draw_methods(points: int, steps: int, width: int, seeds: int, say: Say) -> Figure:
    """Returns a figure of loss, alignment with the networks and kernels of all methods at gamma0 = 1.5."""
    network = MLP(depth=DEPTH, activation="linear", gamma0=GAMMA0)
    training, problem = GradientDescent(learning_rate=RATE, steps=steps), teacher(points, 2 * points)
    solutions = {
        name: solve_and_say(f"P = {points}, {name}", say, network, problem, training, method)
        for name, method in methods(width, seeds).items()
    }
    figure = draw_comparison(solutions, FINITE.format(width))
    _write_settings(figure, points, steps, f"{GAMMA0:g}")
    return figure


def draw_gammas(points: int, steps: int, width: int, seeds: int, gammas: tuple[float, ...], say: Say) -> Figure:
    """Returns a figure of the alignment of every theory with the networks, and with the full theory, against gamma0."""
    training, network = GradientDescent(learning_rate=RATE, steps=steps), MLP(depth=DEPTH, activation="linear")
    problem, references = teacher(points, 2 * points), (FINITE.format(width), FULL)
    results, start = [], time.perf_counter()
    for result in sweep_gamma(network, problem, training, methods(width, seeds), gammas, references):
        results.append(result)
        worst = min(row.alignment for row in result.comparisons[references[0], FULL].rows if row.times == "all")
        say(
            f"P = {points}, gamma0 = {result.gamma0:g}: full theory aligned {worst:.4f} or better with the networks, "
            f"{time.perf_counter() - start:.1f} s"
        )
    figure = draw_sweep(results)
    _write_settings(figure, points, steps, f"{gammas[0]:g} to {gammas[-1]:g}")
    return figure


def _write_settings(figure: Figure, points: int, steps: int, gamma0: str) -> None:
    data = f"P = {points}, D = {2 * points}"
    write_caption(figure, f"linear, L = {DEPTH}, $\\gamma_0$ = {gamma0}, {data}, $\\eta$ = {RATE:g}, {steps} steps")
