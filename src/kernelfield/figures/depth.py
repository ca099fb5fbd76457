"""Residual networks of growing depth at infinite width, with branches scaled by 1 / sqrt(depth) and not.

With the scale, training converges to a limit as blocks are added (arXiv:2309.16620); without it, it does not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from kernelfield import plotting
from kernelfield.datasets import digits
from kernelfield.describe.networks import ResNet
from kernelfield.describe.training import GradientDescent
from kernelfield.figures.common import Say, Settings, new_figure, solve_and_say, write_caption, write_heading
from kernelfield.finite.method import FiniteWidth
from kernelfield.march.method import March
from kernelfield.solution.solution import Solution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS, GAMMA0, RATE, WIDTH = 10, 1.0, 0.05, 512
Scale = float | Literal["1/sqrt(depth)"]
SCALES: dict[Scale, str] = {"1/sqrt(depth)": r"$\beta = 1/\sqrt{L}$", 1.0: r"$\beta = 1$"}
Runs = dict[Scale, dict[int, Solution]]  # by scale and depth
Distances = dict[int, tuple[float, float]]  # with their noise, by the smaller depth


def draw(settings: Settings, say: Say) -> Iterator[tuple[str, Figure]]:
    """Yields the figure with its file name, and says a line about each run and about the distances between depths."""
    depths, steps, particles, width = (
        ((1, 2, 4), 10, 256, 64) if settings.quick else ((1, 2, 4, 8, 16), 40, 2048, WIDTH)
    )
    problem, training = digits(points=POINTS), GradientDescent(learning_rate=RATE, steps=steps)
    march = March(particles=particles, kernels="features")
    networks = FiniteWidth(width=width, seeds=8, kernels="none")
    theory: Runs = {scale: {} for scale in SCALES}
    finite: Runs = {scale: {} for scale in SCALES}
    for scale, depth in itertools.product(SCALES, depths):
        network, name = ResNet(depth=depth, branch_scale=scale, gamma0=GAMMA0), f"L = {depth}, scale {scale}"
        theory[scale][depth] = solve_and_say(name, say, network, problem, training, march)
        if depth in (depths[0], depths[-1]):
            finite[scale][depth] = solve_and_say(f"{name}, N = {width}", say, network, problem, training, networks)
    distances: dict[Scale, Distances] = {scale: compare_depths(theory[scale]) for scale in SCALES}
    for scale, values in distances.items():
        text = ", ".join(f"{depth} -> {2 * depth}: {d:.3g} ({noise:.1g})" for depth, (d, noise) in values.items())
        say(f"scale {scale}: predictions move when depth doubles by (standard error) {text}")
    yield "depth", draw_figure(theory, finite, distances, width)


def compare_depths(solutions: Mapping[int, Solution]) -> Distances:
    """Returns how far predictions move when the depth doubles, and what sampling errors alone would give.

    Both are |f_2L - f_L| / |y|, rms over steps and points, by the smaller depth.
    """
    distances = {}
    for depth, twice in itertools.pairwise(solutions):
        one, other = (solutions[layers].estimate("predictions") for layers in (depth, twice))
        size = np.sqrt(np.mean(solutions[depth].problem.y ** 2))
        noise = np.sqrt(np.mean(one.se**2 + other.se**2))
        distances[depth] = float(np.sqrt(np.mean((one.mean - other.mean) ** 2)) / size), float(noise / size)
    return distances


def draw_figure(theory: Runs, finite: Runs, distances: Mapping[Scale, Distances], width: int) -> Figure:
    """Returns a figure of the losses for both scales, and of the distances between depths."""
    import matplotlib

    figure = new_figure(13.5, 4.3)
    panels = figure.subplots(1, 3)
    for axes, letter, scale in zip(panels, "ab", SCALES, strict=False):
        depths = list(theory[scale])
        colours = dict(zip(depths, matplotlib.colormaps["viridis"](np.linspace(0.05, 0.85, len(depths))), strict=True))
        for depth, solution in theory[scale].items():
            plotting.loss_curve(axes, solution, colours[depth], f"L = {depth}")
        for depth, solution in finite[scale].items():
            label = f"networks, N = {width}" if depth == depths[0] else ""
            plotting.loss_dots(axes, solution, colours[depth], label)
        write_heading(axes, letter, f"branches scaled by {SCALES[scale]}")
        axes.legend(fontsize=8, frameon=False)
    _draw_distances(panels[2], distances)
    about = f"tanh, handwritten digits 0 and 1, P = {POINTS}, $\\gamma_0$ = {GAMMA0:g}, $\\eta$ = {RATE:g}"
    write_caption(figure, about)
    return figure


def _draw_distances(axes: Axes, distances: Mapping[Scale, Distances]) -> None:
    for (scale, values), colour in zip(distances.items(), ("#1f6f8b", "#b3364a"), strict=True):
        means, errors = np.array(list(values.values())).T
        axes.errorbar(list(values), means, 2 * errors, fmt="o-", color=colour, capsize=3, label=SCALES[scale])
    depths = np.array(list(distances["1/sqrt(depth)"]))
    start, _ = distances["1/sqrt(depth)"][depths[0]]
    axes.plot(depths, start * depths[0] / depths, ":", color=plotting.NEUTRAL, label=r"$\propto 1/L$")
    axes.set(xscale="log", yscale="log", xlabel="depth $L$", ylabel=r"$|f_{2L} - f_L|\,/\,|y|$")
    axes.set_xticks(depths, labels=[str(depth) for depth in depths])
    axes.minorticks_off()
    axes.legend(fontsize=9, frameon=False)
    write_heading(axes, "c", "change as depth doubles")
