"""Time to the same error: the march against ensembles of finite networks, in one run on one machine.

    python benchmarks/equal_error.py

Both are asked for the same error, and given the settings that reach it first. The mean over M networks of width N has

    error^2 = (bias / N)^2 + variance(N) / M

with the bias fitted over all widths and the variance measured at each; an ensemble's time is the least over widths of
M(N) times the measured seconds of one network, vmapped over seeds. So has the mean over R replicates of a march, at
each of a ladder of particles, with the bias of each measured too: its time is the least over particles of R(S) times
the measured seconds, with two replicates at least, for there to be an error bar. Both run in float32 and record no
kernels; Phi and G are those of the fields of the last step. The truth is a march with many particles and a third of the
tolerance. Compilation is left out. Errors are relative Frobenius norms of
predictions over all steps, and of the final feature and gradient kernels over all layers.

Where the march is not far ahead: where an error of some percent is enough, which a few networks have too; a network of
one hidden layer costs next to nothing; kernels of some networks have hardly any bias. It is far ahead where a small
error asks for wide networks, and where the theory is exact. Half the error costs the march four times the seconds, and
an ensemble that is held up by its bias eight times: twice the width too.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

import kernelfield as kf
from cases import Case, equal_error_cases
from goals import goal
from kernelfield.march.layout import TOL
from processes import alone

PARTICLES = (256, 1024, 4096, 8192, 16384)
WIDTHS = {64: 2048, 128: 1024, 256: 256, 512: 64, 1024: 16, 2048: 4}  # width -> seeds that measure it
TRACKED = {"none": ("f", "Phi", "G")}  # what a march that tracks these kernels is timed for
TRACKED_LINEAR = {"none": ("f",), "all": ("Phi", "G")}  # whose fields are known exactly, but not as samples
ERRORS = {"f": (0.01, 0.003, 0.001), "Phi": (0.01, 0.003), "G": (0.01, 0.003)}
HEADLINE = 0.001
RUNS = 8
FEWEST = 2  # replicates, for an error bar
AT_ONCE = os.cpu_count() or 1  # replicates that march side by side
TRUTH = 60.0  # seconds spent on it
AIM = 150  # times faster, on the median problem
WHY = "networks are cheap on three of six problems: one has one hidden layer, on two narrow ones have little bias"


class Truth(NamedTuple):
    """By kind, flattened, and its own squared error."""

    mean: dict[str, np.ndarray]
    variance: dict[str, float]

    def norm(self, kind: str) -> float:
        """That errors are relative to."""
        return float(np.linalg.norm(self.mean[kind]))


class Peer(NamedTuple):
    """One size: seconds of so many samples at once, variance of a sample, squared bias of their mean."""

    seconds: float
    at_once: int
    variance: float
    bias2: float
    count: int  # that measured it


def samples(solution: kf.Solution) -> dict[str, np.ndarray]:
    """Every replicate's predictions, and final Phi and G of all layers, as far as known, flattened: (R, entries)."""
    network, count = solution.network, len(solution.replicate_predictions)
    found: dict[str, list[Any]] = {"f": [solution.replicate_predictions], "Phi": [], "G": []}
    for layer in range(1, network.depth + 1):
        if solution.keeps("Phi"):
            found["Phi"].append(solution.estimate("feature_kernel", layer).replicates)
            found["G"].append(solution.estimate("gradient_kernel", layer).replicates)
            continue
        fields = solution.field_samples[layer, solution.steps_done]
        rows = {"Phi": np.asarray(network.nonlinearity.phi(fields["h"])), "G": fields.get("g")}
        for kind, each in rows.items():
            if each is not None:
                found[kind].append(np.einsum("rmi,rni->rmn", each, each) / each.shape[-1])
    return {
        kind: np.concatenate([each.reshape(count, -1) for each in parts], axis=1)
        for kind, parts in found.items()
        if parts
    }


def tracked(case: Case) -> dict[str, tuple[str, ...]]:
    """TRACKED of a case."""
    return TRACKED_LINEAR if case.network.is_linear else TRACKED


def peer(values: np.ndarray, truth: Truth, kind: str, seconds: float, at_once: int) -> Peer:
    """From samples (n, entries)."""
    variance = float(np.sum(values.var(axis=0, ddof=1))) if len(values) > 1 else 0.0
    distance = float(np.sum((values.mean(axis=0) - truth.mean[kind]) ** 2))
    return Peer(seconds, at_once, variance, distance - variance / len(values) - truth.variance[kind], len(values))


def marches(case: Case, truth: Truth, sizes: Sequence[int] | None = None) -> dict[str, dict[int, Peer]]:
    """Time, variance and bias of the march by kind and number of particles; too few for the rank are left out."""
    found: dict[str, dict[int, Peer]] = {}
    for kernels, kinds in tracked(case).items():
        ladder = sizes or PARTICLES
        for particles in ladder[-1:] if case.network.is_linear else ladder:
            runs = [
                kf.solve(
                    case.network,
                    case.problem,
                    case.training,
                    kf.March(particles=particles, replicates=AT_ONCE, seed=seed, kernels=kernels),
                    fields_at=[-1],
                    throw=False,
                )
                for seed in range(RUNS + 1)
            ][1:]  # the first one compiles
            if not runs or any(run.status.code != "ok" for run in runs):
                continue
            seconds = float(np.median([run.info["seconds_run"] for run in runs]))
            every = [samples(run) for run in runs]
            print(f"# {case.name}: {particles} particles, kernels {kernels!r}, {seconds:.3f} s", file=sys.stderr)
            for kind in kinds:
                if case.network.is_linear:  # one replicate, exact
                    found.setdefault(kind, {})[particles] = Peer(seconds, FEWEST, 0.0, 0.0, 1)
                    continue
                values = np.concatenate([each[kind] for each in every])
                found.setdefault(kind, {})[particles] = peer(values, truth, kind, seconds, AT_ONCE)
    return found


