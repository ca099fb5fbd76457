"""Two versions of the library in one run, taking turns: seconds of a dozen solves, and whether results are the same.

    git worktree add /tmp/before COMMIT
    python benchmarks/before_after.py --before /tmp/before --rounds 3

Each run is a process of its own; seconds leave compilation out. The last column says whether predictions, kernels and
the tangent kernel of both versions are the same bits; if not, how far predictions are apart, relative to their norm.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

AFTER = Path(__file__).parents[1]


def runs() -> dict[str, Callable[[], tuple]]:
    """Network, problem, training and method by name."""
    import kernelfield as kf
    from kernelfield.datasets import digits

    rng = np.random.default_rng(0)
    rule = kf.GradientDescent(learning_rate=0.15, steps=40)
    march, images = kf.March(), kf.Problem(rng.standard_normal((4, 4, 4, 1)), [1.0, -0.7, 0.9, -1.1])
    classes = kf.Problem(rng.standard_normal((24, 6)), np.arange(24) % 3, loss="cross_entropy")
    batches = kf.SGD(learning_rate=0.3, batch_size=8, epochs=6, momentum=0.5, weight_decay=0.01)

    def mlp(activation: str, depth: int) -> kf.MLP:
        return kf.MLP(depth=depth, activation=activation, gamma0=1.0)

    return {
        "tanh L=3 P=10": lambda: (mlp("tanh", 3), digits(points=10), rule, march),
        "tanh L=3 P=20": lambda: (mlp("tanh", 3), digits(points=20), rule, march),
        "relu L=2 P=20": lambda: (mlp("relu", 2), digits(points=20), rule, march),
        "linear L=3 P=20": lambda: (mlp("linear", 3), digits(points=20), rule, march),
        "tanh L=2 P=60": lambda: (mlp("tanh", 2), digits(points=60), rule, march),
        "CNN": lambda: (kf.CNN(depth=2), images, rule, march),
        "ResNet with batches, three classes": lambda: (kf.ResNet(depth=3), classes, batches, march),
        "gradient flow": lambda: (mlp("tanh", 2), digits(points=10), kf.GradientFlow(time=5.0, steps=10), march),
        "static NTK": lambda: (mlp("relu", 3), digits(points=20), rule, kf.StaticNTK()),
        "deep linear": lambda: (mlp("linear", 3), digits(points=10), rule, kf.DeepLinear()),
        "gradient independence": lambda: (mlp("tanh", 2), digits(points=10), rule, kf.GradientIndependence()),
        "perturbation": lambda: (mlp("tanh", 2), digits(points=10), rule, kf.Perturbation()),
        "finite width": lambda: (mlp("tanh", 2), digits(points=10), rule, kf.FiniteWidth(width=64, seeds=4)),
    }


def solve(name: str) -> dict[str, Any]:
    """One of the runs, with the version of the library that Python finds."""
    import kernelfield as kf

    solution = kf.solve(*runs()[name](), progress=False)
    digest = hashlib.sha256(np.ascontiguousarray(solution.replicate_predictions))
    depth = solution.network.hidden_layers
    for layer in range(1, depth + 1):
        digest.update(np.ascontiguousarray(solution.feature_kernel(layer)))
    if solution.problem.y.ndim == 1:
        digest.update(np.ascontiguousarray(solution.ntk()))
    seconds = solution.info.get("seconds_run", 0.0)
    return {"seconds": seconds, "f": solution.predictions.ravel().tolist(), "digest": digest.hexdigest()}


def elsewhere(version: Path, name: str) -> dict[str, Any]:
    """`solve` in a process that takes the library from a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(version / "src")}
    command = [sys.executable, __file__, "--run", name]
    return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="checkout of the older version")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        print(json.dumps(solve(given.run)))
        return
    if given.before is None or not (given.before / "src" / "kernelfield").is_dir():
        parser.error("--before must be a checkout of kernelfield")
    print("| run | before s | after s | ratio | the same bits |\n|---|---|---|---|---|")
    for name in runs():
        turns = [(elsewhere(given.before, name), elsewhere(AFTER, name)) for _ in range(given.rounds)]
        before, after = (min(turn["seconds"] for turn in version) for version in zip(*turns, strict=True))
        ratio = np.median([new["seconds"] / max(old["seconds"], 1e-9) for old, new in turns])
        old, new = turns[0]
        apart = np.linalg.norm(np.subtract(new["f"], old["f"])) / np.linalg.norm(old["f"])
        same = "yes" if old["digest"] == new["digest"] else f"{apart:.1e} apart"
        print(f"| {name} | {before:.2f} | {after:.2f} | {ratio:.2f} | {same} |", flush=True)


if __name__ == "__main__":
    main()
