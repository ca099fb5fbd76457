"""How far the march is from the infinite-width limit of ensembles of finite networks.

    python benchmarks/accuracy.py --cache reference            # everything
    python benchmarks/accuracy.py --cache reference --particles 8192 --cases digits-tanh3

Finite networks approach the theory as 1/N in their mean over seeds, so ensembles at several widths are
extrapolated by a line in 1/N. All numbers are relative Frobenius norms, in percent: `distance` between the
march and the extrapolation, `march` and `ensemble` their own standard errors, `excess` what is left of the
distance when those are subtracted in squares (zero: explained by noise). Kernels are those of the last step,
of the layer with the largest distance. `fit` is the rms misfit of the line in units of its error: about one
if it holds.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import kernelfield as kf
from cases import Case, accuracy_cases

ENSEMBLES = {256: 64, 512: 64, 1024: 48, 2048: 16}  # width -> seeds
QUICK = {128: 32, 256: 32, 512: 16}


class Measured(NamedTuple):
    """A quantity with its standard error, entry by entry."""

    value: np.ndarray
    se: np.ndarray


class Limit(NamedTuple):
    """A quantity at infinite width with its standard error, and the misfit of the line in 1/N."""

    value: np.ndarray
    se: np.ndarray
    misfit: float


def extrapolate(ensembles: Mapping[int, Measured]) -> Limit:
    """Fit q(N) = q_inf + b / N to the means over seeds at several widths N.

    Weighted least squares. The weights are those of the whole array (mean squared standard error at each
    width), which, unlike weights of single entries, are nearly independent of the noise in the values.

    Args:
        ensembles: width -> the mean over seeds and its standard error; at least two widths.

    Returns:
        q_inf, its standard error from those of the means, and the rms of (q(N) - fit) / se over entries,
        corrected for the two fitted parameters (NaN for two widths).
    """
    design = np.array([[1.0, 1.0 / width] for width in ensembles])
    values = np.stack([each.value for each in ensembles.values()])
    errors = np.stack([each.se for each in ensembles.values()])
    variances = np.mean(errors.reshape(len(errors), -1) ** 2, axis=1)
    solver = np.linalg.solve(design.T / variances @ design, design.T / variances)
    fitted = np.tensordot(solver, values, axes=1)
    se = np.sqrt(np.tensordot(solver[0] ** 2, errors**2, axes=1))
    off = np.sum((values - np.tensordot(design, fitted, axes=1)) ** 2, axis=tuple(range(1, values.ndim)))
    freedom = len(ensembles) - 2
    misfit = np.sqrt(np.sum(off / variances) / (values[0].size * freedom)) if freedom else np.nan
    return Limit(fitted[0], se, float(misfit))


def measured(solution: kf.Solution) -> dict[str, Measured]:
    """Predictions of all steps, and the final kernels of every hidden layer.

    The kernels come from the recorded fields where none were tracked.
    """
    network: Any = solution.network
    estimates = {"f": solution.estimate("predictions")}
    for layer in range(1, network.depth + 1):
        if solution.keeps("Phi"):
            estimates[f"Phi{layer}"] = solution.estimate("feature_kernel", layer)
            estimates[f"G{layer}"] = solution.estimate("gradient_kernel", layer)
        else:
            fields = solution.field_samples[layer, solution.steps_done]
            phi = np.asarray(network.nonlinearity.phi(fields["h"]))
            estimates[f"Phi{layer}"] = kf.Estimate(_gram(phi))
            estimates[f"G{layer}"] = kf.Estimate(_gram(fields["g"]))
    return {name: Measured(each.mean, each.se) for name, each in estimates.items()}


def _gram(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return rows @ rows.transpose(0, 2, 1) / rows.shape[-1]


def reference(case: Case, widths: Mapping[int, int], cache: Path | None) -> dict[str, Limit]:
    """The infinite-width limit of finite networks, from the cache if it is there."""
    settings = repr((case.network, case.training, case.problem.X.tobytes(), case.problem.y.tobytes(), widths))
    digest = hashlib.sha256(settings.encode()).hexdigest()[:12]
    path = cache / f"{case.name}-{digest}.npz" if cache else None
    if path is not None and path.exists():
        with np.load(path) as stored:
            names = [name.removesuffix(".value") for name in stored if name.endswith(".value")]
            return {name: Limit(*(stored[f"{name}.{part}"] for part in Limit._fields)) for name in names}
    ensembles = {}
    for width, seeds in widths.items():
        method = kf.FiniteWidth(width=width, seeds=seeds, seed=10_000 * width.bit_length(), kernels="none")
        began = time.perf_counter()
        solution = kf.solve(case.network, case.problem, case.training, method, fields_at=[-1])
        print(
            f"# {case.name}: width {width}, {seeds} seeds, {time.perf_counter() - began:.1f} s",
            file=sys.stderr,
        )
        ensembles[width] = measured(solution)
    names = next(iter(ensembles.values()))
    limits = {name: extrapolate({width: each[name] for width, each in ensembles.items()}) for name in names}
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f"{name}.{part}": value for name, limit in limits.items() for part, value in limit._asdict().items()}
        np.savez(path, **arrays)
    return limits


def compare(march: Measured, limit: Limit) -> dict[str, float]:
    """Distance, own errors and excess, as parts of the norm of the limit."""
    norm = np.linalg.norm(limit.value)
    distance, own, other = (
        float(np.linalg.norm(each) / norm) for each in (march.value - limit.value, march.se, limit.se)
    )
    excess = np.sqrt(max(0.0, distance**2 - own**2 - other**2))
    return {
        "distance": distance,
        "march": own,
        "ensemble": other,
        "excess": excess,
        "fit": float(limit.misfit),
    }


def rows(case: Case, widths: Mapping[int, int], cache: Path | None, method: kf.March) -> list[str]:
    """Lines of the table for one case: predictions, worst Phi, worst G."""
    limits = reference(case, widths, cache)
    solution = kf.solve(case.network, case.problem, case.training, method)
    results = measured(solution)
    seconds, ranks = solution.info["seconds_run"], solution.info["feature_ranks"]
    print(
        f"# {case.name}: march {seconds:.1f} s + {solution.info['seconds_compile']:.1f} s to compile, "
        f"feature ranks {ranks}, gradient ranks {solution.info['gradient_ranks']}, "
        f"loss {solution.loss[0]:.3f} -> {solution.loss[-1]:.4f}",
        file=sys.stderr,
    )
    lines = []
    for kind in ("f", "Phi", "G"):
        compared = {name: compare(results[name], limits[name]) for name in limits if name.rstrip("0123456789") == kind}
        worst = max(compared, key=lambda name: compared[name]["distance"])
        figures = compared[worst]
        percent = " | ".join(f"{100 * figures[key]:.2f}" for key in ("distance", "march", "ensemble", "excess"))
        name = case.name + ("" if case.tuned else " (new)")
        lines.append(f"| {name} | {worst} | {percent} | {figures['fit']:.2f} | {seconds:.1f} |")
    return lines


def _arguments() -> argparse.Namespace:
    names = [case.name for case in accuracy_cases()]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="narrower networks, fewer seeds")
    parser.add_argument("--cases", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep results of finite networks here")
    parser.add_argument("--particles", type=int)
    parser.add_argument("--replicates", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--tol", type=float)
    return parser.parse_args()


def main() -> None:
    """Print a markdown table."""
    arguments = _arguments()
    chosen = {name: getattr(arguments, name) for name in kf.March.model_fields if hasattr(arguments, name)}
    method = kf.March(**{name: value for name, value in chosen.items() if value is not None})
    widths = QUICK if arguments.quick else ENSEMBLES
    print(f"{method!r}, ensembles (width: seeds) {widths}\n")
    print("| case | quantity | distance % | march % | ensemble % | excess % | fit | march s |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for case in accuracy_cases():
        if case.name in arguments.cases:
            print("\n".join(rows(case, widths, arguments.cache, method)), flush=True)


if __name__ == "__main__":
    main()
