"""Attention, norms, gates and transformers at infinite width against plain finite networks of growing width.

    python benchmarks/transformers.py
    python benchmarks/transformers.py --cases "two blocks, mean, gamma0 = 2" --widths 512 1024 2048 --seeds 16

The finite networks (`plain_transformers.py`) share no code with the library. Data are six sequences of four tokens with
random signs. Each row has the relative distance of predictions f at all steps from those at infinite width, and of
y K y over all final feature kernels, in percent; in brackets, what the standard errors of both sides make of a
distance of zero. "1/N" are the intercepts at N = infinity of straight lines in 1/N through the rows above. The last row
of a case is the control: infinite width without response functions. With `--bias`, infinite width is also solved at
other numbers of particles.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, ClassVar

import numpy as np

import kernelfield as kf
import plain_transformers as plain
from kernelfield.engine.infinite_matrix import Feedback
from kernelfield.layers import (
    Activation,
    Bias,
    Conv,
    Gain,
    GlobalAveragePool,
    Layer,
    LayerNorm,
    MeanAttention,
    MultiHeadAttention,
    Readout,
    Residual,
    RMSNorm,
    Sequential,
    SwiGLU,
    TokenPool,
)

EMBED = ("embed",)
NORMED = (EMBED, ("norm", "layer"), ("dense",), ("activation", "tanh"), ("norm", "rms"), ("dense",))
BLOCKS = (EMBED, *(("heads", 2, False, 0.7, "layer"), ("hidden", "tanh", 2, 0.7, "layer")) * 2, ("norm", "layer"))
CASES = {  # blocks, readout, gamma0, learning rate
    "heads of d = 2": ((EMBED, ("heads", 2, False, 1.0, None)), "mean", 1.0, 0.1),
    "heads of d = 2, causal": ((EMBED, ("heads", 2, True, 1.0, None)), "last", 1.0, 0.1),
    "heads of d = 4": ((EMBED, ("heads", 4, False, 1.0, None)), "mean", 1.0, 0.1),
    "heads of d = 4, causal": ((EMBED, ("heads", 4, True, 1.0, None)), "last", 1.0, 0.1),
    "one head of 1/N logits": ((EMBED, ("mean", 2.0, False, 1.0, None)), "mean", 1.0, 0.1),
    "one head of 1/N logits, causal": ((EMBED, ("mean", 2.0, True, 1.0, None)), "mean", 1.0, 0.1),
    "LayerNorm, tanh, RMSNorm": ((*NORMED, ("activation", "tanh")), "mean", 1.0, 0.1),
    "SwiGLU": ((EMBED, ("gate", 1.0, None)), "mean", 1.0, 0.05),
    "two blocks, mean, gamma0 = 0.5": (BLOCKS, "mean", 0.5, 0.05),
    "two blocks, mean, gamma0 = 2": (BLOCKS, "mean", 2.0, 0.02),
    "two blocks, last, gamma0 = 0.5": (BLOCKS, "last", 0.5, 0.02),
    "two blocks, last, gamma0 = 2": (BLOCKS, "last", 2.0, 0.005),
}


class WithoutResponses(kf.March):
    """The march in which W(0)^T is unrelated to W(0): the control."""

    feedback: ClassVar[Feedback] = Feedback(alignment=0.0)


def data(points: int = 6, positions: int = 4, vocabulary: int = 3, seed: int = 0) -> kf.Problem:
    """Random tokens with as many targets of 1 as of -1."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, vocabulary, (points, positions))
    return kf.Problem(ids, np.where(rng.permutation(points) < points / 2, 1.0, -1.0), vocabulary=vocabulary)


def network(blocks: tuple[plain.Block, ...], readout: str, gamma0: float) -> kf.Network:
    """The same blocks as layers of the library."""

    def norm(kind: str | None) -> list[Layer]:
        return {None: [], "layer": [LayerNorm(), Gain(), Bias()], "rms": [RMSNorm(), Gain()]}[kind]

    layers: list[Layer] = []
    for block in blocks:
        match block:
            case ("embed",) | ("dense",):
                layers.append(Conv(1))
                continue
            case ("activation", name):
                layers.append(Activation(name))
                continue
            case ("norm", kind):
                layers += norm(kind)
                continue
        *settings, beta, kind = block
        match settings:
            case ("heads", d, causal):
                body = [Conv(1, components=3 * d, width=3.0), MultiHeadAttention(d, causal)]
            case ("mean", scale, causal):
                body = [Conv(1, components=3, width=3.0), MeanAttention(scale, causal)]
            case ("hidden", name, ratio):
                body = [Conv(1, width=float(ratio)), Activation(name)]
            case _:
                body = [Conv(1, components=2, width=2.0), SwiGLU()]
        layers.append(Residual(Sequential([*norm(kind), *body, Conv(1)]), beta))
    layers.append(GlobalAveragePool() if readout == "mean" else TokenPool(last=True))
    return kf.Network(layers=[*layers, Readout()], gamma0=gamma0)


Sample = tuple[np.ndarray, np.ndarray]  # f (R, steps + 1, P), and y K y (R, features)


