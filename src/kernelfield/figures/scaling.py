"""Scaling laws: test loss against steps, data and width, lazy and rich, up to infinite width.

Inputs are Gaussian with variances that fall as a power of their number, and the target is a function of a few of them.
Infinite width is the end of the law of width, and gives the laws of steps and data without it: more than that no
network of this architecture can reach by being wider. Lazy networks learn along the spectrum of their kernel; rich ones
find the directions that matter, and their laws are steeper (arXiv:2409.17858).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kernelfield import plotting
from kernelfield.describe.networks import MLP
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import GradientDescent
from kernelfield.figures.common import INFINITE, Say, Settings, new_figure, write_caption, write_heading
from kernelfield.finite.method import FiniteWidth
from kernelfield.march.method import March
from kernelfield.observables.losses import loss
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.method import Method
from kernelfield.solve import solve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAMMAS = {"lazy": 0.1, "rich": 2.0}
COLOURS = {"lazy": plotting.LAZY, "rich": plotting.RICH}
DECAY = 1.0  # exponent with which the variance of inputs falls


@dataclass(frozen=True)
class Plan:
    """What is trained: the sizes of all runs.

    Args:
        dimensions, tests: inputs, and test points.
        points: numbers of training points, increasing; the largest is that of the other two laws.
        steps: of gradient descent.
        rate: learning rate.
        particles, replicates: of infinite width.
        seeds: number of networks, by their width N.
    """

    dimensions: int = 32
    tests: int = 256
    points: tuple[int, ...] = (16, 32, 64, 128, 256)
    steps: int = 500
    rate: float = 0.15
    particles: int = 1024
    replicates: int = 4
    seeds: dict[int, int] = field(default_factory=lambda: {8: 64, 16: 48, 32: 32, 64: 16, 128: 8})

    def problem(self, points: int) -> Problem:
        """Returns training points, of which fewer are the first of more, and the same test points for all."""
        rng = np.random.default_rng(0)
        deviations = np.arange(1, self.dimensions + 1) ** (-DECAY / 2)
        scale = np.sqrt(self.dimensions / np.sum(deviations**2))
        tests, X = (rng.standard_normal((count, self.dimensions)) for count in (self.tests, max(self.points)))
        X, tests = X[:points] * deviations * scale, tests * deviations * scale
        return Problem(X, _target(X), X_test=tests, y_test=_target(tests))


FULL = Plan()
QUICK = Plan(16, 32, (8, 16), 20, 0.4, 128, 2, {8: 4, 32: 4})


def _target(X: np.ndarray) -> np.ndarray:
    """Returns a target of the directions 2, 4 and 8, of unit size."""
    z = X[:, [1, 3, 7]] / np.sqrt(np.mean(X[:, [1, 3, 7]] ** 2, axis=0))
    y = np.sin(z[:, 0]) + np.sin(z[:, 1]) + np.sin(z[:, 2])
    return y / np.sqrt(np.mean(y**2))


class Laws(NamedTuple):
    """Test losses of a regime: against steps, against the number of points, and by width."""

    steps: Estimate  # (steps + 1,)
    points: Estimate  # (numbers of points,)
    widths: dict[int, Estimate]  # after training, by N


def draw(settings: Settings, say: Say) -> Iterator[tuple[str, Figure]]:
    """Yields the figure with its file name, and says a line about each law."""
    plan = QUICK if settings.quick else FULL
    yield "scaling", draw_figure(plan, run(plan, say))


def run(plan: Plan, say: Say) -> dict[str, Laws]:
    """Returns the laws of both regimes, and says a line about each."""
    march, laws = March(particles=plan.particles, replicates=plan.replicates, kernels="none"), {}
    for regime, gamma0 in GAMMAS.items():
        curves = [train(plan, gamma0, points, march) for points in plan.points]
        ends = Estimate(np.stack([curve.replicates[:, -1] for curve in curves], axis=1))
        widths = {}
        for N, seeds in plan.seeds.items():
            method = FiniteWidth(width=N, seeds=seeds, kernels="none", algorithm="explicit")
            curve = train(plan, gamma0, plan.points[-1], method)
            widths[N] = Estimate(curve.replicates[:, -1])
        laws[regime] = Laws(curves[-1], ends, widths)
        by_points = ", ".join(f"{count}: {value:.3g}" for count, value in zip(plan.points, ends.mean, strict=True))
        by_width = ", ".join(f"{N}: {float(end.mean):.3g}" for N, end in widths.items())
        say(f"{regime}: test loss by number of points {by_points}; exponent {exponent(plan.points, ends.mean):.2f}")
        say(f"{regime}: test loss by width {by_width}; infinite {ends.mean[-1]:.3g}")
    return laws


def train(plan: Plan, gamma0: float, points: int, method: Method) -> Estimate:
    """Returns the test loss of every step."""
    network = MLP(depth=2, activation="erf", gamma0=gamma0)
    training = GradientDescent(learning_rate=plan.rate, steps=plan.steps)
    return loss(solve(network, plan.problem(points), training, method, fields_at=()), "test")


def exponent(sizes: tuple[int, ...], losses: np.ndarray) -> float:
    """Returns minus the slope of log loss against log size."""
    return -float(np.polyfit(np.log(sizes), np.log(losses), 1)[0])


# --- the figure


def draw_figure(plan: Plan, laws: dict[str, Laws]) -> Figure:
    """Returns the figure: one panel for each law."""
    figure = new_figure(13.5, 4.7)
    panels = figure.subplots(1, 3, sharey=True)
    for regime, law in laws.items():
        colour, name = COLOURS[regime], f"{regime}, $\\gamma_0$ = {GAMMAS[regime]:g}"
        plotting.curve(panels[0], 1 + np.arange(plan.steps + 1), law.steps, colour, name)
        plotting.curve(panels[1], np.array(plan.points), law.points, colour, f"{name}, {INFINITE}")
        _draw_widths(panels[2], law, colour)
    described = (
        ("steps", "step of training", ()),
        ("data", "training points $P$", plan.points),
        ("width", "width $N$", tuple(plan.seeds)),
    )
    for axes, letter, (title, label, ticks) in zip(panels, "abc", described, strict=True):
        axes.set(xscale="log", yscale="log", xlabel=label)
        if ticks:
            axes.set_xticks(ticks, labels=map(str, ticks))
            axes.set_xticks([], minor=True)
        write_heading(axes, letter, title)
        plotting.plain(axes)
    panels[0].set_ylabel("test loss")
    panels[0].legend(frameon=False)
    about = f"erf, $L$ = 2, {plan.dimensions} inputs; a, c: $P$ = {plan.points[-1]}; b, c: after {plan.steps} steps"
    write_caption(figure, f"{about}; dashed: infinite width; 95 % intervals")
    return figure


def _draw_widths(axes: Axes, law: Laws, colour: str) -> None:
    """Draw losses of finite networks as dots, and that of infinite width as a dashed line."""
    widths = np.array(list(law.widths))
    for N, end in law.widths.items():
        values = Estimate(end.replicates[:, None])
        plotting.dots(axes, np.array([N]), values, colour, "", 1)
    axes.plot(widths, [float(end.mean) for end in law.widths.values()], color=colour, lw=1.1)
    axes.axhline(float(law.points.mean[-1]), color=colour, ls="--", lw=1.4)
