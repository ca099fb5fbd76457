"""Two versions of the library in one run, taking turns: seconds of the march and what it found.

    git worktree add /tmp/before COMMIT
    python benchmarks/before_after.py --before /tmp/before --rounds 3

Each run is a process of its own; seconds leave compilation out. Losses and ranks of both versions must be alike.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

NETWORKS = {
    "tanh L=3 P=10": ("tanh", 3, 10, 40),
    "tanh L=3 P=20": ("tanh", 3, 20, 40),
    "relu L=2 P=20": ("relu", 2, 20, 40),
    "linear L=3 P=20": ("linear", 3, 20, 40),
    "tanh L=2 P=60": ("tanh", 2, 60, 20),
}
AFTER = Path(__file__).parents[1]


def run(name: str) -> dict[str, Any]:
    """Solve one of the networks on digits with the version that Python finds."""
    import kernelfield as kf
    from cases import digits

    activation, depth, points, steps = NETWORKS[name]
    network = kf.MLP(depth=depth, activation=activation, gamma0=1.0)
    training = kf.GradientDescent(learning_rate=0.15, steps=steps)
    solution = kf.solve(network, digits(points), training, kf.March(), progress=False)
    return {
        "seconds": solution.info["seconds_run"],
        "loss": float(solution.loss[-1]),
        "se": float(solution.estimate("loss").se[-1]),
        "ranks": sum(solution.info["feature_ranks"]) + sum(solution.info["gradient_ranks"]),
    }


def elsewhere(version: Path, name: str) -> dict[str, Any]:
    """`run` in a process that takes the library from a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(version / "src")}
    command = [sys.executable, __file__, "--run", name]
    return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="checkout of the older version")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", choices=NETWORKS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        print(json.dumps(run(given.run)))
        return
    if given.before is None or not (given.before / "src" / "kernelfield").is_dir():
        parser.error("--before must be a checkout of kernelfield")
    print("| network | before s | after s | ratio | loss before | loss after | ranks |\n|---|---|---|---|---|---|---|")
    for name in NETWORKS:
        turns = [(elsewhere(given.before, name), elsewhere(AFTER, name)) for _ in range(given.rounds)]
        before, after = (min(each["seconds"] for each in version) for version in zip(*turns, strict=True))
        ratio = np.median([new["seconds"] / old["seconds"] for old, new in turns])
        losses = " | ".join(f"{each['loss']:.6f} ({each['se']:.1g})" for each in turns[0])
        ranks = ", ".join(str(each["ranks"]) for each in turns[0])
        print(f"| {name} | {before:.2f} | {after:.2f} | {ratio:.2f} | {losses} | {ranks} |", flush=True)


if __name__ == "__main__":
    main()
