"""Figure 3 of the paper: four theories of a deep linear network beside networks of finite width.

Linear, five hidden layers, gamma0 = 1.5, 20 and 100 points, networks of width 1000; then the range of gamma0.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from kernelfield.describe.networks import MLP
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import GradientDescent
from kernelfield.figures.common import Say, Settings, caption
from kernelfield.finite.method import FiniteWidth
from kernelfield.plotting.comparison import draw as draw_comparison
from kernelfield.plotting.gammas import draw as draw_sweep
from kernelfield.solution.method import Method
from kernelfield.solve import solve
from kernelfield.sweeps.gammas import sweep_gamma
from kernelfield.theories.deep_linear import DeepLinear
from kernelfield.theories.gradient_independence import GradientIndependence
from kernelfield.theories.perturbation import Perturbation
from kernelfield.theories.static_ntk import StaticNTK

DEPTH, GAMMA0, WIDTH = 5, 1.5, 1000
RATE = 0.1  # of the mean loss; the paper's 0.025 of the sum makes training unstable on these data
GAMMAS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
FULL, FINITE = "full theory", "networks, N = {}"


def problem(points: int) -> Problem:
    """Gaussian inputs in D = 2 P dimensions, labels +-1 by a random hyperplane.

    Args:
        points: P.

    Returns:
        Problem.
    """
    rng = np.random.default_rng(0)
    X = rng.standard_normal((points, 2 * points))
    return Problem(X, np.sign(X @ rng.standard_normal(2 * points)))


def methods(width: int, seeds: int) -> dict[str, Method]:
    """The four theories and networks of finite width, by name.

    Args:
        width: N.
        seeds: number of networks.

    Returns:
        Methods for `kernelfield.solve`.
    """
    return {
        FULL: DeepLinear(),
        "gradient independence": GradientIndependence(),
        "leading order": Perturbation(),
        "static NTK": StaticNTK(),
        FINITE.format(width): FiniteWidth(width=width, seeds=seeds),
    }


def draw(settings: Settings, say: Say) -> Iterator[tuple[str, Any]]:
    """Solve and draw everything.

    Args:
        settings: if quick, fewer points, steps and smaller networks.
        say: called with a line about each run when it is done.

    Yields:
        File names and matplotlib Figures.
    """
    sizes, steps, width, seeds = ((10,), 20, 200, 2) if settings.quick else ((20, 100), 100, WIDTH, 8)
    for points in sizes:
        yield f"figure3-P{points}", side_by_side(points, steps, width, seeds, say)
    yield "figure3-gamma0", over_gamma0(sizes[0], steps, width, seeds, GAMMAS[1::2] if settings.quick else GAMMAS, say)


def side_by_side(points: int, steps: int, width: int, seeds: int, say: Say) -> Any:
    """Loss, alignment with the networks and kernels of all methods at gamma0 = 1.5.

    Args:
        points: P.
        steps: of gradient descent.
        width: of the networks.
        seeds: number of networks.
        say: called with a line about each run.

    Returns:
        matplotlib Figure.
    """
    training, data = GradientDescent(learning_rate=RATE, steps=steps), problem(points)
    solutions = {}
    for name, method in methods(width, seeds).items():
        began = time.perf_counter()
        solutions[name] = solve(MLP(depth=DEPTH, activation="linear", gamma0=GAMMA0), data, training, method)
        say(f"P = {points}, {name}: {time.perf_counter() - began:.1f} s")
    figure = draw_comparison(solutions, FINITE.format(width))
    _caption(figure, points, steps, f"{GAMMA0:g}")
    return figure


def over_gamma0(points: int, steps: int, width: int, seeds: int, gammas: tuple[float, ...], say: Say) -> Any:
    """Alignment of every theory with the networks, and with the full theory, against gamma0.

    Args:
        points: P.
        steps: of gradient descent.
        width: of the networks.
        seeds: number of networks.
        gammas: values of gamma0.
        say: called with a line about each.

    Returns:
        matplotlib Figure.
    """
    training, network = GradientDescent(learning_rate=RATE, steps=steps), MLP(depth=DEPTH, activation="linear")
    references, found, began = (FINITE.format(width), FULL), [], time.perf_counter()
    for point in sweep_gamma(network, problem(points), training, methods(width, seeds), gammas, references):
        found.append(point)
        worst = min(row.alignment for row in point.comparisons[references[0], FULL].rows if row.times == "all")
        say(
            f"P = {points}, gamma0 = {point.gamma0:g}: full theory aligned {worst:.4f} or better with the networks, "
            f"{time.perf_counter() - began:.1f} s"
        )
    figure = draw_sweep(found)
    _caption(figure, points, steps, f"{gammas[0]:g} to {gammas[-1]:g}")
    return figure


def _caption(figure: Any, points: int, steps: int, gamma0: str) -> None:
    data = f"P = {points}, D = {2 * points}"
    setting = f"linear, L = {DEPTH}, $\\gamma_0$ = {gamma0}, {data}, $\\eta$ = {RATE:g}, {steps} steps"
    caption(figure, setting)
