"""Residual networks of growing depth at infinite width, with branches scaled by 1 / sqrt(depth) and not.

With the scale, training converges to a limit as blocks are added (arXiv:2309.16620); without it, it does not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from kernelfield.datasets import digits
from kernelfield.describe.networks import ResNet
from kernelfield.describe.training import GradientDescent
from kernelfield.figures.common import Say, Settings, caption, heading, new_figure, timed
from kernelfield.finite.method import FiniteWidth
from kernelfield.march.method import March
from kernelfield.solution.solution import Solution

POINTS, GAMMA0, RATE, WIDTH = 10, 1.0, 0.05, 512
SCALES: dict[Any, str] = {"1/sqrt(depth)": r"$\beta = 1/\sqrt{L}$", 1.0: r"$\beta = 1$"}


def draw(settings: Settings, say: Say) -> Iterator[tuple[str, Any]]:
    """Solve and draw everything.

    Args:
        settings: if quick, smaller depths, fewer steps and smaller networks.
        say: called with a line about each run when it is done.

    Yields:
        File name and matplotlib Figure.
    """
    depths, steps, particles, width = (
        ((1, 2, 4), 10, 256, 64) if settings.quick else ((1, 2, 4, 8, 16), 40, 2048, WIDTH)
    )
    problem, training = digits(points=POINTS), GradientDescent(learning_rate=RATE, steps=steps)
    theory: dict[Any, dict[int, Solution]] = {scale: {} for scale in SCALES}
    finite: dict[Any, dict[int, Solution]] = {scale: {} for scale in SCALES}
    for scale in SCALES:
        for depth in depths:
            network, name = ResNet(depth=depth, branch_scale=scale, gamma0=GAMMA0), f"L = {depth}, scale {scale}"
            method = March(particles=particles, kernels="features")
            theory[scale][depth] = timed(name, say, network, problem, training, method)
            if depth in (depths[0], depths[-1]):
                networks = FiniteWidth(width=width, seeds=8, kernels="none")
                finite[scale][depth] = timed(f"{name}, N = {width}", say, network, problem, training, networks)
    distances = {scale: doubling(theory[scale]) for scale in SCALES}
    for scale, found in distances.items():
        told = ", ".join(f"{depth} -> {2 * depth}: {d:.3g} ({noise:.1g})" for depth, (d, noise) in found.items())
        say(f"scale {scale}: predictions move when depth doubles by (standard error) {told}")
    yield "depth", figure(theory, finite, distances, width)


def doubling(solutions: Mapping[int, Solution]) -> dict[int, tuple[float, float]]:
    """How far predictions move when the depth doubles, and what sampling errors alone would give.

    Args:
        solutions: by depth, each twice the one before.

    Returns:
        By the smaller depth: |f_2L - f_L| / |y|, rms over steps and points, and its noise.
    """
    found, depths = {}, list(solutions)
    for depth, twice in itertools.pairwise(depths):
        one, other = (solutions[each].estimate("predictions") for each in (depth, twice))
        size = np.sqrt(np.mean(solutions[depth].problem.y ** 2))
        noise = np.sqrt(np.mean(one.se**2 + other.se**2))
        found[depth] = float(np.sqrt(np.mean((one.mean - other.mean) ** 2)) / size), float(noise / size)
    return found


def figure(theory: Any, finite: Any, distances: Any, width: int) -> Any:
    """Losses for both scales, and the distance between depths.

    Args:
        theory, finite: solutions by scale and depth.
        distances: by scale, from `doubling`.
        width: of the finite networks.

    Returns:
        matplotlib Figure.
    """
    import matplotlib

    from kernelfield import plotting

    out = new_figure(13.5, 4.3)
    panels = out.subplots(1, 3)
    for axes, letter, scale in zip(panels, "ab", SCALES, strict=False):
        depths = list(theory[scale])
        colours = dict(zip(depths, matplotlib.colormaps["viridis"](np.linspace(0.05, 0.85, len(depths))), strict=True))
        for depth, solution in theory[scale].items():
            plotting.loss_curve(axes, solution, colours[depth], f"L = {depth}")
        for depth, solution in finite[scale].items():
            label = f"networks, N = {width}" if depth == depths[0] else ""
            plotting.loss_dots(axes, solution, colours[depth], label)
        heading(axes, letter, f"branches scaled by {SCALES[scale]}")
        axes.legend(fontsize=8, frameon=False)
    axes = panels[2]
    for (scale, found), colour in zip(distances.items(), ("#1f6f8b", "#b3364a"), strict=True):
        depths, values = list(found), np.array(list(found.values()))
        axes.errorbar(depths, values[:, 0], 2 * values[:, 1], fmt="o-", color=colour, capsize=3, label=SCALES[scale])
    first = distances["1/sqrt(depth)"]
    start = next(iter(first))
    axes.plot(
        list(first), [first[start][0] * start / each for each in first], ":", color="#5c6670", label=r"$\propto 1/L$"
    )
    axes.set(xscale="log", yscale="log", xlabel="depth $L$", ylabel=r"$|f_{2L} - f_L|\,/\,|y|$")
    axes.set_xticks(list(first), labels=[str(each) for each in first])
    axes.minorticks_off()
    axes.legend(fontsize=9, frameon=False)
    heading(axes, "c", "change as depth doubles")
    about = f"tanh, handwritten digits 0 and 1, P = {POINTS}, $\\gamma_0$ = {GAMMA0:g}, $\\eta$ = {RATE:g}"
    caption(out, about)
    return out
