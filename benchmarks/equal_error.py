"""Time to the same error: the march against ensembles of finite networks, in one run on one machine.

    python benchmarks/equal_error.py

The truth is a march with many particles. The mean over M networks of width N has the error

    error^2 = (bias / N)^2 + variance(N) / M

with the bias fitted over all widths and the variance measured at each. So has the mean over R replicates of a march:
bias^2 + variance / R, from the replicates of five solves at each of a ladder of particles. The ensemble's time for an
error is the least over widths of M(N) times the measured seconds of one network, vmapped over seeds, without recording
kernels. Both run in float32; compilation is left out of both. Errors are relative Frobenius norms of predictions over
all steps, and of the final feature and gradient kernels over all layers. A linear network is solved exactly: ensembles
are asked for an error of 0.1 % there.

Thousands of narrow networks measure the bias: where too few of them leave it unresolved, narrow networks seem to be
as good as wide ones, and cheap. Where the march is not far ahead: a network of one hidden layer costs next to nothing;
gradients of ReLU units span a thousand directions, which the march has to carry; kernels of some networks have hardly
any bias. It is far ahead where a small error asks for wide networks, and where the theory is exact. Half the error
costs the march four times the seconds, and an ensemble that is held up by its bias eight times: twice the width too.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from typing import NamedTuple

import numpy as np

import kernelfield as kf
from cases import Case, equal_error_cases
from goals import goal

PARTICLES = (1024, 4096)
WIDTHS = {64: 4096, 128: 2048, 256: 512, 512: 128, 1024: 32, 2048: 8}  # width -> seeds that measure it
KINDS = ("f", "Phi", "G")
RUNS = 5
TRUTH = 60.0  # seconds spent on it
EXACT = 1e-3  # relative error that ensembles are asked for where the march has none
AIM = 100  # times faster, on the median problem


class Peer(NamedTuple):
    """One width: seconds of a network, variance of a network, squared distance of the mean from the truth."""

    seconds: float
    variance: float
    distance: float
    seeds: int


def samples(solution: kf.Solution) -> dict[str, np.ndarray]:
    """Every replicate's predictions, and final Phi and G of all layers, flattened: (R, entries)."""
    network, count = solution.network, len(solution.replicate_predictions)
    found = {"f": [solution.replicate_predictions], "Phi": [], "G": []}
    for layer in range(1, network.depth + 1):
        if solution.feature_factors:
            found["Phi"].append(solution.estimate("feature_kernel", layer).replicates)
            found["G"].append(solution.estimate("gradient_kernel", layer).replicates)
        else:
            fields = solution.field_samples[layer, solution.steps_done]
            for kind, rows in (("Phi", np.asarray(network.nonlinearity.phi(fields["h"]))), ("G", fields["g"])):
                found[kind].append(np.einsum("rmi,rni->rmn", rows, rows) / rows.shape[-1])
    return {kind: np.concatenate([each.reshape(count, -1) for each in found[kind]], axis=1) for kind in KINDS}


def error_of(solves: list[np.ndarray], truth: np.ndarray) -> float:
    """The error of a solve's mean over replicates, from those of several solves: (R, entries) each."""
    every = np.concatenate(solves)
    variance = float(np.sum(every.var(axis=0, ddof=1)))
    bias2 = float(np.sum((every.mean(axis=0) - truth) ** 2)) - variance / len(every)
    return float(np.sqrt(max(0.0, bias2) + variance / len(solves[0])))


def march_errors(
    case: Case, truth: dict[str, np.ndarray], sizes: tuple[int, ...] = PARTICLES
) -> list[tuple[float, dict[str, float], int]]:
    """Seconds and errors of the march (of its mean over replicates) at every number of particles.

    Particles too few for the rank are left out.
    """
    ladder = []
    for particles in sizes[-1:] if case.network.is_linear else sizes:
        runs = [
            kf.solve(case.network, case.problem, case.training, kf.March(particles=particles, seed=seed), throw=False)
            for seed in range(RUNS + 1)
        ][1:]  # the first one compiles
        if any(run.status.code != "ok" for run in runs):
            continue
        seconds = float(np.median([run.info["seconds_run"] for run in runs]))
        found = [samples(run) for run in runs]
        errors = {kind: error_of([each[kind] for each in found], truth[kind]) for kind in KINDS}
        if case.network.is_linear:
            errors = {kind: max(each, EXACT * float(np.linalg.norm(truth[kind]))) for kind, each in errors.items()}
        ladder.append((seconds, errors, particles))
    return ladder


