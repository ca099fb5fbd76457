"""Figure 4 of the paper: convolutional networks of several channel counts and gamma0, and infinitely many channels.

Rich networks train alike at all channel counts: curves of one gamma0 fall together, those of different gamma0 do not.
Below, on few images, the theory of infinitely many channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from kernelfield import observables
from kernelfield.datasets import cifar, digits
from kernelfield.describe.networks import CNN
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import SGD, GradientDescent
from kernelfield.figures.common import Say, Settings, caption, heading, new_figure, timed
from kernelfield.finite.method import FiniteWidth
from kernelfield.march.method import March
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.solution import Solution

COLOURS = {1.0: "#2a6f97", 5.0: "#e09f3e", 10.0: "#9b2226"}  # of every gamma0
MARKED = 10  # rows at which fields are recorded, and dots drawn, about
MARKS = ("--", "-")  # channel counts, small and large


@dataclass(frozen=True)
class Plan:
    """Sizes of everything.

    Args:
        gammas: gamma0, some of those that have a colour.
        points, tests: images that train, and others.
        depth: convolutions.
        channels: N, two of them.
        seeds: networks of each.
        batch, rate, epochs: of stochastic gradient descent.
        few, few_tests, few_rate, few_steps: the same of the small problem, without batches.
        few_channels: N of its networks.
        particles: of the theory.
    """

    gammas: tuple[float, ...] = tuple(COLOURS)
    points: int = 160
    tests: int = 160
    depth: int = 2
    channels: tuple[int, int] = (16, 64)
    seeds: int = 8
    batch: int = 20
    rate: float = 0.1
    epochs: int = 75
    few: int = 4
    few_tests: int = 4
    few_rate: float = 0.05
    few_steps: int = 60
    few_channels: tuple[int, int] = (32, 256)
    particles: int = 1024


QUICK = Plan(
    points=40, tests=40, channels=(16, 64), seeds=4, epochs=100,
    few_tests=2, few_steps=20, few_rate=0.1, few_channels=(32, 128), particles=512,
)  # fmt: skip


class Runs(NamedTuple):
    """Solutions: of networks by (gamma0, N) on many and on few images, of the theory by gamma0 on the few."""

    many: dict[tuple[float, int], Solution]
    few: dict[tuple[float, int], Solution]
    theory: dict[float, Solution]


MEASURES: dict[str, Callable[[Solution], Estimate]] = {
    "test loss": lambda solution: observables.loss(solution, points="test"),
    "test error": lambda solution: test_error(solution),
    r"alignment $A(\Phi^L, y y^\top)$": lambda solution: alignment(solution),
}
MEASURES_OF_FEW = {  # so few images have hardly an error: how far they are on their side says more
    "test loss": MEASURES["test loss"],
    "margin $y f$ of test images": lambda solution: margin(solution),
    r"alignment $A(\Phi^L, y y^\top)$": MEASURES[r"alignment $A(\Phi^L, y y^\top)$"],
}


def draw(settings: Settings, say: Say) -> Iterator[tuple[str, Any]]:
    """Solve and draw everything.

    Args:
        settings: if quick, fewer images and smaller networks; images of CIFAR-10, grey and pooled, if it has a folder.
        say: called with a line about each run when it is done.

    Yields:
        File name and matplotlib Figure.
    """
    plan = QUICK if settings.quick else Plan()
    yield "figure4", drawn(plan, run(plan, settings, say), settings, say)


def images(settings: Settings, points: int, tests: int) -> Problem:
    """Images of two classes, 4 x 4 pixels, of which the last ones of each do not train.

    Args:
        settings: which images.
        points, tests: that train, and others; even numbers.

    Returns:
        Problem, with weight zero for test images.
    """
    total = points + tests
    if settings.cifar is None:
        data = digits(classes=(4, 9), points=total, images=True, pool=2)
    else:
        data = cifar(settings.cifar, points=total, images=True, grey=True, pool=8)
    trains = np.arange(total) % (total // 2) < points // 2
    return Problem(data.X, data.y, weights=trains)


def run(plan: Plan, settings: Settings, say: Say) -> Runs:
    """All runs.

    Args:
        plan: sizes.
        settings: which images.
        say: called with a line about each run.

    Returns:
        Runs.
    """
    many, few, theory = {}, {}, {}
    problem, small = images(settings, plan.points, plan.tests), images(settings, plan.few, plan.few_tests)
    training = SGD(learning_rate=plan.rate, batch_size=plan.batch, epochs=plan.epochs)
    few_training = GradientDescent(learning_rate=plan.few_rate, steps=plan.few_steps)
    at, few_at = (marked(rows) for rows in (plan.epochs, plan.few_steps))
    for gamma0 in plan.gammas:
        network, name = CNN(depth=plan.depth, activation="relu", gamma0=gamma0), f"gamma0 = {gamma0:g}"
        for N in plan.channels:
            method = FiniteWidth(width=N, seeds=plan.seeds, kernels="none")
            many[gamma0, N] = timed(f"{name}, N = {N}", say, network, problem, training, method, at)
        name = f"few images, {name}"
        for N in plan.few_channels:
            method = FiniteWidth(width=N, seeds=2 * plan.seeds, kernels="none")
            few[gamma0, N] = timed(f"{name}, N = {N}", say, network, small, few_training, method, few_at)
        march = March(particles=plan.particles, kernels="features")
        theory[gamma0] = timed(f"{name}, theory", say, network, small, few_training, march, few_at)
    return Runs(many, few, theory)


def marked(last: int) -> list[int]:
    """About MARKED rows of 0..last, equally spaced, with both ends.

    Args:
        last: number of the last row.
    """
    return np.unique(np.linspace(0, last, MARKED + 1).round().astype(int)).tolist()


def test_error(solution: Solution) -> Estimate:
    """Share of test images on the wrong side.

    Args:
        solution: of a problem with test points.

    Returns:
        Estimate (rows,).
    """
    right = observables.accuracy(solution, points="test")
    return Estimate(1 - right.replicates, right.exact)


def margin(solution: Solution) -> Estimate:
    """Mean of y f over test images.

    Args:
        solution: of a problem with test points.

    Returns:
        Estimate (rows,).
    """
    tests = solution.problem.weights == 0
    predictions = solution.estimate("predictions").replicates[..., tests]
    return Estimate((predictions * solution.problem.y[tests]).mean(axis=-1), solution.exact)


def alignment(solution: Solution) -> Estimate:
    """Alignment of the kernel of what enters the readout with the targets of test images, where fields were recorded.

    Args:
        solution: of a network that averages over sites before the readout.

    Returns:
        Estimate (recorded steps,).
    """
    tests = solution.problem.weights == 0
    y, sites, curves = solution.problem.y[tests], int(np.prod(solution.problem.X.shape[1:-1])), []
    for step in recorded(solution):
        h = solution.field_samples[solution.network.hidden_layers, step]["h"][:, tests]
        features = np.maximum(h, 0).reshape(*h.shape[:2], sites, -1).mean(axis=2)
        Phi = features @ features.swapaxes(1, 2)
        curves.append(np.einsum("m,rmn,n->r", y, Phi, y) / (np.linalg.norm(Phi, axis=(1, 2)) * (y @ y)))
    return Estimate(np.stack(curves, axis=1), solution.exact)


def recorded(solution: Solution) -> list[int]:
    """Steps at which fields were recorded.

    Args:
        solution: any.
    """
    return sorted({step for _, step in solution.field_samples})


def times(solution: Solution, curve: Estimate) -> np.ndarray:
    """Training times of a curve of all steps, or of those at which fields were recorded.

    Args:
        solution: whose curve.
        curve: from one of `MEASURES`.
    """
    every = len(curve.mean) == len(solution.times)
    return solution.times if every else solution.times[recorded(solution)]


def spread(curves: Mapping[tuple[float, int], np.ndarray]) -> tuple[float, float]:
    """How far apart curves are, rms over time and over pairs of networks.

    Args:
        curves: by (gamma0, N), of one shape.

    Returns:
        Of different N at the same gamma0, and of different gamma0 at the same N.
    """
    apart = ([], [])
    for (one, a), (other, b) in itertools.combinations(curves.items(), 2):
        if (one[0] == other[0]) != (one[1] == other[1]):
            apart[one[1] == other[1]].append(np.mean((a - b) ** 2))
    across_channels, across_gamma0 = (float(np.sqrt(np.mean(each))) for each in apart)
    return across_channels, across_gamma0


def drawn(plan: Plan, runs: Runs, settings: Settings, say: Say) -> Any:
    """The figure, and lines about how far curves are apart.

    Args:
        plan: sizes.
        runs: what `run` returned.
        settings: which images.
        say: called with the lines.

    Returns:
        matplotlib Figure.
    """
    out = new_figure(13.5, 8.2)
    panels = out.subplots(2, 3)
    for letter, axes, (name, measure) in zip("abc", panels[0], MEASURES.items(), strict=True):
        curves = {key: measure(solution) for key, solution in runs.many.items()}
        across_channels, across_gamma0 = spread({key: curve.mean for key, curve in curves.items()})
        told = f"{across_channels:.3g} across N at fixed gamma0, {across_gamma0:.3g} across gamma0 at fixed N"
        say(f"{_plain(name)}: apart by {told}")
        for (gamma0, channels), curve in curves.items():
            solution, label = runs.many[gamma0, channels], f"$\\gamma_0$ = {gamma0:g}, N = {channels}"
            _band(axes, solution, curve, COLOURS[gamma0], label, MARKS[plan.channels.index(channels)])
        axes.set(xlabel=r"training time $\eta t$", ylabel=name)
        heading(axes, letter, name)
    for letter, axes, (name, measure) in zip("def", panels[1], MEASURES_OF_FEW.items(), strict=True):
        for gamma0, solution in runs.theory.items():
            expected = measure(solution)
            _band(axes, solution, expected, COLOURS[gamma0], f"theory, $\\gamma_0$ = {gamma0:g}", "-")
            for channels, mark in zip(plan.few_channels, "so", strict=True):
                found = runs.few[gamma0, channels]
                curve, label = measure(found), f"N = {channels}" if gamma0 == plan.gammas[-1] else ""
                at = marked(len(curve.mean) - 1)
                looks: dict[str, Any] = {"fmt": mark, "ms": 4.5, "mfc": "white" if mark == "s" else COLOURS[gamma0]}
                axes.errorbar(
                    times(found, curve)[at], curve.mean[at], curve.se[at], color=COLOURS[gamma0], label=label, **looks
                )
                gap = np.sqrt(np.mean((curve.mean - expected.mean) ** 2))
                noise = np.sqrt(np.mean(curve.se**2 + expected.se**2))
                about = f"few images, gamma0 = {gamma0:g}, N = {channels}: {_plain(name)}"
                say(f"{about} {gap:.3g} from theory ({noise:.2g} expected)")
        axes.set(xlabel=r"training time $\eta t$", ylabel=name)
        heading(axes, letter, "few images, and theory")
    panels[0, 0].legend(fontsize=8, frameon=False)
    panels[1, 0].legend(fontsize=8, frameon=False)
    data = "digits 4 and 9" if settings.cifar is None else "CIFAR-10 airplanes and automobiles, grey"
    about = f"{data}, 4 x 4 pixels; {plan.depth} convolutions, ReLU"
    top = f"top: {plan.points} images in batches of {plan.batch}, $\\eta$ = {plan.rate:g}, {plan.epochs} epochs"
    bottom = f"bottom: {plan.few} images, {plan.few_tests} to test, $\\eta$ = {plan.few_rate:g}"
    caption(out, f"{about}; {top}; {bottom}")
    return out


def _plain(name: str) -> str:
    """A measure's name without TeX."""
    return name.replace("$", "").replace("\\", "")


def _band(axes: Any, solution: Solution, curve: Estimate, colour: str, label: str, style: str) -> None:
    """A mean with its standard error."""
    t = times(solution, curve)
    axes.plot(t, curve.mean, style, color=colour, label=label, lw=1.8)
    axes.fill_between(t, curve.mean - curve.se, curve.mean + curve.se, color=colour, alpha=0.18, lw=0)
