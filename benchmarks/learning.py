"""Learning rules, Adam and Langevin dynamics at infinite width against ensembles of finite networks.

    python benchmarks/learning.py
    python benchmarks/learning.py --rules Adam "feedback alignment" --cases alone CNN --widths 64 256

Distances are relative Frobenius norms, in percent: of predictions f at all rows, and of feature kernels at the last row
(mean over layers). In brackets, what the standard errors of both sides make of a distance of zero. The control is
infinite width with something wrong, which must be seen: no response of W(0) to its transpose, feedback of another
correlation, gradients in place of activities, or noise of another size.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

import kernelfield as kf
from distances import cell
from kernelfield.engine.infinite_matrix import Feedback
from training import distances

RNG = np.random.default_rng(1)
X, IMAGES = RNG.standard_normal((6, 8)), RNG.standard_normal((6, 6, 6, 1))
Y = np.array([1.0, -0.7, 0.9, -1.1, 0.4, -0.5])
OUTPUTS = np.stack([Y, -Y[::-1]], axis=1)
STEPS = 20
TANH: dict[str, Any] = {"activation": "tanh", "gamma0": 1.5}


class WithoutResponses(kf.March):
    """The march in which W(0)^T is unrelated to W(0)."""

    feedback: ClassVar[Feedback] = Feedback(alignment=0.0)


@dataclass(frozen=True)
class Case:
    """What learns what, and how training differs from full batches without weight decay."""

    network: Any
    problem: kf.Problem
    settings: dict[str, Any]
    fewer: int = 1  # times fewer networks


CASES = {
    "alone": Case(kf.MLP(depth=2, **TANH), kf.Problem(X, Y), {}),
    "depth 3": Case(kf.MLP(depth=3, **TANH), kf.Problem(X, Y), {}),
    "batches": Case(kf.MLP(depth=2, **TANH), kf.Problem(X, Y), {"batch_size": 3, "epochs": STEPS // 2}),
    "weight decay": Case(kf.MLP(depth=2, **TANH), kf.Problem(X, Y), {"weight_decay": 0.3}),
    "two outputs": Case(kf.MLP(depth=2, **TANH), kf.Problem(X, OUTPUTS), {}),
    "CNN": Case(kf.CNN(depth=2, **TANH), kf.Problem(IMAGES, Y), {}, 4),
    "small CNN": Case(kf.CNN(depth=2, **TANH), kf.Problem(IMAGES[:, 0, :3], Y), {}),
    "residual": Case(kf.ResNet(depth=2, **TANH), kf.Problem(X, Y), {}),
}


def descend(rate: float, rule: Any) -> Callable[..., Any]:
    """Gradient descent, or what a rule puts in its place."""

    def make(**settings: Any) -> Any:
        if "batch_size" in settings:
            return kf.SGD(learning_rate=rate, rule=rule, **settings)
        return kf.GradientDescent(learning_rate=rate, rule=rule, steps=STEPS, **settings)

    return make


def adam(kind: Any, **fixed: Any) -> Callable[..., Any]:
    """A kind of Adam."""

    def make(**settings: Any) -> Any:
        steps = {} if "batch_size" in settings else {"steps": STEPS}
        return kind(learning_rate=0.03, **fixed, **steps, **settings)

    return make


def langevin(temperature: float) -> Callable[..., Any]:
    """Langevin dynamics, which has weight decay in any case."""
    return lambda **settings: kf.Langevin(
        learning_rate=0.15, steps=STEPS, temperature=temperature, **{"weight_decay": 0.5, **settings}
    )


FA = kf.FeedbackAlignment
RULES: dict[str, tuple[Callable[..., Any], Callable[..., Any] | None]] = {  # and the control; None: no responses
    "feedback alignment": (descend(0.3, FA()), descend(0.3, FA(alignment=1.0))),
    "feedback alignment, 0.5": (descend(0.3, FA(alignment=0.5)), descend(0.3, FA())),
    "direct feedback": (descend(0.3, kf.DirectFeedbackAlignment()), descend(0.3, FA())),
    "Hebb": (descend(0.3, kf.Hebbian()), descend(0.3, None)),
    "Adam": (adam(kf.Adam), None),
    "AdamW": (adam(kf.AdamW, betas=(0.9, 0.99), eps=0.01), None),
    "sign descent": (adam(kf.SignDescent), None),
    "Langevin": (langevin(0.3), langevin(0.6)),
}
LEFT = {"Langevin": ("batches", "CNN")}  # cases; bases know fields that weights move at random on all directions


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES), metavar="NAME")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--widths", nargs="+", type=int, default=[64, 256, 1024])
    parser.add_argument("--seeds", type=int, default=64, help="networks of the widest; narrower ones are more")
    parser.add_argument("--particles", type=int, default=2048)
    parser.add_argument("--replicates", type=int, default=12)
    given = parser.parse_args()
    heads = [f"{symbol}, N = {width}" for symbol in ("f", "Phi") for width in given.widths]
    print(f"| rule | case | {' | '.join(heads)} | control: f | s |\n|{'---|' * (4 + len(heads))}", flush=True)
    for rule in given.rules:
        for name in given.cases:
            if name in LEFT.get(rule, ("small CNN",)):
                continue
            case, (make, wrong), began = CASES[name], RULES[rule], time.perf_counter()
            settings = {"particles": given.particles, "replicates": given.replicates, "kernels": "features"}

            def solve(training: Any, method: Any, case: Case = case) -> kf.Solution:
                return kf.solve(
                    case.network, case.problem, training, method, save_at=[-1], fields_at=(), progress=False
                )

            training = make(**case.settings)
            march = solve(training, kf.March(**settings))
            cells = []
            for width in given.widths:
                seeds = max(2, given.seeds * min(8, max(given.widths) // width) // case.fewer)
                first = 1000 * width  # one seed at two widths would share some of its numbers
                method = kf.FiniteWidth(width=width, seeds=seeds, seed=first, kernels="features")
                cells.append(distances(solve(training, method), march))
            kind = kf.March if wrong else WithoutResponses
            control = solve((wrong or make)(**case.settings), kind(**settings))
            apart = cell([control.estimate("predictions")], [march.estimate("predictions")])
            row = [entry for column in zip(*cells, strict=True) for entry in column]
            seconds = time.perf_counter() - began
            print(f"| {rule} | {name} | {' | '.join(row)} | {apart} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