def peers(case: Case, truth: dict[str, np.ndarray]) -> dict[int, dict[str, Peer]]:
    """Time, variance and bias of finite networks at every width."""
    found = {}
    for width, seeds in WIDTHS.items():
        method = kf.FiniteWidth(width=width, seeds=seeds, kernels="none")
        for _ in range(2):  # the first one compiles
            solution = kf.solve(case.network, case.problem, case.training, method, fields_at=[-1])
        values, seconds = samples(solution), solution.info["seconds_run"] / seeds
        found[width] = {
            kind: Peer(
                seconds,
                float(np.sum(values[kind].var(axis=0, ddof=1))),
                float(np.sum((values[kind].mean(axis=0) - truth[kind]) ** 2)),
                seeds,
            )
            for kind in KINDS
        }
        print(f"# {case.name}: width {width}, {seconds:.3f} s a network", file=sys.stderr)
    return found


def ensemble_time(networks: dict[int, dict[str, Peer]], kind: str, error: float) -> tuple[float, int, int]:
    """Least seconds for an ensemble to reach an error, with its width and number of networks.

    Widths beyond the measured ones are allowed at four times the seconds for twice the width.
    """
    each = {width: measured[kind] for width, measured in networks.items()}
    bias2 = np.array([peer.distance - peer.variance / peer.seeds for peer in each.values()])
    weight = np.array([peer.seeds / peer.variance for peer in each.values()])
    inverse = np.array([width**-2.0 for width in each])
    bias = max(0.0, float(np.sum(weight**2 * bias2 * inverse) / np.sum(weight**2 * inverse**2)))
    widest = max(each)
    options = {width: (peer.seconds, peer.variance) for width, peer in each.items()}
    options |= {widest * 2**k: (each[widest].seconds * 4**k, each[widest].variance / 2**k) for k in range(1, 6)}
    times = []
    for width, (seconds, variance) in options.items():
        left = error**2 - bias / width**2
        if left > 0:
            networks_needed = max(1, int(np.ceil(variance / left)))
            times.append((seconds * networks_needed, width, networks_needed))
    return min(times)


def truth_of(case: Case) -> dict[str, np.ndarray]:
    """By marches of four times the particles, a third of the tolerances: two at least, and more within a minute."""
    solve = functools.partial(kf.solve, case.network, case.problem, case.training)
    if case.network.is_linear:
        return {kind: each.mean(axis=0) for kind, each in samples(solve(kf.March())).items()}
    feature_tol, gradient_tol = kf.March().tolerances(case.network)
    tolerances = {"feature_tol": feature_tol / 3, "gradient_tol": gradient_tol / 3}
    runs: list[dict[str, np.ndarray]] = []
    began = time.perf_counter()
    while len(runs) < 2 or time.perf_counter() - began < TRUTH:
        runs.append(samples(solve(kf.March(particles=16384, seed=10**6 + len(runs), **tolerances))))
    return {kind: np.concatenate([run[kind] for run in runs]).mean(axis=0) for kind in KINDS}


def rows(case: Case) -> list[tuple[str, float, int, float, str, float]]:
    """Quantity, error in percent, particles and seconds of the march, ensemble and its seconds."""
    truth = truth_of(case)
    networks, found = peers(case, truth), []
    for seconds, errors, particles in march_errors(case, truth):
        for kind in KINDS:
            theirs, width, count = ensemble_time(networks, kind, errors[kind])
            percent = 100 * errors[kind] / np.linalg.norm(truth[kind])
            found.append((kind, float(percent), particles, seconds, f"{width} x {count}", theirs))
    return found


def main() -> None:
    """Print a markdown table, and the medians."""
    names = [case.name for case in equal_error_cases()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=names, default=names)
    arguments = parser.parse_args()
    print("| case | quantity | error % | particles x 4 | march s | width x networks | ensemble s | ratio |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    ratios: dict[int, dict[str, list[float]]] = {particles: {kind: [] for kind in KINDS} for particles in PARTICLES}
    for case in equal_error_cases():
        if case.name not in arguments.cases:
            continue
        found = rows(case)
        for kind, percent, particles, ours, ensemble, theirs in found:
            name = "exact" if case.network.is_linear else particles
            print(
                f"| {case.name} | {kind} | {percent:.2f} | {name} | {ours:.3f} | {ensemble} | {theirs:.1f} "
                f"| {theirs / ours:.{1 if theirs < 10 * ours else 0}f} |",
                flush=True,
            )
            for size in PARTICLES if case.network.is_linear else [particles]:  # exact with any number
                ratios[size][kind].append(theirs / ours)
    print("\nMedian ratios:\n")
    for size, each in ratios.items():
        print(f"- {size} particles: " + ", ".join(f"{kind} {np.median(values):.2g}" for kind, values in each.items()))
    what = "Time of finite ensembles over that of the march, predictions, median problem"
    print("\n" + goal(what, f">= {AIM}", float(np.median(ratios[PARTICLES[-1]]["f"]))))


if __name__ == "__main__":
    main()
