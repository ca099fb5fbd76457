"""Learning rates that stay good as networks grow: final loss against learning rate, up to infinite width.

In muP, which is the form of this library, training converges as the width grows, and so does its best learning rate:
the one that is found at infinite width, or at a small width, is good at every width (arXiv:2203.03466). In standard
parameterization with one rate for all tensors, the best rate falls as 1 / N, and there is no limit to read it off.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kernelfield import parameterization, plotting
from kernelfield.datasets import digits
from kernelfield.describe.networks import MLP
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import Adam, GradientDescent, Training
from kernelfield.figures.common import INFINITE, Say, Settings, new_figure, write_caption, write_heading
from kernelfield.finite.method import FiniteWidth
from kernelfield.march.method import March
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.method import Method
from kernelfield.solve import solve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DEPTH, GAMMA0 = 2, 1.0
REACHED = 0.1  # loss at which curves are compared
TICKS = [digit * 10.0**power for power in (-3, -2, -1, 0) for digit in (1, 2, 5)]
PANELS = {  # heading, and label of the learning rates
    "SGD": ("muP, gradient descent", r"learning rate $\eta$"),
    "Adam": ("muP, Adam", r"learning rate $\eta$"),
    "standard": ("standard parameterization", "learning rate of all tensors"),
}


@dataclass(frozen=True)
class Plan:
    """What is trained: the sizes of all runs.

    Args:
        points: images.
        steps: updates.
        rates: of gradient descent, of Adam, and of gradient descent in standard parameterization.
        particles, replicates: of infinite width.
        seeds: number of networks, by their width N.
    """

    points: int
    steps: int
    rates: dict[str, Sequence[float]]
    particles: int
    replicates: int
    seeds: dict[int, int]

    def problem(self) -> Problem:
        """Returns images of all ten digits, even ones with the target 1 and odd ones with -1."""
        images = digits(classes=range(10), points=self.points, seed=0)
        return Problem(images.X, 1.0 - 2 * (images.y.argmax(axis=1) % 2))


FULL = Plan(
    points=40,
    steps=30,
    rates={
        "SGD": [0.125, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0],
        "Adam": [0.04, 0.08, 0.14, 0.25, 0.4, 0.7, 1.2, 2.0],
        "standard": [2.0**power for power in range(-10, -2)],
    },
    particles=1024,
    replicates=8,
    seeds={64: 32, 256: 16, 1024: 8},
)
QUICK = Plan(
    points=10,
    steps=8,
    rates={"SGD": [0.25, 1.0, 16.0], "Adam": [0.03, 0.12, 0.5], "standard": [0.002, 0.01, 0.05]},
    particles=128,
    replicates=4,
    seeds={16: 4, 64: 4},
)


class Final(NamedTuple):
    """The training loss after the last step, or that the run diverged."""

    loss: Estimate
    diverged: bool


Curves = dict[str, dict[float, dict[float, Final]]]  # by panel, width (infinity for the theory) and learning rate


def draw(settings: Settings, say: Say) -> Iterator[tuple[str, Figure]]:
    """Yields the figure with its file name, and says a line about each curve and about the best rates."""
    plan = QUICK if settings.quick else FULL
    yield "transfer", draw_figure(plan, run(plan, say), say)


# --- runs


def run(plan: Plan, say: Say) -> Curves:
    """Returns the final losses at all rates and widths, and says a line about each width."""
    problem, curves = plan.problem(), Curves()
    methods: dict[float, Method] = {
        N: FiniteWidth(width=N, seeds=seeds, kernels="none", algorithm="explicit") for N, seeds in plan.seeds.items()
    }
    march = March(particles=plan.particles, replicates=plan.replicates, kernels="none")
    for panel, rates in plan.rates.items():
        widths = methods if panel == "standard" else {**methods, np.inf: march}
        for N, method in widths.items():
            finals = {}
            for rate in rates:
                network, images, training = describe(panel, rate, N, plan.steps, problem)
                finals[rate] = train(network, images, training, method)
            curves.setdefault(panel, {})[N] = finals
            text = ", ".join(f"{rate:.3g}: {_write(final)}" for rate, final in finals.items())
            say(f"{panel}, {_name(N)}: final loss by learning rate {text}")
    return curves


def describe(panel: str, rate: float, N: float, steps: int, problem: Problem) -> tuple[MLP, Problem, Training]:
    """Returns the network, its images and its training for a learning rate of a panel."""
    network = MLP(depth=DEPTH, activation="tanh", gamma0=GAMMA0)
    if panel == "standard":
        return standard(network, problem, rate, int(N), steps)
    rule = GradientDescent if panel == "SGD" else Adam
    return network, problem, rule(learning_rate=rate, steps=steps)


def standard(network: MLP, problem: Problem, rate: float, N: int, steps: int) -> tuple[MLP, Problem, Training]:
    """Returns what trains like plain layers of width N, W ~ N(0, 1 / fan_in), with one learning rate for all.

    This library has them as a small gamma0 = 1 / sqrt(N), a rate N times as large, and images that are as much smaller
    as their weights are larger, so that the first layer learns at the rate of the others.
    """
    rest = GradientDescent(learning_rate=rate * N, steps=steps)
    form = parameterization.to_standard(network.model_copy(update={"gamma0": N**-0.5}), problem, rest, N)
    rows = tuple(replace(row, learning_rate=rate) for row in form)
    mine = parameterization.from_numbers(replace(form, rows=rows))
    plain = MLP(
        depth=network.depth,
        activation=network.activation,
        gamma0=mine.gamma0,
        weight_scales=list(mine.weight_scales),
    )
    images = Problem(mine.input_scale * problem.X, problem.y)
    return plain, images, GradientDescent(learning_rate=mine.learning_rate, steps=steps)


def train(network: MLP, problem: Problem, training: Training, method: Method) -> Final:
    """Returns the final loss; a run has diverged if it ended early, or has lost more than before the first step."""
    solution = solve(network, problem, training, method, fields_at=(), throw=False)
    loss = solution.estimate("loss")
    last = Estimate(loss.replicates[:, -1], loss.exact)
    return Final(last, solution.status.code == "diverged" or not last.mean < loss.mean[0])


def best_rate(finals: dict[float, Final]) -> float:
    """Returns the learning rate with the least final loss, of the runs that did not diverge."""
    kept = {rate: float(final.loss.mean) for rate, final in finals.items() if not final.diverged}
    return min(kept, key=kept.__getitem__)


def rate_to_reach(finals: dict[float, Final], loss: float) -> float:
    """Returns the learning rate at which the final loss first falls to a value, NaN if it does not.

    Between two rates the loss is a power of the rate.
    """
    points = [(np.log(rate), np.log(final.loss.mean)) for rate, final in finals.items() if not final.diverged]
    for (x, before), (end, after) in itertools.pairwise(points):
        if before > np.log(loss) >= after:
            return float(np.exp(x + (end - x) * (before - np.log(loss)) / (before - after)))
    return np.nan


# --- the figure


def draw_figure(plan: Plan, curves: Curves, say: Say) -> Figure:
    """Returns the figure, and says the best rates."""
    figure = new_figure(13.5, 4.9)
    panels = figure.subplots(1, len(curves), sharey=True)
    colours = dict(zip([*plan.seeds, np.inf], [*plotting.shades(len(plan.seeds) + 1)[1:][::-1], "black"], strict=True))
    for axes, letter, (panel, widths) in zip(panels, "abc", curves.items(), strict=False):
        heading, label = PANELS[panel]
        for place, (N, finals) in enumerate(widths.items()):
            _draw_curve(axes, N, finals, colours[N], 1.03 ** (place - (len(widths) - 1) / 2))
        axes.set(xscale="log", yscale="log", xlabel=label, ylim=(3e-4, 0.9))
        ticks = [tick for tick in TICKS if min(plan.rates[panel]) <= 1.01 * tick <= 1.03 * max(plan.rates[panel])]
        axes.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        write_heading(axes, letter, heading)
        plotting.plain(axes)
        best = ", ".join(f"{best_rate(finals):.3g} at {_name(N)}" for N, finals in widths.items())
        reach = ", ".join(f"{rate_to_reach(finals, REACHED):.3g} at {_name(N)}" for N, finals in widths.items())
        say(f"{panel}: best learning rate {best}; a loss of {REACHED:g} is reached with {reach}")
    panels[0].set_ylabel("final training loss")
    panels[0].plot([], [], "o", color=plotting.NEUTRAL, ms=9, label="best rate")
    panels[0].plot([], [], "^", color=plotting.NEUTRAL, mfc="white", label="diverged")
    plotting.legend_above(figure, panels, [*map(_name, colours), "best rate", "diverged"])
    about = f"tanh, $L$ = {DEPTH}, $\\gamma_0$ = {GAMMA0:g}, {plan.steps} steps on all of $P$ = {plan.points} images"
    write_caption(figure, f"{about}, even or odd digits; 95 % intervals")
    return figure


def _draw_curve(axes: Axes, N: float, finals: dict[float, Final], colour: Any, shift: float) -> None:
    """Draw losses of the rates that converge, the best one as a filled mark, and those that diverged at the upper edge.

    Infinite width is a line with a band, networks are dots with error bars.
    """
    kept = {rate: final.loss for rate, final in finals.items() if not final.diverged}
    rates, losses = np.array(list(kept)), Estimate(np.stack([loss.replicates for loss in kept.values()], axis=1))
    best = best_rate(finals)
    if np.isinf(N):
        plotting.curve(axes, rates, losses, colour, _name(N))
    else:
        axes.plot(rates * shift, losses.mean, color=colour, lw=1.1)
        plotting.dots(axes, rates * shift, losses, colour, _name(N), len(rates))
    axes.plot(best * (1 if np.isinf(N) else shift), float(kept[best].mean), "o", color=colour, ms=8.5, zorder=6)
    lost = np.array([rate for rate, final in finals.items() if final.diverged])
    at_edge: dict[str, Any] = {"mfc": "white", "ls": "", "transform": axes.get_xaxis_transform()}
    axes.plot(lost * shift, np.full(len(lost), 0.97), "^", color=colour, **at_edge)


def _name(N: float) -> str:
    return INFINITE if np.isinf(N) else f"N = {N:g}"


def _write(final: Final) -> str:
    return "diverged" if final.diverged else f"{float(final.loss.mean):.3g} ({float(final.loss.se):.1g})"
