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

SETTINGS = {
    "gaussian-tanh3": [
        (4096, 1e-4, 1e-3),
        (4096, 1e-4, 3e-4),
        (4096, 3e-5, 1e-4),
        (4096, 1e-5, 3e-5),
        (1024, 1e-5, 3e-5),
    ],
    "gaussian-relu2-rich": [
        (4096, 1e-3, 1e-1),
        (4096, 1e-4, 1e-2),
        (4096, 1e-5, 1e-2),
        (4096, 1e-6, 1e-2),
        (4096, 1e-6, 1e-3),
        (4096, 1e-6, 1e-4),
        (1024, 1e-4, 1e-2),
    ],
}
TRUTH = {"gaussian-tanh3": (1e-6, 3e-6), "gaussian-relu2-rich": (5e-7, 1e-4)}  # the latter in double precision


def samples(case: Case, particles: int, replicates: int, feature_tol: float, gradient_tol: float, seed: int) -> dict:
    """Predictions, loss and final kernels of every replicate, (R, entries)."""
    method = kf.March(
        particles=particles, replicates=replicates, feature_tol=feature_tol, gradient_tol=gradient_tol, seed=seed
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
    parser.add_argument("--cases", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    chosen = parser.parse_args().cases
    print("| case | particles | feature tol | gradient tol | quantity | sd % | bias % | noise % |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for case in coverage_cases():
        if case.name not in chosen:
            continue
        truth = samples(case, 16384, 24, *TRUTH[case.name], seed=10**6)
        for particles, feature_tol, gradient_tol in SETTINGS[case.name]:
            found = samples(case, particles, 48, feature_tol, gradient_tol, seed=7)
            for name, values in found.items():
                true, norm = truth[name], np.linalg.norm(truth[name].mean(axis=0)) / 100
                noise2 = np.sum(values.var(axis=0, ddof=1)) / 48 + np.sum(true.var(axis=0, ddof=1)) / 24
                bias2 = np.sum((values.mean(axis=0) - true.mean(axis=0)) ** 2) - noise2
                figures = np.sqrt([np.sum(values.var(axis=0, ddof=1)), max(0.0, bias2), noise2]) / norm
                numbers = " | ".join(f"{figure:.3f}" for figure in figures)
                print(
                    f"| {case.name} | {particles} | {feature_tol:g} | {gradient_tol:g} | {name} | {numbers} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