def infinite(name: str, problem: kf.Problem, steps: int, method: kf.March) -> tuple[Sample, float]:
    """The predictions and y K y of every replicate, and the seconds of one."""
    blocks, readout, gamma0, eta = CASES[name]
    training = kf.GradientDescent(learning_rate=eta, steps=steps)
    solution = kf.solve(network(blocks, readout, gamma0), problem, training, method, save_at=[-1], progress=False)
    y = problem.y
    kernels = [solution.estimate("feature_kernel", layer).replicates for layer in solution.layers("Phi")[1:-1]]
    seconds = solution.info["seconds_run"] / method.replicates
    return (solution.replicate_predictions, np.stack([y @ kernel @ y for kernel in kernels], axis=1)), seconds


def distance(one: Sample, other: Sample) -> str:
    """The distances of f and of y K y, relative to the other one, with their noise, in percent."""

    def cell(a: np.ndarray, b: np.ndarray) -> str:
        size, gap = np.linalg.norm(b.mean(axis=0)), np.linalg.norm(a.mean(axis=0) - b.mean(axis=0))
        noise = np.sqrt(sum(np.sum(each.var(axis=0, ddof=1)) / len(each) for each in (a, b)))
        return f"{100 * gap / size:.2f} ({100 * noise / size:.2f})"

    return " | ".join(cell(a, b) for a, b in zip(one, other, strict=True))


def intercepts(samples: dict[int, Sample], truth: Sample) -> str:
    """y K y at N = infinity by straight lines in 1/N: the distance from the truth of each kernel in standard errors."""
    widths = np.array(list(samples), float)
    means = np.stack([kernels.mean(axis=0) for _, kernels in samples.values()])
    errors = np.stack([kernels.std(axis=0, ddof=1) / np.sqrt(len(kernels)) for _, kernels in samples.values()])
    lines, apart = np.stack([np.ones(len(widths)), 1 / widths], axis=1), []
    exact, exact_error = truth[1].mean(axis=0), truth[1].std(axis=0, ddof=1) / np.sqrt(len(truth[1]))
    for number in range(means.shape[1]):
        weighted = lines / errors[:, [number]]
        covariance = np.linalg.inv(weighted.T @ weighted)
        intercept = (covariance @ weighted.T @ (means[:, number] / errors[:, number]))[0]
        apart.append((intercept - exact[number]) / np.hypot(np.sqrt(covariance[0, 0]), exact_error[number]))
    return ", ".join(f"{value:+.1f}" for value in apart)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--widths", nargs="+", type=int, default=[64, 256, 1024])
    parser.add_argument("--seeds", type=int, default=16, help="networks of the widest; narrower ones are more")
    parser.add_argument("--particles", type=int, default=4096)
    parser.add_argument("--replicates", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of independent networks and particles")
    parser.add_argument("--bias", nargs="*", type=int, metavar="S", help="also so many particles, as many in all")
    given = parser.parse_args()
    problem = data()
    print("| network | beside infinite width | f | y K y | s |\n|---|---|---|---|---|", flush=True)
    for name in given.cases:
        blocks, readout, gamma0, eta = CASES[name]
        settings: dict[str, Any] = {"particles": given.particles, "replicates": given.replicates, "kernels": "features"}
        settings["seed"] = 1000 * given.seed
        truth, seconds = infinite(name, problem, given.steps, kf.March(**settings))
        print(f"| {name} | itself | {distance(truth, truth)} | {seconds:.1f} |", flush=True)
        samples: dict[int, Sample] = {}
        for width in given.widths:
            seeds = given.seeds * min(8, max(1, max(given.widths) // width))
            rule = {"eta": eta, "steps": given.steps, "gamma0": gamma0, "readout": readout}
            plain.train(blocks, problem.X, problem.y, width, 1, **rule)  # compiles
            began = time.perf_counter()
            together = max(1, min(8, 2**11 // width))
            first = 1000 * width + 10**7 * given.seed  # one seed at two widths would share some of its numbers
            sizes = {"together": together, "first": first}
            samples[width] = plain.train(blocks, problem.X, problem.y, width, seeds, **sizes, **rule)
            spent = (time.perf_counter() - began) / seeds
            print(f"| | {seeds} of N = {width} | {distance(samples[width], truth)} | {spent:.2f} |", flush=True)
        if len(samples) > 2:
            print(f"| | 1/N, in standard errors | | {intercepts(samples, truth)} | |", flush=True)
        for particles in given.bias or ():
            count = given.particles * given.replicates // particles
            fewer = {**settings, "particles": particles, "replicates": count, "seed": 1000 * given.seed + 500}
            found, seconds = infinite(name, problem, given.steps, kf.March(**fewer))
            print(f"| | {count} x {particles} particles | {distance(found, truth)} | {seconds:.1f} |", flush=True)
        control, _ = infinite(name, problem, given.steps, WithoutResponses(**settings))
        print(f"| | no responses | {distance(control, truth)} | |", flush=True)


if __name__ == "__main__":
    main()
