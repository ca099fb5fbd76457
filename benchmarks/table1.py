"""The paper's Table 1, measured: time and memory of every method against P, T, L and N, and ratios at equal error.

    python benchmarks/table1.py               # exponents, then ratios
    python benchmarks/table1.py --ratios      # ratios alone

Every size is solved in a process of its own, which reports the seconds of a second, compiled run and how much its
peak memory grew over what it had before solving. Exponents are slopes of log time and log memory against log size over
the ladder. Equal error: alternating Monte Carlo, the march and ensembles of finite networks on P T = 100 and 400, tanh,
L = 3; the error of alternating Monte Carlo is the rms distance of its mean over replicates from a march with many
particles, and the other two are given the settings that reach it first, as in benchmarks/equal_error.py. Alternating
Monte Carlo takes its responses by derivatives, its default, and by Stein's lemma, which is sooner at the same error.

Where the march is not a thousand times faster: every iteration of derivatives solves for the responses of all P T
values to all others, of Stein's lemma for their correlations, while the march takes T steps. At P T = 100 both are a
matter of seconds; the seconds of P T = 400 in the table say how fast each grows.
"""

from __future__ import annotations

import argparse
import functools
import resource
import time
from typing import Any

import numpy as np

import kernelfield as kf
from cases import Case
from equal_error import ERRORS, FEWEST, least_time, marches, peers, samples, truth_of
from goals import goal
from kernelfield.datasets import gaussian
from processes import alone

BASE = {"P": 8, "T": 24, "L": 3, "N": 512}
LADDERS: dict[str, tuple[Any, str, dict[str, list[int]]]] = {
    "FiniteWidth, 8 seeds": (
        lambda N: kf.FiniteWidth(width=N, seeds=8, kernels="none"),
        "tanh",
        {"N": [512, 1024, 2048], "P": [16, 64, 256], "T": [24, 48, 96], "L": [2, 4, 8]},
    ),
    "StaticNTK": (lambda N: kf.StaticNTK(), "erf", {"P": [100, 200, 400], "T": [24, 96, 384], "L": [2, 4, 8]}),
    "March": (lambda N: kf.March(), "tanh", {"P": [4, 8, 16], "T": [24, 48, 96], "L": [2, 4, 8]}),
    "GradientIndependence": (
        lambda N: kf.GradientIndependence(),
        "tanh",
        {"P": [4, 8, 16], "T": [24, 48, 96], "L": [2, 4, 8]},
    ),
    "Perturbation": (
        lambda N: kf.Perturbation(particles=2048),
        "tanh",
        {"P": [2, 4, 8], "T": [24, 48, 96], "L": [2, 4, 8]},
    ),
    "DeepLinear": (
        lambda N: kf.DeepLinear(),
        "linear",
        {"P": [16, 32, 64], "T": [24, 48, 96], "L": [2, 4, 8]},
    ),
    "AlternatingMonteCarlo": (
        lambda N: kf.AlternatingMonteCarlo(samples=512, replicates=1),
        "tanh",
        {"P": [2, 4, 8], "T": [6, 12, 24], "L": [2, 3, 4]},
    ),
}
SMALL = {"P": 4, "T": 12}  # where alternating Monte Carlo starts from
SIZES = {  # P, T: responses and samples
    (5, 20): [("derivatives", 256), ("derivatives", 1024), ("stein", 256), ("stein", 1024), ("stein", 4096)],
    (10, 40): [("derivatives", 1024), ("stein", 1024)],
}
PARTICLES = (128, 256, 1024, 4096, 8192)  # of the march, which reaches the errors of alternating Monte Carlo with few
AIM = 1000  # times faster than alternating Monte Carlo


