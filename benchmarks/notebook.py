"""Time to the same error: the march against the notebook of the paper's authors.

    python benchmarks/notebook.py

The notebook, github.com/Pehlevan-Group/dmft_wide_networks, is downloaded once. Its functions run as they are, with
their own settings: alternating Monte Carlo on 1000 samples, 15 iterations, responses by derivatives. Its seed is fixed,
so that its error is that of one run; it begins with one iteration that compiles. The march is given the settings that
reach that error first, as in benchmarks/equal_error.py. The problem has P T = 100, three hidden layers of tanh,
gamma0 = 1. Errors are relative Frobenius norms of predictions over all steps, and of the final kernels over all layers.
"""

from __future__ import annotations

import ast
import json
import sys
import time
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import fetch_file

import kernelfield as kf
from cases import Case
from equal_error import ERRORS, FEWEST, least_time, marches, truth_of
from goals import goal
from kernelfield.datasets import gaussian
from table1 import PARTICLES

COMMIT = "d194b41c1f19753c4115237e384e4459cafb77fa"
SOURCE = f"https://raw.githubusercontent.com/Pehlevan-Group/dmft_wide_networks/{COMMIT}/deep_nonlinear_DMFT.ipynb"
POINTS, TIMES, DEPTH, RATE = 5, 20, 3, 0.3
AIM = 1000  # times faster


def functions(notebook: str) -> dict[str, Any]:
    """The functions that a notebook defines, which plot nothing, say nothing, and find P and T as they expect."""
    cells = json.loads(notebook)["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    trees = [ast.parse(source) for source in sources if "def DMFT_Theory_Cross_Term" in source]
    defined = [node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)]
    silent = types.SimpleNamespace(plot=lambda *_, **__: None, show=lambda: None)
    quiet = types.SimpleNamespace(stdout=types.SimpleNamespace(write=lambda text: None))
    found = {"jnp": jnp, "np": np, "random": jax.random, "plt": silent, "sys": quiet, "P": POINTS, "T": TIMES}
    exec(compile(ast.Module(defined, []), "notebook", "exec"), found)
    return found


def solved(peer: dict[str, Any], problem: kf.Problem) -> tuple[dict[str, np.ndarray], float]:
    """Predictions and final kernels as `samples` has them, and seconds."""
    K, y = jnp.asarray(problem.input_kernel, jnp.float32), jnp.asarray(problem.y, jnp.float32)
    settings = {"depth": DEPTH, "T": TIMES, "eta": RATE, "gamma": 1.0, "nonlin": "tanh"}
    peer["DMFT_Theory_Cross_Term"](K, y, num_iter=1, **settings)
    began = time.perf_counter()
    Phi, G, _, _ = jax.block_until_ready(peer["DMFT_Theory_Cross_Term"](K, y, **settings))
    seconds = time.perf_counter() - began
    f = problem.y - peer["solve_Delta"](K, y, Phi, G, RATE)
    kernels = {"Phi": Phi, "G": G}
    last = {kind: np.concatenate([np.ravel(each[-1, :, -1, :]) for each in every]) for kind, every in kernels.items()}
    return {"f": np.ravel(f), **last}, seconds


def main() -> None:
    """Print a markdown table, and the median."""
    try:
        text = fetch_file(SOURCE).read_text(encoding="utf-8")
    except OSError as error:
        sys.exit(f"the notebook could not be downloaded: {error}")
    training = kf.GradientDescent(learning_rate=RATE, steps=TIMES - 1)
    case = Case("", kf.MLP(depth=DEPTH, activation="tanh", gamma0=1.0), gaussian(POINTS, 20, seed=1), training)
    truth = truth_of(case)
    found, theirs = solved(functions(text), case.problem)
    print(f"# the notebook: {theirs:.0f} s", file=sys.stderr)
    march = marches(case, truth, PARTICLES)
    print("| quantity | error % | notebook s | march s | ratio |\n|---|---|---|---|---|")
    ratios = []
    for kind in ERRORS:
        error = float(np.linalg.norm(found[kind] - truth.mean[kind]))
        ratios.append(theirs / least_time(march[kind], error, FEWEST)[0])
        percent = 100 * error / truth.norm(kind)
        print(f"| {kind} | {percent:.1f} | {theirs:.0f} | {theirs / ratios[-1]:.3f} | {ratios[-1]:.0f} |")
    what = f"Time of the authors' notebook over that of the march, P T = {POINTS * TIMES}, median"
    print("\n" + goal(what, f">= {AIM}", float(np.median(ratios))))


if __name__ == "__main__":
    main()