def peers(case: Case, truth: Truth) -> dict[str, dict[int, Peer]]:
    """Time, variance and bias of finite networks by kind and width; wider ones than were measured are extrapolated.

    Their bias is fitted over all widths, and twice the width takes four times the seconds.
    """
    found: dict[str, dict[int, Peer]] = {kind: {} for kind in ERRORS}
    for width, seeds in WIDTHS.items():
        method = kf.FiniteWidth(width=width, seeds=seeds, kernels="none")
        solution = kf.solve(case.network, case.problem, case.training, method, fields_at=[-1])
        values, seconds = samples(solution), solution.info["seconds_run"] / seeds
        for kind, networks in found.items():
            networks[width] = peer(values[kind], truth, kind, seconds, 1)
        print(f"# {case.name}: width {width}, {seconds:.3f} s a network", file=sys.stderr)
    return {kind: _with_bias(networks) for kind, networks in found.items()}


def _with_bias(networks: dict[int, Peer]) -> dict[int, Peer]:
    """With one bias / N, and widths beyond."""
    weight = np.array([each.count / each.variance for each in networks.values()])
    bias2 = np.array([each.bias2 for each in networks.values()])
    inverse = np.array([width**-2.0 for width in networks])
    bias = max(0.0, float(np.sum(weight**2 * bias2 * inverse) / np.sum(weight**2 * inverse**2)))
    widest = max(networks)
    last = networks[widest]
    beyond = {
        widest * 2**k: last._replace(seconds=last.seconds * 4**k, variance=last.variance / 2**k) for k in range(1, 6)
    }
    return {width: each._replace(bias2=bias / width**2) for width, each in {**networks, **beyond}.items()}


def least_time(sizes: dict[int, Peer], error: float, fewest: int = 1) -> tuple[float, int, int]:
    """Least seconds to reach an error, with the size and the number of samples; infinite if no size does."""
    times = []
    for size, each in sizes.items():
        left = error**2 - max(0.0, each.bias2)
        if left > 0:
            rounds = math.ceil(max(fewest, each.variance / left) / each.at_once)
            times.append((rounds * each.seconds, size, rounds * each.at_once))
    return min(times, default=(math.inf, 0, 0))


def truth_of(case: Case) -> Truth:
    """By marches of many particles and a third of the tolerances: two at least, and more within a minute."""
    finer = {} if case.network.is_linear else {"tol": TOL / 3, "directions": 64}
    mean, variance = {}, {}
    for kernels, kinds in tracked(case).items():
        runs: list[dict[str, np.ndarray]] = []
        began = time.perf_counter()
        while not runs or (not case.network.is_linear and (len(runs) < 2 or time.perf_counter() - began < TRUTH)):
            seed = 10**6 + len(runs)
            method = kf.March(particles=16384, replicates=AT_ONCE, seed=seed, kernels=kernels, **finer)
            runs.append(samples(kf.solve(case.network, case.problem, case.training, method, fields_at=[-1])))
        for kind in kinds:
            values = np.concatenate([run[kind] for run in runs])
            mean[kind] = values.mean(axis=0)
            variance[kind] = float(np.sum(values.var(axis=0, ddof=1))) / len(values) if len(values) > 1 else 0.0
    return Truth(mean, variance)


def compared(name: str) -> dict[str, dict[float, float]]:
    """Print the rows of a case; ratios by kind and error."""
    case = next(case for case in equal_error_cases() if case.name == name)
    truth = truth_of(case)
    networks, march = peers(case, truth), marches(case, truth)
    ratios: dict[str, dict[float, float]] = {kind: {} for kind in ERRORS}
    for kind, errors in ERRORS.items():
        for error in errors:
            size = error * truth.norm(kind)
            ours, particles, replicates = least_time(march[kind], size, FEWEST)
            theirs, width, count = least_time(networks[kind], size)
            ratios[kind][error] = ratio = theirs / ours
            setting = "exact" if case.network.is_linear else f"{particles} x {replicates}"
            print(
                f"| {case.name} | {kind} | {100 * error:g} | {setting} | {ours:.3f} | {width} x {count} "
                f"| {theirs:.1f} | {ratio:.{1 if ratio < 10 else 0}f} |",
                flush=True,
            )
    return ratios


def main() -> None:
    """Print a markdown table, and the medians; every case in a process of its own, whose memory is free again."""
    names = [case.name for case in equal_error_cases()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=names, default=names)
    arguments = parser.parse_args()
    print("| case | quantity | error % | particles x replicates | march s | width x networks | ensemble s | ratio |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    found = [alone(compared, name) for name in arguments.cases]
    medians = {
        kind: {error: float(np.median([each[kind][error] for each in found])) for error in errors}
        for kind, errors in ERRORS.items()
    }
    print("\nMedian ratios:\n")
    for kind, each in medians.items():
        print(f"- {kind}: " + ", ".join(f"{median:.2g} at {100 * error:g} %" for error, median in each.items()))
    what = f"Time of finite ensembles over that of the march, predictions to {100 * HEADLINE:g} %, median problem"
    print("\n" + goal(what, f">= {AIM}", medians["f"][HEADLINE], WHY))


if __name__ == "__main__":
    main()
