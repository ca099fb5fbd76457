"""The bias that remains in the march, against particles and tolerances, on common problems.

    python benchmarks/bias.py

The truth is a march with many particles and small tolerances. All numbers are relative to its norm, in percent:
`sd` of one replicate, and the `bias` of the mean over many (the noise of both subtracted in squares; `noise` says
below which bias nothing is seen).
"""

from __future__ import annotations

import argparse

import numpy as np

import kernelfield as kf
from cases import Case, coverage_cases

# particles, tol and directions, 0 for as many as usual
SETTINGS = [(4096, 5e-3, 0), (4096, 5e-2, 0), (4096, 1e-3, 64), (1024, 5e-3, 0)]
NAMES = [case.name for case in coverage_cases()]
TRUTH = (65536, 1e-3, 64)


def samples(case: Case, particles: int, replicates: int, tol: float, directions: int, seed: int) -> dict:
    """Predictions, loss and final kernels of every replicate, (R, entries)."""
    method = kf.March(
        particles=particles, replicates=replicates, tol=tol, directions=directions or None, seed=seed, save_at=[-1]
    )
    solution = kf.solve(case.network, case.problem, case.training, method)
    depth = range(1, case.network.depth + 1)
    found = {
        "f": solution.replicate_predictions,
        "loss": solution.estimate("loss").replicates,
        "Phi": np.stack([solution.estimate("feature_kernel", layer).replicates for layer in depth], axis=1),
        "G": np.stack([solution.estimate("gradient_kernel", layer).replicates for layer in depth], axis=1),
    }
    return {name: each.reshape(replicates, -1) for name, each in found.items()}


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=NAMES, default=NAMES)
    chosen = parser.parse_args().cases
    print("| case | particles | tol | directions | quantity | sd % | bias % | noise % |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for case in coverage_cases():
        if case.name not in chosen:
            continue
        truth = samples(case, TRUTH[0], 8, *TRUTH[1:], seed=10**6)
        for particles, tol, directions in SETTINGS:
            found = samples(case, particles, 48, tol, directions, seed=7)
            for name, values in found.items():
                true, norm = truth[name], np.linalg.norm(truth[name].mean(axis=0)) / 100
                noise2 = np.sum(values.var(axis=0, ddof=1)) / 48 + np.sum(true.var(axis=0, ddof=1)) / 8
                bias2 = np.sum((values.mean(axis=0) - true.mean(axis=0)) ** 2) - noise2
                figures = np.sqrt([np.sum(values.var(axis=0, ddof=1)), max(0.0, bias2), noise2]) / norm
                numbers = " | ".join(f"{figure:.3f}" for figure in figures)
                print(
                    f"| {case.name} | {particles} | {tol:g} | {directions or 'usual'} | {name} | {numbers} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
