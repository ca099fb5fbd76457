"""Two-layer linear network on whitened data: from exponential to sigmoidal learning as gamma0 grows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from scipy.integrate import solve_ivp

from kernelfield import plotting
from kernelfield.describe.networks import MLP
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import GradientDescent
from kernelfield.figures.common import Say, Settings, write_caption
from kernelfield.solution.solution import Solution
from kernelfield.solve import solve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GAMMAS = (0.1, 1.0, 10.0, 100.0, 1000.0)
STEPS = 2000


def train(gamma0: float, steps: int) -> Solution:
    """Returns the full theory for K = 1 and |y| = 1, long enough to learn the target, in small steps."""
    problem = Problem(np.sqrt(2) * np.eye(2), np.array([1.0, -1.0]) / np.sqrt(2))
    time = 2 * (3.5 + np.log1p(2 * gamma0)) / np.hypot(1, gamma0)  # P = 2 times that of the closed form
    training = GradientDescent(learning_rate=time / steps, steps=steps)
    return solve(MLP(depth=1, activation="linear", gamma0=gamma0), problem, training)


def closed_form(gamma0: float, times: np.ndarray) -> np.ndarray:
    """Returns the output along the target (T,) under gradient flow, at times t eta / P (T,) of which the first is zero.

    It obeys f' = 2 sqrt(1 + gamma0^2 f^2) (1 - f).
    """

    def move(_: float, f: np.ndarray) -> np.ndarray:
        return 2 * np.hypot(1, gamma0 * f) * (1 - f)

    return solve_ivp(move, times[[0, -1]], [0.0], "DOP853", times, rtol=1e-10, atol=1e-12).y[0]


def draw(settings: Settings, say: Say) -> Iterator[tuple[str, Figure]]:
    """Yields the figure with its file name, and says a line about each run."""
    figure = plotting.new_figure(13, 4.4)
    left, middle, right = figure.subplots(1, 3)
    steps = STEPS // 10 if settings.quick else STEPS
    for gamma0, colour in zip(GAMMAS, plotting.shades(len(GAMMAS)), strict=True):
        solution = train(gamma0, steps)
        times, f = solution.times / 2, solution.predictions @ solution.problem.y
        truth = closed_form(gamma0, times)
        say(f"gamma0 = {gamma0:g}: infinite width and closed form differ by {np.abs(f - truth).max():.1e}")
        label, half = f"$\\gamma_0$ = {gamma0:g}", np.interp(0.5, truth, times)
        plotting.line_and_dots(left, times / times[-1], truth, f, colour, label)
        plotting.line_and_dots(middle, 2 * gamma0 * (times - half), truth, f, colour, label)
        kernel = solution.problem.y @ solution.feature_kernel(1) @ solution.problem.y
        plotting.line_and_dots(right, np.array([gamma0]), np.array([np.nan]), np.array([kernel]), colour, label)
    x = np.linspace(-6, 6, 200)
    plotting.guide(middle, x, 1 / (1 + np.exp(-x)), "sigmoid, $\\gamma_0 \\to \\infty$")
    gammas = np.geomspace(GAMMAS[0] / 2, 2 * GAMMAS[-1], 200)
    plotting.guide(right, gammas, np.hypot(1, gammas), "$\\sqrt{1 + \\gamma_0^2 |y|^2}$")
    left.set(xlabel="training time / time of the run", ylabel="output along the target, $f / |y|$")
    middle.set(xlabel="$2 \\gamma_0 |y| \\, (\\tau - \\tau_{1/2})$", xlim=(-6, 6))
    right.set(xlabel="feature learning $\\gamma_0$", ylabel="final kernel along the target", xscale="log", yscale="log")
    plotting.heading(left, "From exponential to delayed learning")
    plotting.heading(middle, "Rescaled: a sigmoid")
    plotting.heading(right, "The kernel grows with $\\gamma_0$")
    for axes in (left, middle, right):
        plotting.plain(axes)
        axes.legend(frameon=False, fontsize=9)
    figure.suptitle(
        "Two-layer linear network, whitened data, P = 2, |y| = 1: infinite width (dots), gradient-flow formula (lines)"
    )
    write_caption(
        figure,
        "linear, L = 1, D = 2, $K_x$ = 1, y = (1, −1) / $\\sqrt{2}$; training time "
        f"2 (3.5 + log(1 + 2 $\\gamma_0$)) / $\\sqrt{{1 + \\gamma_0^2}}$ in {steps} steps",
    )
    yield "whitened", figure
