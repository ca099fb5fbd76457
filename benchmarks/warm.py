"""First minutes: from nothing to the first result, and how often solves compile.

    python benchmarks/warm.py

`kernelfield demo` and `kernelfield solve` on the example of the README, each in a new process, with an empty
compilation cache and with the one that this left behind. Then, in one process with that cache, the wall time of a first
solve (P = 20, two hidden layers, 2,048 particles, four replicates) that earlier processes compiled, and of solves that
differ in gamma0 or in targets alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import kernelfield as kf
from cases import digits
from goals import goal
from processes import alone

EXAMPLE = Path(__file__).parent.parent / "examples" / "digits.toml"
COMMANDS = {"demo": ["demo", "--out", "demo.png"], "solve": ["solve", str(EXAMPLE), "-o", "out.nc"]}
AIMS = {("demo", "first"): 10, ("demo", "second"): 10, ("solve", "first"): 10, ("solve", "second"): 3}  # seconds
FIRST_AIM = 0.5
IMPORTS = {  # of a process, in this order: what each is for
    "jax": "",
    "kernelfield": "with JAX",
    "scipy.stats": "points of Sobol's sequence, for every march",
    "matplotlib.pyplot": "figures",
    "xarray": "files, with pandas",
}
WHY = {
    ("demo", "first"): "compiling takes half of it",
    ("demo", "second"): "imports, tracing, six solves and a figure (see the tables)",
    ("solve", "first"): "",
    ("solve", "second"): "two seconds are imports (see the table), one is tracing and loading programs",
}
FIRST_WHY = "Python traces and lowers two programs before it can look for their compiled form"
SECOND_WHY = "recording the kernels of all steps is two thirds of it"


def run(arguments: list[str], folder: str) -> float:
    """Seconds of a command, with the compilation cache in a folder."""
    command = [sys.executable, "-c", "from kernelfield.cli import main; main()", *arguments, "-q"]
    began = time.perf_counter()
    subprocess.run(command, env={**os.environ, "XDG_CACHE_HOME": folder}, cwd=folder, check=True)
    return time.perf_counter() - began


def import_all() -> list[tuple[str, float]]:
    """Seconds that a new process spends on imports, each after those before."""
    script = "import importlib, sys, time\nfor name in sys.argv[1:]:\n    began = time.perf_counter()\n"
    script += "    importlib.import_module(name)\n    print(name, time.perf_counter() - began)"
    done = subprocess.run([sys.executable, "-c", script, *IMPORTS], capture_output=True, text=True, check=True)
    return [(name, float(seconds)) for name, seconds in map(str.split, done.stdout.splitlines())]


def solve_several(cache: str) -> list[tuple[str, float, float, float]]:
    """Names of solves with their seconds: all, of compilation, of running; programs are kept in a folder."""
    import jax

    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    problem, training = digits(20), kf.GradientDescent(learning_rate=0.15, steps=40)
    flipped = kf.Problem(problem.X, np.roll(problem.y, 3))
    solves = [(f"gamma0 = {gamma0:g}", gamma0, problem) for gamma0 in (0.5, 0.1, 1.0)]
    lines = []
    for name, gamma0, data in [*solves, ("gamma0 = 1, other targets", 1.0, flipped)]:
        network, method = kf.MLP(depth=2, activation="tanh", gamma0=gamma0), kf.March(particles=2048)
        began = time.perf_counter()
        info = kf.solve(network, data, training, method, progress=False).info
        lines.append((name, time.perf_counter() - began, info["seconds_compile"], info["seconds_run"]))
    return lines


def main() -> None:
    """Print markdown tables."""
    print("| command | first s | second s |\n|---|---|---|", flush=True)
    taken = {}
    for name, arguments in COMMANDS.items():
        with tempfile.TemporaryDirectory() as folder:
            taken |= {(name, "first"): run(arguments, folder), (name, "second"): run(arguments, folder)}
        print(f"| kernelfield {name} | {taken[name, 'first']:.1f} | {taken[name, 'second']:.1f} |", flush=True)
    print("\n| import | s | for |\n|---|---|---|")
    for name, seconds in import_all():
        print(f"| {name} | {seconds:.2f} | {IMPORTS[name]} |", flush=True)
    with tempfile.TemporaryDirectory() as cache:
        processes = {
            "nothing compiled before": alone(solve_several, cache),
            "compiled before": alone(solve_several, cache),
        }
    print("\n| process | solve | s | compilation s | running s |\n|---|---|---|---|---|")
    for process, lines in processes.items():
        for name, *seconds in lines:
            print(f"| {process} | {name} | " + " | ".join(f"{each:.2f}" for each in seconds) + " |")
    print()
    for (name, which), seconds in taken.items():
        what = f"Seconds of kernelfield {name}, {which} time"
        print(goal(what, f"<= {AIMS[name, which]}", seconds, WHY[name, which]))
    first, second = (processes["compiled before"][number][1] for number in (0, 1))
    print(goal("Seconds of the first solve of a process, compiled before", f"<= {FIRST_AIM}", first, FIRST_WHY))
    print(goal("Seconds of the second solve of a process", f"<= {FIRST_AIM}", second, SECOND_WHY))


if __name__ == "__main__":
    main()
