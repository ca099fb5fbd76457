"""What an update on a mini-batch costs, against the points P that train and the size of the batch.

    python benchmarks/batches.py

Milliseconds of one of 64 updates of the same network in bases of the same capacity, without compilation and without the
rows of a Solution. Directions that points span fill the bases until `feature_tol` is reached, which is what the last
column shows: more points need larger bases, and so dearer updates, until all that the tolerance resolves is there.
"""

from __future__ import annotations

import itertools
import time

import jax
import numpy as np

import kernelfield as kf
from kernelfield.engine.basis import bases
from kernelfield.march import MarchRun

UPDATES, CAPACITY, REPEATS = 64, 512, 5


def measured(points: int, batch: int) -> tuple[float, int]:
    """Milliseconds of an update, and the largest rank after all of them."""
    X = np.random.default_rng(0).standard_normal((points, 6))
    problem = kf.Problem(X, np.sign(X[:, 0]))
    epochs = -(-UPDATES * batch // points)
    rule = kf.SGD(learning_rate=0.1, batch_size=batch, epochs=epochs)
    march = kf.March(particles=2048, replicates=1, kernels="features", feature_tol=2e-2)
    run, spent = MarchRun(march, kf.MLP(depth=2), problem, rule, []), []
    with jax.enable_x64(True):
        replicate = run._replicate(0, march.particles)
        for _ in range(1 + REPEATS):  # the first one compiles
            replicate.updates, replicate.state = 0, replicate._initial_state(itertools.repeat(CAPACITY))
            began = time.perf_counter()
            replicate._descend(UPDATES)
            spent.append(time.perf_counter() - began)
            assert replicate.updates == UPDATES and not replicate.full
    return 1000 * min(spent[1:]) / UPDATES, max(int(basis.size) for basis in bases(replicate.state))


def main() -> None:
    """Print a table."""
    print("| P | batch | ms of an update | largest rank |\n|---|---|---|---|")
    for points, batch in [*((points, 16) for points in (64, 256, 1024, 4096)), *((1024, each) for each in (4, 64))]:
        spent, rank = measured(points, batch)
        print(f"| {points} | {batch} | {spent:.2f} | {rank} |", flush=True)


if __name__ == "__main__":
    main()
