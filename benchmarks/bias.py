"""The bias that remains in the march, against particles and tolerances, on common problems.

    python benchmarks/bias.py

The truth is a march with many particles and small tolerances. All numbers are relative to its norm, in percent:
`sd` of one replicate, and the `bias` of the mean over many (the noise of both subtracted in squares; `noise` says
below which bias nothing is seen). In the rows with tail "dense" a matrix of independent Gaussian numbers takes the
place of every tail.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from typing import Any
from unittest import mock

import numpy as np

import kernelfield as kf
from cases import Case, coverage_cases
from kernelfield.engine.tail import Tail
from kernelfield.layers import base

# particles, tol and directions, 0 for as many as usual
SETTINGS = [(4096, 2e-3, 0), (4096, 2e-2, 0), (4096, 1e-3, 64), (1024, 2e-3, 0), (1024, 2e-3, 0, "dense")]
NAMES = [case.name for case in coverage_cases()]
TRUTH = (65536, 1e-3, 64)
RUNS = 48


def dense_tail(
    places: int, particles: int, components: tuple[int, int], block: int, seed: np.random.SeedSequence, dtype: type
) -> Tail:
    """A tail of one block, with independent Gaussian numbers, for particles of one component."""
    core = np.random.default_rng(seed).standard_normal((places, 1, 1, particles, particles)) / np.sqrt(particles)
    signs: Any = np.ones((places, particles), dtype)
    return Tail(core.astype(dtype), signs, signs)


def samples(case: Case, particles: int, replicates: int, tol: float, directions: int, seed: int) -> dict:
    """Predictions, loss and final kernels of every replicate, (R, entries)."""
    method = kf.March(particles=particles, replicates=replicates, tol=tol, directions=directions or None, seed=seed)
    solution = kf.solve(case.network, case.problem, case.training, method, save_at=[-1])
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
    print("| case | particles | tail | tol | directions | quantity | sd % | bias % | noise % |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for case in coverage_cases():
        if case.name not in chosen:
            continue
        truth = samples(case, TRUTH[0], 8, *TRUTH[1:], seed=10**6)
        for particles, tol, directions, *dense in SETTINGS:
            with mock.patch.object(base, "make_tail", dense_tail) if dense else nullcontext():
                found = samples(case, particles, RUNS, tol, directions, seed=7)
            for name, values in found.items():
                true, norm = truth[name], np.linalg.norm(truth[name].mean(axis=0)) / 100
                noise2 = np.sum(values.var(axis=0, ddof=1)) / RUNS + np.sum(true.var(axis=0, ddof=1)) / 8
                bias2 = np.sum((values.mean(axis=0) - true.mean(axis=0)) ** 2) - noise2
                figures = np.sqrt([np.sum(values.var(axis=0, ddof=1)), max(0.0, bias2), noise2]) / norm
                numbers = " | ".join(f"{figure:.3f}" for figure in figures)
                which = f"{particles} | {'dense' if dense else 'fast'} | {tol:g} | {directions or 'usual'}"
                print(f"| {case.name} | {which} | {name} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
