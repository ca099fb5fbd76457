"""From nothing to the first result, and how often a sweep compiles.

    python benchmarks/warm.py

`kernelfield solve` on the example of the README in a new process, with an empty compilation cache and with the one that
this left behind; then solves that differ in gamma0 or in targets alone, one after the other in one process.
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

EXAMPLE = Path(__file__).parent.parent / "examples" / "digits.toml"
AIM = 10  # seconds


def first_result(folder: Path) -> float:
    """Seconds of the command, with the compilation cache in a folder."""
    program = "from kernelfield.cli import main; main()"
    command = [sys.executable, "-c", program, "solve", str(EXAMPLE), "-o", str(folder / "out.nc"), "-q"]
    began = time.perf_counter()
    subprocess.run(command, env={**os.environ, "XDG_CACHE_HOME": str(folder)}, check=True)
    return time.perf_counter() - began


def main() -> None:
    """Print markdown tables."""
    with tempfile.TemporaryDirectory() as folder:
        cold, again = first_result(Path(folder)), first_result(Path(folder))
    print(f"| process | s |\n|---|---|\n| first | {cold:.1f} |\n| second | {again:.1f} |\n", flush=True)
    print("| solve | compilation s | running s |\n|---|---|---|")
    problem, training = digits(10), kf.GradientDescent(learning_rate=0.15, steps=40)
    flipped = kf.Problem(problem.X, np.roll(problem.y, 3))
    solves = [(f"gamma0 = {gamma0:g}", gamma0, problem) for gamma0 in (0.5, 0.1, 0.3, 1.0)]
    for name, gamma0, data in [*solves, ("gamma0 = 1, other targets", 1.0, flipped)]:
        network = kf.MLP(depth=2, activation="tanh", gamma0=gamma0)
        info = kf.solve(network, data, training, progress=False).info
        print(f"| {name} | {info['seconds_compile']:.2f} | {info['seconds_run']:.2f} |", flush=True)
    print("\n" + goal("Seconds to the first result in a cold process", f"<= {AIM}", cold))
    print(goal("Seconds to the first result, compiled before", f"<= {AIM}", again))


if __name__ == "__main__":
    main()
