"""Test error of the static kernel, the adapted kernel, feature learning at infinite width, and finite networks.

    python benchmarks/prediction.py
    python benchmarks/prediction.py --tasks single-index --draws 5 --figure prediction.png

Squared errors of test points relative to the variance of their targets, or the share of wrong classes; means over draws
of the data with standard errors. gamma0 = 0 is the static kernel. Infinite width stops where the loss on a validation
split is least and then trains all points that long; the adapted kernel is that of its last layer, in a ridge
regression; finite networks follow the same rule for as many steps.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_diabetes, load_digits, load_linnerud
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import kernelfield as kf

STYLES: dict[str, dict[str, Any]] = {
    "infinite width": {"lw": 2.5, "color": "black", "zorder": 3},
    "adapted kernel": {"lw": 1.8, "color": "tab:red", "ls": ":", "zorder": 4},
    "N = 64": {"lw": 1.2, "color": "#9ecae1", "marker": "o", "ms": 4},
    "N = 256": {"lw": 1.2, "color": "#4292c6", "marker": "o", "ms": 4},
    "N = 1024": {"lw": 1.2, "color": "#08519c", "marker": "o", "ms": 4},
}
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


class Task(NamedTuple):
    """A draw of training and test points; integer targets are classes."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray


def normal(rng: np.random.Generator, points: int, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal inputs: of training, and 1000 to test."""
    return rng.standard_normal((points, dimensions)), rng.standard_normal((1000, dimensions))


def single_index(rng: np.random.Generator) -> Task:
    """A parabola along one of ten directions."""
    X, X_test = normal(rng, 150, 10)
    y, y_test = ((rows[:, 0] ** 2 - 1) / np.sqrt(2) for rows in (X, X_test))
    return Task(X, y, X_test, y_test)


def field(rng: np.random.Generator) -> Task:
    """A Gaussian process on a sphere in five dimensions, the same in all directions: there is none to find."""
    X, X_test = (np.sqrt(5) * rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in normal(rng, 100, 5))
    frequencies, phases = rng.standard_normal((2000, 5)), rng.uniform(0, 2 * np.pi, 2000)
    amplitudes = rng.standard_normal(2000) / np.sqrt(1000)
    y, y_test = (np.cos(rows @ frequencies.T + phases) @ amplitudes for rows in (X, X_test))
    return Task(X, y, X_test, y_test)


def parity(rng: np.random.Generator) -> Task:
    """x_1 x_2 of signs in ten dimensions."""
    X, X_test = (rng.choice([-1.0, 1.0], (count, 10)) for count in (100, 1000))
    return Task(X, X[:, 0] * X[:, 1], X_test, X_test[:, 0] * X_test[:, 1])


def shipped(load: Callable[..., Any], points: int) -> Any:
    """A data set of scikit-learn, split at random."""

    def drawn(rng: np.random.Generator) -> Task:
        X, y = load(return_X_y=True)
        y = y[:, 0] if y.ndim > 1 else y
        X, X_test, y, y_test = train_test_split(X, y, train_size=points, random_state=int(rng.integers(2**31)))
        scaler = StandardScaler(with_std=y.dtype.kind == "f").fit(X)
        scale = 1.0 if y.dtype.kind == "f" else scaler.transform(X).std()
        return Task(scaler.transform(X) / scale, y, scaler.transform(X_test) / scale, y_test)

    return drawn


TASKS: dict[str, Callable[[np.random.Generator], Task]] = {
    "single-index": single_index,
    "sparse parity": parity,
    "random field": field,
    "diabetes": shipped(load_diabetes, 100),
    "linnerud": shipped(load_linnerud, 14),
    "digits": shipped(load_digits, 100),
}


def error(y: np.ndarray, found: np.ndarray) -> float:
    """Share of wrong classes, or the squared error relative to the variance of y."""
    return float(np.mean(found != y) if y.dtype.kind == "i" else np.mean((found - y) ** 2) / np.var(y))


def infinite(task: Task, gamma0: float) -> Any:
    """The fitted estimator of infinite width; the static kernel, whose steps cost nothing, may take many."""
    kind = kf.InfiniteWidthClassifier if task.y.dtype.kind == "i" else kf.InfiniteWidthRegressor
    model = kind(
        depth=2, activation="erf", gamma0=gamma0, early_stopping=True, max_steps=200 if gamma0 else 5000, random_state=0
    )
    return model.fit(task.X, task.y)


def adapted(task: Task, model: Any) -> float:
    """Test error of ridge regression with the adapted kernel, its ridge chosen on a validation split."""
    every = np.concatenate([task.X, task.X_test])
    kernel = model.solution_.feature_kernel_between(2, -1, every, task.X).mean
    K, K_test = kernel[: len(task.X)], kernel[len(task.X) :]
    K = (K + K.T) / 2  # the two sets of points are represented one after the other
    classes = task.y.dtype.kind == "i"
    targets = np.eye(task.y.max() + 1)[task.y] if classes else (task.y - task.y.mean())[:, None]
    train, held = train_test_split(np.arange(len(task.y)), test_size=0.2, random_state=0)

    def predicted(ridge: float, rows: np.ndarray, against: np.ndarray) -> np.ndarray:
        fitted = KernelRidge(alpha=ridge * np.trace(K) / len(K), kernel="precomputed").fit(
            K[np.ix_(rows, rows)], targets[rows]
        )
        found = fitted.predict(against[:, rows])
        return found.argmax(axis=1) if classes else found[:, 0] + task.y.mean()

    best = min(RIDGES, key=lambda ridge: error(task.y[held], predicted(ridge, train, K[held])))
    return error(task.y_test, predicted(best, np.arange(len(task.y)), K_test))


def finite(task: Task, model: Any, width: int) -> float:
    """Test error of one network with the rule and the steps of the model."""
    solution = model.solution_
    method = kf.FiniteWidth(width=width, seeds=1, kernels="none")
    found = kf.solve(solution.network, solution.problem, solution.training, method, fields_at=(-1,), progress=False)
    f = found.predict(task.X_test).mean
    if task.y.dtype.kind == "i":
        return error(task.y_test, model.classes_[f.argmax(axis=1)])
    return error(task.y_test, f * model.target_scale_ + model.target_mean_)


Measured = dict[str, dict[str, dict[str, Any]]]  # task -> gamma0 -> "steps", "seconds", and errors of draws by name


def draw(path: str, measured: Measured) -> None:
    """One panel for each task: error against gamma0."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, -(-len(measured) // 2), figsize=(11, 6.4), layout="constrained", squeeze=False)
    for place, (task, unsorted) in zip(axes.flat, measured.items(), strict=False):
        rows = dict(sorted(unsorted.items(), key=lambda item: float(item[0])))
        for name in dict.fromkeys(name for row in rows.values() for name in row["errors"]):
            every = enumerate(row["errors"].get(name) for row in rows.values())
            has = {number: np.array(errors) for number, errors in every if errors}
            means, bars = (np.array([of(each) for each in has.values()]) for of in (np.mean, standard_error))
            place.errorbar(list(has), means, bars, label=name, capsize=2, **STYLES.get(name, {}))
        if "0.0" in rows:
            lazy = np.mean(rows["0.0"]["errors"]["infinite width"])
            place.axhline(lazy, color="0.6", lw=1, ls="--", label="static kernel")
        place.set(title=task, xlabel=r"$\gamma_0$")
        place.set_xticks(range(len(rows)), [f"{float(gamma0):g}" for gamma0 in rows])
        place.set_ylim(bottom=0)
        place.spines[["top", "right"]].set_visible(False)
    for place in axes.flat[len(measured) :]:
        place.axis("off")
    for place in axes[:, 0]:
        place.set_ylabel("test error")
    axes[0, 0].legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def standard_error(errors: np.ndarray) -> float:
    """Of the mean over draws."""
    return float(errors.std(ddof=1) / np.sqrt(len(errors))) if len(errors) > 1 else 0.0


def row(label: str, gamma0: float, widths: list[int], draws: int) -> dict[str, Any]:
    """What is measured for a task at a gamma0."""
    began, steps = time.perf_counter(), []
    errors: dict[str, list[float]] = {}
    for seed in range(draws):
        task = TASKS[label](np.random.default_rng(seed))
        model = infinite(task, gamma0)
        steps.append(model.n_iter_)
        errors.setdefault("infinite width", []).append(error(task.y_test, model.predict(task.X_test)))
        errors.setdefault("adapted kernel", []).append(adapted(task, model))
        for width in widths if gamma0 else []:
            errors.setdefault(f"N = {width}", []).append(finite(task, model, width))
    return {"errors": errors, "steps": float(np.mean(steps)), "seconds": time.perf_counter() - began}


def main() -> None:
    """Print a table, and draw a figure if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="NAME")
    parser.add_argument("--gammas", nargs="+", type=float, default=[0.0, 0.3, 1.0, 3.0])
    parser.add_argument("--widths", nargs="+", type=int, default=[64, 256, 1024])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--figure", help="path of a PNG")
    parser.add_argument(
        "--results", type=Path, help="JSON file that keeps rows as they are done, and has those that were"
    )
    given = parser.parse_args()
    measured: Measured = json.loads(given.results.read_text()) if given.results and given.results.exists() else {}
    names = ["infinite width", "adapted kernel", *(f"N = {width}" for width in given.widths)]
    print(f"| task | gamma0 | {' | '.join(names)} | steps | s |\n|{'---|' * (len(names) + 4)}", flush=True)
    for label in given.tasks:
        for gamma0 in given.gammas:
            rows = measured.setdefault(label, {})
            found = rows.get(str(gamma0)) or row(label, gamma0, given.widths, given.draws)
            rows[str(gamma0)] = found
            of = {name: np.array(each) for name, each in found["errors"].items()}
            cells = [f"{of[name].mean():.3f} ({standard_error(of[name]):.3f})" if name in of else "" for name in names]
            taken = f"{found['steps']:.0f} | {found['seconds']:.0f}"
            print(f"| {label} | {gamma0:g} | {' | '.join(cells)} | {taken} |", flush=True)
            if given.results:
                given.results.write_text(json.dumps(measured))
            if given.figure:
                draw(given.figure, measured)


if __name__ == "__main__":
    main()
