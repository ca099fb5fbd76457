"""Accuracy per second against particles, replicates and tolerances: which settings reach an error first.

    python benchmarks/settings.py

Errors are those of the mean over replicates, relative, bias and variance, as in benchmarks/equal_error.py, from a march
of 16384 particles with a third of the default tolerances. Errors of samples fall as the root of the time spent, so that
time times squared error compares settings: the last column has it for predictions, relative to the default settings, as
the geometric mean over the cases. Tolerances are in units of the default ones. Of the same number of samples fewer
replicates are more accurate, but two have a 95 % interval of 12.7 standard errors to each side and four one of 3.2
(Student's t): four are the default.
"""

from __future__ import annotations

import argparse

import numpy as np

import kernelfield as kf
from cases import Case, accuracy_cases, equal_error_cases
from equal_error import Truth, samples, truth_of

SETTINGS = [(4096, 4, 1.0)]  # particles, replicates, tolerances: the default first
SETTINGS += [(particles, 4, 1.0) for particles in (1024, 2048, 8192)]
SETTINGS += [(4096, 4, factor) for factor in (0.3, 3.0, 10.0, 30.0)]
SETTINGS += [(8192, 2, 1.0), (2048, 8, 1.0), (1024, 16, 1.0)]
NAMES = ("gaussian-P5-tanh3", "digits-P20-tanh3", "digits-relu2-rich")
KINDS = ("f", "Phi")


def error_of(solves: list[np.ndarray], truth: np.ndarray) -> float:
    """The error of a solve's mean over replicates, from those of several solves: (R, entries) each."""
    every = np.concatenate(solves)
    variance = float(np.sum(every.var(axis=0, ddof=1)))
    bias2 = float(np.sum((every.mean(axis=0) - truth) ** 2)) - variance / len(every)
    return float(np.sqrt(max(0.0, bias2) + variance / len(solves[0])))


def measured(
    case: Case, truth: Truth, particles: int, replicates: int, factor: float, runs: int
) -> tuple[float, dict[str, float]]:
    """Median seconds, and relative errors."""
    seconds, found = [], []
    for seed in range(runs + 1):
        method = kf.March(particles=particles, replicates=replicates, tol=factor * kf.March().tol, seed=seed)
        solution = kf.solve(case.network, case.problem, case.training, method, progress=False)
        seconds.append(solution.info["seconds_run"])
        found.append(samples(solution))
    errors = {kind: error_of([each[kind] for each in found], truth.mean[kind]) / truth.norm(kind) for kind in KINDS}
    return float(np.median(seconds[1:])), errors  # the first one compiles


def main() -> None:
    """Print a markdown table and the best settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="seeds of every setting")
    given = parser.parse_args()
    every = {case.name: case for case in [*equal_error_cases(), *accuracy_cases()]}
    cases = [every[name] for name in NAMES]
    truths = [truth_of(case) for case in cases]
    heads = " | ".join(f"{case.name}: f %, Phi %, s" for case in cases)
    print(
        f"| particles x replicates | tolerances | {heads} | time x error^2 |\n{'|---' * (3 + len(cases))}|", flush=True
    )
    default: list[float] = []
    best = (np.inf, "")
    for particles, replicates, factor in SETTINGS:
        found = [
            measured(case, truth, particles, replicates, factor, given.runs)
            for case, truth in zip(cases, truths, strict=True)
        ]
        products = [seconds * errors["f"] ** 2 for seconds, errors in found]
        default = default or products
        relative = float(np.exp(np.mean(np.log(np.array(products) / default))))
        cells = " | ".join(f"{100 * each['f']:.2f}, {100 * each['Phi']:.2f}, {s:.2f}" for s, each in found)
        print(f"| {particles} x {replicates} | {factor:g} | {cells} | {relative:.2f} |", flush=True)
        best = min(best, (relative, f"{particles} x {replicates}, tolerances {factor:g}"))
    print(f"\nBest of these: {best[1]}, at {best[0]:.2f} of the default's time for the same error of predictions.")


if __name__ == "__main__":
    main()
