"""How often the truth lies inside the 95 % interval that the march reports.

    python benchmarks/coverage.py [--runs 48]

The truth is a run with sixteen times the particles and a fifth of the tolerance. The march is then solved `runs`
times with default settings and independent seeds; the table gives the part of all entries (loss at every step,
predictions at every step and point, final kernels) for which the reported Student's t interval holds the truth, the
bias that remains (norm of the mean over runs minus the truth, noise of both subtracted in squares) and the standard
error that a run reports, both relative to the norm of the truth.
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.progress import track

import kernelfield as kf
from cases import Case, coverage_cases
from kernelfield import observables


def quantities(solution: kf.Solution) -> dict[str, kf.Estimate]:
    """Loss and predictions at all steps, Phi and G of all layers at the last, observables of the last layer."""
    found = {"loss": solution.estimate("loss"), "f": solution.estimate("predictions")}
    for layer in range(1, solution.network.depth + 1):
        found[f"Phi{layer}"] = solution.estimate("feature_kernel", layer)
        found[f"G{layer}"] = solution.estimate("gradient_kernel", layer)
    depth = solution.network.depth
    found["alignment"] = observables.kernel_alignment(solution, "Phi", depth)
    found["CKA"] = observables.centred_alignment(solution, "Phi", depth)
    found["movement"] = observables.kernel_movement(solution, "Phi", depth)
    found["NTK movement"] = observables.kernel_movement(solution, "NTK")
    found["NTK spectrum"] = observables.ntk_spectrum(solution, -1)
    found["NTK rank"] = observables.effective_rank(solution, "NTK")
    found["kurtosis h"] = observables.excess_kurtosis(solution, depth)
    return found


def table(case: Case, runs: int) -> list[str]:
    """Lines of the table for one case."""
    usual = kf.March()
    many = {"particles": 16 * usual.particles, "replicates": usual.replicates}
    truth = kf.March(**many, tol=1e-3, directions=64, seed=10**6)
    parts = case.network, case.problem, case.training
    true = quantities(kf.solve(*parts, truth, save_at=[0, -1]))
    found = [
        quantities(kf.solve(*parts, kf.March(seed=seed), save_at=[0, -1], progress=False))
        for seed in track(range(runs), case.name)
    ]
    lines = []
    for name, limit in true.items():
        inside = [(low <= limit.mean) & (limit.mean <= high) for low, high in (run[name].interval() for run in found)]
        live = np.broadcast_to(limit.se > 0, limit.mean.shape)  # f(0) = 0 is exact and always inside
        covered = np.mean(np.stack(inside)[:, live])
        means = np.stack([run[name].mean for run in found])
        noise = np.sum(means.var(axis=0, ddof=1)) / runs + np.sum(limit.se**2)
        bias = np.sqrt(max(0.0, np.sum((means.mean(axis=0) - limit.mean) ** 2) - noise))
        reported = np.sqrt(np.mean([np.sum(run[name].se ** 2) for run in found]))
        norm = np.linalg.norm(limit.mean) / 100
        lines.append(f"| {case.name} | {name} | {100 * covered:.1f} | {bias / norm:.3f} | {reported / norm:.3f} |")
    return lines


def main() -> None:
    """Print a markdown table."""
    names = [case.name for case in coverage_cases()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=48)
    parser.add_argument("--cases", nargs="+", choices=names, default=names)
    arguments = parser.parse_args()
    print("| case | quantity | inside % | bias % | reported se % |\n|---|---|---|---|---|", flush=True)
    for case in coverage_cases():
        if case.name in arguments.cases:
            print("\n".join(table(case, arguments.runs)), flush=True)


if __name__ == "__main__":
    main()