def measured(name: str, size: dict[str, int]) -> tuple[float, float]:
    """Seconds of a compiled run, and MiB that the process grew by in both runs."""
    make, activation, _ = LADDERS[name]
    problem = gaussian(size["P"], 2 * size["P"], seed=1)
    network = kf.MLP(depth=size["L"], activation=activation, gamma0=1.0)
    training = kf.GradientDescent(learning_rate=2.4 / (size["T"] * size["L"]), steps=size["T"] - 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        began = time.perf_counter()
        solution = kf.solve(network, problem, training, make(size["N"]), progress=False)
        seconds = time.perf_counter() - began - solution.info.get("seconds_compile", 0.0)
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def exponents(name: str) -> None:
    """Print the ladders of one method, and their slopes."""
    base = {**BASE, **SMALL} if name.startswith("Alternating") else BASE
    for letter, sizes in LADDERS[name][2].items():
        found = [alone(measured, name, {**base, letter: size}) for size in sizes]
        at = ", ".join(map(str, sizes))
        seconds, memory = np.array(found).T
        slopes = [np.polyfit(np.log(sizes), np.log(np.maximum(each, 1e-3)), 1)[0] for each in (seconds, memory)]
        cells = [", ".join(f"{each:.3g}" for each in column) for column in (seconds, memory)]
        print(f"| {name} | {letter} = {at} | {cells[0]} | {slopes[0]:.1f} | {cells[1]} | {slopes[1]:.1f} |", flush=True)


def ratios() -> None:
    """Print seconds of the three methods at the errors that alternating Monte Carlo reaches."""
    goals = []
    for (points, times), settings in SIZES.items():
        case = Case(
            f"P={points}, T={times}",
            kf.MLP(depth=3, activation="tanh", gamma0=1.0),
            gaussian(points, 20, seed=1),
            kf.GradientDescent(learning_rate=6 / times, steps=times - 1),
        )
        solve = functools.partial(kf.solve, case.network, case.problem, case.training)
        truth = truth_of(case)
        march, networks = marches(case, truth, PARTICLES), peers(case, truth)
        found: dict[str, list[float]] = {}
        for responses, count in settings:
            runs = [solve(kf.AlternatingMonteCarlo(samples=count, seed=seed, responses=responses)) for seed in range(3)]
            seconds = float(np.median([run.info["seconds_run"] for run in runs[1:]]))
            for kind in ERRORS:
                gaps = [np.linalg.norm(samples(run)[kind].mean(0) - truth.mean[kind]) for run in runs]
                error = float(np.sqrt(np.mean(np.square(gaps))))
                ours, particles, replicates = least_time(march[kind], error, FEWEST)
                ensemble, width, number = least_time(networks[kind], error)
                percent = 100 * error / truth.norm(kind)
                found.setdefault(responses, []).append(seconds / ours)
                print(
                    f"| {case.name} | {kind} | {percent:.2f} | {responses} | {count} | {seconds:.1f} "
                    f"| {particles} x {replicates} | {ours:.3f} "
                    f"| {seconds / ours:.0f} | {width} x {number} | {ensemble:.2f} | {ensemble / ours:.1f} |",
                    flush=True,
                )
        for responses, each in found.items():
            size = f"P T = {points * times}, median"
            what = f"Time of alternating Monte Carlo ({responses}) over that of the march, {size}"
            goals.append(goal(what, f">= {AIM}", float(np.median(each))))
    print("", *goals, sep="\n")


def main() -> None:
    """Print markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=list(LADDERS), default=list(LADDERS))
    parser.add_argument("--ratios", action="store_true", help="only the ratios at equal error")
    arguments = parser.parse_args()
    if not arguments.ratios:
        print("| method | size | seconds | exponent | MiB | exponent |\n|---|---|---|---|---|---|", flush=True)
        for name in arguments.methods:
            exponents(name)
        print()
    print(
        "| size | quantity | error % | responses | samples x 4 | alternating s | particles x replicates | march s "
        "| ratio | width x networks | ensemble s | ratio |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    ratios()


if __name__ == "__main__":
    main()
