"""Networks of finite width by conditioning, and the coefficients of 1 / N, beside explicit networks.

    python benchmarks/finite_width.py distributions     # 2,000 networks of N = 32 and 64, both ways
    python benchmarks/finite_width.py widths            # N = 2^8 ... 2^18, and the march
    python benchmarks/finite_width.py corrections       # variances and biases, beside ensembles of N = 64 ... 1024
    python benchmarks/finite_width.py coverage          # of the error bars of both

Two problems: tanh, L = 3, P = 5, and relu, L = 2, P = 8, on Gaussian inputs. Kernels are measured by their alignments
with the targets, y K y / |y|^2, after training.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, cast

import numpy as np

import kernelfield as kf

CASES = {"tanh": (3, 5), "relu": (2, 8)}  # hidden layers and points
ENSEMBLES = {64: 4096, 128: 2048, 256: 1024, 512: 512, 1024: 256}  # seeds by width
CONDITIONED = {"tanh": range(8, 19), "relu": range(8, 17)}  # exponents of widths


def describe(case: str, steps: int = 20) -> tuple[kf.MLP, kf.Problem, kf.GradientDescent]:
    """Network, problem and training."""
    depth, points = CASES[case]
    X = np.random.default_rng(1).standard_normal((20, points)).T
    y = np.where(np.arange(points) < points / 2, 1.0, -1.0)
    network = kf.MLP(depth=depth, activation=case, gamma0=1.0)
    return network, kf.Problem(X, y), kf.GradientDescent(learning_rate=0.3, steps=steps)


def solve(case: str, method: Any, steps: int = 20) -> kf.Solution:
    """The solution, with kernels of the last step."""
    return kf.solve(*describe(case, steps), method, save_at=(-1,), fields_at=())


def measure(solution: kf.Solution) -> np.ndarray:
    """f after training and the alignments of all kernels, (R, Q)."""
    y = solution.problem.y
    found = [solution.replicate_predictions[:, -1].astype(float)]
    for symbol in ("Phi", "G", "NTK"):
        for layer in solution.hidden(symbol) if symbol != "NTK" else [None]:
            kernel = solution.kernel_estimate(cast(Any, symbol), layer).replicates
            found.append((y @ kernel @ y / (y @ y))[:, None])
    return np.concatenate(found, axis=1)


def names(case: str) -> list[str]:
    """Of what `measure` finds."""
    depth, points = CASES[case]
    kernels = [f"{symbol} {layer}" for symbol in ("Phi", "G") for layer in range(1, depth + 1)]
    return [*(f"f {point}" for point in range(points)), *kernels, "NTK"]


def distributions(cases: list[str], seeds: int, sizes: list[int]) -> None:
    """Print how far means, variances and covariances of both kinds of networks are apart, in standard errors."""
    print("| network | N | means | variances | covariances | largest of how many |\n|---|---|---|---|---|---|")
    for case in cases:
        for width in sizes:
            found = [
                measure(solve(case, kf.FiniteWidth(width=width, seeds=seeds, algorithm=algorithm, precision="float64")))
                for algorithm in ("explicit", "conditioned")
            ]
            scores = [_compare(*found, moment) for moment in range(3)]
            rms = [f"{np.sqrt(np.mean(score**2)):.2f} (largest {np.abs(score).max():.1f})" for score in scores]
            print(f"| {case} | {width} | {' | '.join(rms)} | {sum(score.size for score in scores)} |", flush=True)


def _compare(one: np.ndarray, other: np.ndarray, moment: int) -> np.ndarray:
    """Differences of a moment in units of their standard errors: 0 means, 1 variances, 2 covariances."""
    parts = []
    for x in (one, other):
        rest = x - x.mean(axis=0)
        upper = np.triu_indices(x.shape[1], 1)
        parts.append([x, rest**2, rest[:, upper[0]] * rest[:, upper[1]]][moment])
    errors = sum(part.var(axis=0, ddof=1) / len(part) for part in parts)
    return (parts[0].mean(axis=0) - parts[1].mean(axis=0)) / np.sqrt(errors)


def widths(case: str, largest: int, seeds: int, neurons: int) -> None:
    """Print distances from infinite width of networks of growing width, and of the mean of all wide ones."""
    march = solve(case, kf.March(particles=16384, replicates=16), steps=40)
    f = march.estimate("predictions")
    size, last = np.sqrt(np.mean(f.mean[-1] ** 2)), []
    print(f"march: its own error {np.sqrt(np.mean(f.se[-1] ** 2)) / size:.1e}")
    print("| N | rms distance of f | seconds of a network | directions | explicit seconds |\n|---|---|---|---|---|")
    for exponent in CONDITIONED[case]:
        width = 2**exponent
        many = max(2, min(seeds, neurons // width))
        if width > largest:
            break
        method = kf.FiniteWidth(width=width, seeds=many, algorithm="conditioned", kernels="none")
        solution = kf.solve(*describe(case, 40), method, fields_at=())
        off = solution.replicate_predictions[:, -1] - f.mean[-1]
        explicit = "-"
        if width <= 2048:
            networks = kf.FiniteWidth(width=width, seeds=4, algorithm="explicit", kernels="none")
            explicit = f"{kf.solve(*describe(case, 40), networks, fields_at=()).info['seconds_run'] / 4:.2f}"
        ranks = max(solution.info["feature_ranks"] + solution.info["gradient_ranks"])
        seconds = solution.info["seconds_run"] / many
        print(
            f"| 2^{exponent} | {np.sqrt(np.mean(off**2)) / size:.5f} | {seconds:.2f} | {ranks} | {explicit} |",
            flush=True,
        )
        last += [(width, row) for row in off] if width >= 4096 else []
    weights = np.array([width for width, _ in last], float)
    pooled = np.average([row for _, row in last], axis=0, weights=weights)
    spread = np.sqrt(np.mean([width * np.mean(row**2) for width, row in last]) / weights.sum())
    expected = np.hypot(spread, np.sqrt(np.mean(f.se[-1] ** 2))) / size
    print(f"pooled, {weights.sum():.3g} neurons: {np.sqrt(np.mean(pooled**2)) / size:.1e}, expected {expected:.1e}")


def corrections(case: str) -> None:
    """Print coefficients of 1 / N beside those of ensembles, and what both cost."""
    began = time.perf_counter()
    found = kf.finite_width_corrections(*describe(case))
    seconds = time.perf_counter() - began
    every = [
        (each.infinite.mean[..., None].reshape(-1), each.bias, each.variance)
        for each in (found.predictions, *found.kernels.values())
    ]
    infinite = np.concatenate([values for values, _, _ in every])
    bias, bias_se, variance, variance_se = (
        np.concatenate([np.reshape(getattr(each[place], part), -1) for each in every])
        for place, part in ((1, "mean"), (1, "se"), (2, "mean"), (2, "se"))
    )
    march = measure(solve(case, kf.March(particles=16384, replicates=8)))
    infinite, infinite_se = march.mean(axis=0), march.std(axis=0, ddof=1) / np.sqrt(len(march))
    print(f"corrections: {seconds:.0f} s, by {found.found_by}")
    print("| N | networks | seconds | variance of f, ratio | bias, rms z | b of f | its error |\n|" + "---|" * 7)
    points = CASES[case][1]
    for width, seeds in ENSEMBLES.items():
        method = kf.FiniteWidth(width=width, seeds=seeds, algorithm="explicit")
        began = time.perf_counter()
        results = measure(solve(case, method))
        took = time.perf_counter() - began
        there = width * results.var(axis=0, ddof=1)
        b, b_se = (
            width * (results.mean(axis=0) - infinite),
            width * np.hypot(results.std(axis=0) / np.sqrt(seeds), infinite_se),
        )
        ratio = variance[:points].mean() / there[:points].mean()
        ratio_se = np.hypot(variance_se[:points].mean() / variance[:points].mean(), np.sqrt(2 / seeds / points))
        z = (bias - b) / np.hypot(bias_se, b_se)
        values = " ".join(f"{value:.2f}" for value in b[:points])
        cells = f"{ratio:.3f} ({ratio_se:.3f})", f"{np.sqrt(np.mean(z**2)):.2f}", values
        error = np.sqrt(np.mean(b_se[:points] ** 2))
        print(f"| {width} | {seeds} | {took:.0f} | {' | '.join(cells)} | {error:.2f} |", flush=True)
        print(
            "|  | | | kernels: "
            + " ".join(
                f"{name} {value:.3f}"
                for name, value in zip(names(case)[points:], (variance / there)[points:], strict=True)
            )
            + " | | | |"
        )
    for name, *values in zip(names(case), bias, bias_se, variance, variance_se, strict=True):
        print("{}: b {:.3f} ({:.3f}), N Var {:.4f} ({:.4f})".format(name, *values))


def coverage(repeats: int) -> None:
    """Print how often 95 % intervals contain what a large computation finds, of a network of one hidden layer."""
    network, problem, training = describe("tanh", 10)
    network = kf.MLP(depth=1, activation="tanh", gamma0=network.gamma0)
    found = kf.finite_width_corrections(network, problem, training, pairs=1024, networks=64)
    every = [found.predictions, *found.kernels.values()]
    truth = [
        np.concatenate([np.reshape(getattr(each, part).mean, -1) for each in every]) for part in ("bias", "variance")
    ]
    inside = []
    for repeat in range(repeats):
        again = kf.finite_width_corrections(network, problem, training, pairs=16, networks=4, seed=2000 * (repeat + 1))
        rows = [(again.predictions.bias, again.predictions.variance)]
        rows += [(each.bias, each.variance) for each in again.kernels.values()]
        low_high = [
            [np.concatenate([np.reshape(row[part].interval()[end], -1) for row in rows]) for end in (0, 1)]
            for part in (0, 1)
        ]
        inside.append([(low <= of) & (of <= high) for (low, high), of in zip(low_high, truth, strict=True)])
    if inside:
        shares = np.mean(inside, axis=(0, 2))
        parts = " and ".join(
            f"{share:.3f} of {name}" for share, name in zip(shares, ("biases", "variances"), strict=True)
        )
        print(f"95 % intervals of {repeats} smaller computations contain {parts}")


def main() -> None:
    """Parse the command line and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("distributions", "widths", "corrections", "coverage"))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", type=int, default=2000, help="of distributions; and at most of a width")
    parser.add_argument("--largest", type=int, default=2**18, help="width")
    parser.add_argument("--widths", nargs="+", type=int, default=[32, 64], help="of distributions")
    parser.add_argument("--neurons", type=int, default=2**16, help="of all networks of a width, about")
    parser.add_argument("--repeats", type=int, default=32, help="smaller computations, for the coverage")
    given = parser.parse_args()
    if given.part == "distributions":
        distributions(given.cases, given.seeds, given.widths)
    if given.part == "coverage":
        coverage(given.repeats)
    for case in given.cases if given.part in ("widths", "corrections") else []:
        print(f"\n{case}, L = {CASES[case][0]}, P = {CASES[case][1]}\n")
        if given.part == "widths":
            widths(case, given.largest, min(given.seeds, 64), given.neurons)
        else:
            corrections(case)


if __name__ == "__main__":
    main()
