"""Gradient descent, feedback alignment and Hebb at infinite width, from lazy to rich, beside finite networks.

Error signals that go down through random matrices have nothing to do with gradients at first. The forward weights
learn to agree with the matrices, so that the signals turn into gradients: the more, the richer the training
(arXiv:2210.02157). The kernel by which a rule moves outputs, and the features, align with the targets as well; Hebb,
whose weights do not see the sign of the error, aligns features the least.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kernelfield import observables, plotting
from kernelfield.datasets import digits
from kernelfield.describe.networks import MLP
from kernelfield.describe.problem import Problem
from kernelfield.describe.rules import DirectFeedbackAlignment, FeedbackAlignment, Hebbian, LearningRule
from kernelfield.describe.training import GradientDescent
from kernelfield.figures.common import Say, Settings, new_figure, solve_and_say, write_caption, write_heading
from kernelfield.finite.method import FiniteWidth
from kernelfield.march.method import March
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.solution import Solution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DEPTH = 2
RULES: dict[str, LearningRule | None] = {
    "gradient descent": None,
    "feedback alignment": FeedbackAlignment(),
    "direct feedback alignment": DirectFeedbackAlignment(),
    "Hebb": Hebbian(),
}
COLOURS = dict(zip(RULES, (plotting.NEUTRAL, plotting.RICH, plotting.LAZY, "#2f8f6b"), strict=True))
MARKED = 11  # steps whose kernels are kept, and dots drawn


@dataclass(frozen=True)
class Plan:
    """What is trained: the sizes of all runs."""

    gammas: tuple[float, ...] = (0.3, 0.7, 1.5, 3.0)
    points: int = 20
    rate: float = 0.25
    steps: int = 80
    particles: int = 2048
    width: int = 256
    seeds: int = 16

    def problem(self) -> Problem:
        """Returns images of handwritten threes and eights less their mean image, which Hebb would learn alone."""
        images = digits(classes=(3, 8), points=self.points, seed=0)
        X = images.X - images.X.mean(axis=0)
        return Problem(X / np.sqrt(np.mean(X**2)), images.y)

    def kept(self) -> list[int]:
        """Returns the steps whose kernels are kept."""
        return plotting.thin(self.steps + 1, MARKED).tolist()


QUICK = Plan(gammas=(0.5, 3.0), points=8, steps=20, particles=256, width=64, seeds=4)


@dataclass(frozen=True)
class Pair:
    """One rule at one gamma0: at infinite width, and networks."""

    theory: Solution
    networks: Solution


Runs = dict[str, dict[float, Pair]]  # by rule and gamma0
Measure = Callable[[Solution], Estimate]


def draw(settings: Settings, say: Say) -> Iterator[tuple[str, Figure]]:
    """Yields the figure with its file name, and says a line about each run and about each panel."""
    plan = QUICK if settings.quick else Plan()
    yield "rules", draw_figure(plan, run(plan, say), say)


def run(plan: Plan, say: Say) -> Runs:
    """Returns infinite width and networks of all rules, from lazy to rich."""
    problem, runs = plan.problem(), Runs()
    methods = March(particles=plan.particles), FiniteWidth(width=plan.width, seeds=plan.seeds)
    for (name, rule), gamma0 in itertools.product(RULES.items(), plan.gammas):
        network = MLP(depth=DEPTH, activation="tanh", gamma0=gamma0)
        training = GradientDescent(learning_rate=plan.rate, steps=plan.steps, rule=rule)
        labels = f"{name}, gamma0 = {gamma0:g}, infinite width", f"{name}, gamma0 = {gamma0:g}, N = {plan.width}"
        theory, networks = (
            solve_and_say(label, say, network, problem, training, method, save_at=plan.kept(), fields_at=())
            for label, method in zip(labels, methods, strict=True)
        )
        runs.setdefault(name, {})[gamma0] = Pair(theory, networks)
    return runs


# --- what is measured


def tangent_alignment(solution: Solution) -> Estimate:
    """Returns the final alignment with the targets of the kernel by which the rule moves outputs."""
    kernel = "NTK" if solution.training.rule is None else "eNTK"  # type: ignore[union-attr]
    return observables.kernel_alignment(solution, kernel, t=-1)


def feature_alignment(solution: Solution) -> Estimate:
    """Returns the final alignment of the last feature kernel with the targets."""
    return observables.kernel_alignment(solution, "Phi", DEPTH, t=-1)


def cosine(solution: Solution) -> Estimate:
    """Returns the cosine between gradients and what stands for them, the mean over layers, at the steps kept."""
    layers = [observables.gradient_alignment(solution, layer).replicates for layer in range(1, DEPTH + 1)]
    return Estimate(np.mean(layers, axis=0))


# --- the figure


def draw_figure(plan: Plan, runs: Runs, say: Say) -> Figure:
    """Returns the figure, and says the numbers of every panel."""
    figure = new_figure(11.5, 8.2)
    panels = figure.subplots(2, 2).ravel()
    rich = max(plan.gammas)
    _draw_losses(panels[0], runs, rich, say)
    _draw_against_gamma0(panels[1], plan, runs, tangent_alignment, "kernel that moves outputs", say)
    _draw_cosines(panels[2], plan, runs, say)
    _draw_against_gamma0(panels[3], plan, runs, feature_alignment, "last features", say)
    start = float(observables.kernel_alignment(runs["Hebb"][rich].theory, "Phi", DEPTH, t=0).mean)
    panels[3].axhline(start, color="black", lw=1.2, ls=(0, (2, 3)))
    panels[3].annotate("before training", (min(plan.gammas), start), (0, -5), textcoords="offset points", va="top")
    for axes in (panels[0], panels[2]):
        axes.set_xlim(-0.015 * plan.steps, 1.015 * plan.steps)
    headings = (
        f"training loss, rich ($\\gamma_0$ = {rich:g})",
        "the kernel that moves outputs",
        "signals turn into gradients",
        f"last features, $\\Phi^{DEPTH}$",
    )
    for letter, axes, text in zip("abcd", panels, headings, strict=True):
        write_heading(axes, letter, text)
        plotting.plain(axes)
    panels[0].plot([], [], "o", color="black", mfc="white", mew=1.6, label=f"networks, N = {plan.width}")
    plotting.legend_above(figure, panels[:1])
    about = f"tanh, $L$ = {DEPTH}, $P$ = {plan.points}, handwritten digits 3 and 8, $\\eta$ = {plan.rate:g}"
    write_caption(figure, f"lines: infinite width; {plan.seeds} networks; 95 % intervals; {about}")
    return figure


def _draw_losses(axes: Axes, runs: Runs, gamma0: float, say: Say) -> None:
    for name, pairs in runs.items():
        theory, networks = pairs[gamma0].theory, pairs[gamma0].networks
        plotting.loss_curve(axes, theory, COLOURS[name], name)
        plotting.loss_dots(axes, networks, COLOURS[name], "", MARKED)
        say(f"{name}, gamma0 = {gamma0:g}: final loss {_both(pairs[gamma0], lambda each: each.estimate('loss'))}")


def _draw_against_gamma0(axes: Axes, plan: Plan, runs: Runs, measure: Measure, what: str, say: Say) -> None:
    gammas = np.array(plan.gammas)
    for name, pairs in runs.items():
        line, dots = (
            Estimate(np.stack([measure(getattr(pair, side)).replicates for pair in pairs.values()], axis=1))
            for side in ("theory", "networks")
        )
        plotting.curve(axes, gammas, line, COLOURS[name])
        plotting.dots(axes, gammas, dots, COLOURS[name])
        text = "; ".join(f"gamma0 = {gamma0:g}: {_both(pair, measure)}" for gamma0, pair in pairs.items())
        say(f"{name}: alignment of the {what} with the targets at the end, {text}")
    axes.set(xscale="log", xlabel=r"$\gamma_0$ (lazy to rich)", ylabel="final alignment with the targets")
    axes.set_xticks(gammas, labels=[f"{gamma0:g}" for gamma0 in gammas])
    axes.minorticks_off()


def _draw_cosines(axes: Axes, plan: Plan, runs: Runs, say: Say) -> None:
    lazy, rich = min(plan.gammas), max(plan.gammas)
    for (name, pairs), (gamma0, style) in itertools.product(runs.items(), ((rich, "-"), (lazy, "--"))):
        if RULES[name] is not None:
            pair, steps = pairs[gamma0], np.array(plan.kept())
            plotting.curve(axes, steps, cosine(pair.theory), COLOURS[name], style=style)
            plotting.dots(axes, steps, cosine(pair.networks), COLOURS[name])
            first = cosine(pair.theory)
            text = f"{first.mean[0]:.3f} ({first.se[0]:.1g}) at first, {_both(pair, cosine)} at the end"
            say(f"{name}, gamma0 = {gamma0:g}: cosine with the gradients {text}")
    for gamma0, style in ((rich, "-"), (lazy, "--")):
        regime = "rich" if gamma0 == rich else "lazy"
        axes.plot([], [], style, color="black", lw=2, label=f"{regime}, $\\gamma_0$ = {gamma0:g}")
    axes.axhline(0, color=plotting.NEUTRAL, lw=0.9)
    axes.set(xlabel="step", ylabel="cosine with the true gradients")
    axes.set_ylim(top=1.28 * axes.get_ylim()[1])
    axes.legend(fontsize=10, frameon=False, loc="upper right", ncols=2)


def _both(pair: Pair, measure: Measure) -> str:
    """Returns the last number of both sides, with their standard errors."""
    sides = (measure(side) for side in (pair.theory, pair.networks))
    texts = [f"{np.ravel(side.mean)[-1]:.3g} ({np.ravel(side.se)[-1]:.1g})" for side in sides]
    return f"{texts[0]}, networks {texts[1]}"
