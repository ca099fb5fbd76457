"""A Solution as one xarray.Dataset with named dimensions, whose kernels are expanded from their factors when read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import xarray
from xarray.backends import BackendArray
from xarray.core import indexing

from kernelfield.files.dataset import FIELDS, attributes, problem_variables, step_coordinates, variable
from kernelfield.solution.kernel import RecordedKernel, Symbol
from kernelfield.solution.solution import Solution

PAIRS = ("time", "sample", "time_prime", "sample_prime")
ABOUT: dict[Symbol, str] = {
    "Phi": "feature kernels of hidden layers",
    "G": "gradient kernels of hidden layers",
    "NTK": "neural tangent kernel",
}
KEPT = {"time": "kernel_time", "time_prime": "kernel_time_prime"}  # where kernels were not kept at all steps
PAIRS_OF_OUTPUTS = ("time", "sample", "output", "time_prime", "sample_prime", "output_prime")


def labelled(solution: Solution) -> xarray.Dataset:
    """Returns predictions, losses, kernels of all pairs of times and recorded fields as labelled arrays.

    Kernels between all pairs of times and samples rarely fit in memory: choose from them first, and only what was
    chosen is computed. Use `Solution.save` to write a file; this Dataset's own `to_netcdf` would expand everything.

    Returns:
        xarray.Dataset with dimensions replicate, layer (1..L), time, sample, time_prime, sample_prime, recorded_step,
        neuron and dimension; with several outputs also output, of y, predictions, G and NTK, and output_prime.
        Variables: X, y, weights, K_x, predictions, loss, Phi, G, NTK, and fields h, z, g; what the run did not track is
        left out. Kernels that were kept at some steps alone have kernel_time and kernel_time_prime in place of time.

    Raises:
        ValueError: for a custom activation, loss or schedule, which cannot be described.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> solution = kf.solve(kf.MLP(depth=2, activation="linear"), kf.Problem(np.eye(2), [1.0, -1.0]),
        ...                     kf.GradientDescent(learning_rate=0.1, steps=3), progress=False)
        >>> data = solution.to_xarray()
        >>> data.Phi.dims
        ('replicate', 'layer', 'time', 'sample', 'time_prime', 'sample_prime')
        >>> data.Phi.sel(layer=2).isel(time=-1, time_prime=-1).mean("replicate").shape
        (2, 2)
    """
    coordinates = step_coordinates(solution)
    coordinates["time_prime"] = ("time_prime", *coordinates["time"][1:])
    coordinates["layer"] = variable(("layer",), np.arange(1, solution.network.hidden_layers + 1), "hidden layer")
    symbols: list[Symbol] = [symbol for symbol in ABOUT if solution.keeps(symbol)]
    kept = solution.times[solution.kernel_steps(*symbols)]
    if len(kept) < len(solution.times):
        coordinates |= {name: variable((name,), kept, "training time of kernels") for name in KEPT.values()}
    if solution.field_samples:
        steps = sorted({step for _, step in solution.field_samples})
        coordinates["recorded_step"] = variable(("recorded_step",), steps, "step of recorded fields", "steps")
    K_x = variable(("sample", "sample_prime"), solution.problem.input_kernel, "input kernel X X^T / D")
    loss = variable(("replicate", "time"), solution.estimate("loss").replicates, "training loss")
    variables = {**problem_variables(solution), "K_x": K_x, "loss": loss, **_kernels(solution), **_fields(solution)}
    return xarray.Dataset(variables, coordinates, attributes(solution))


def _kernels(solution: Solution) -> dict[str, tuple]:
    """Kernels of the hidden layers, and the NTK, which are computed when they are read."""
    problem, replicates = solution.problem, len(solution.replicate_predictions)
    of_outputs = (problem.points,) if problem.outputs == 1 else (problem.points, problem.outputs)
    variables = {}
    for symbol, about in ABOUT.items():
        layers: list[int | None] = [None] if symbol == "NTK" else [*solution.hidden(symbol)]
        if not layers or not solution.keeps(symbol):
            continue
        kernel = solution.kernel(symbol, layers[0])
        times, rows = len(solution.kernel_steps(symbol)), (problem.points,) if symbol == "Phi" else of_outputs
        pair = PAIRS_OF_OUTPUTS if len(rows) > 1 else PAIRS
        if isinstance(kernel, RecordedKernel):
            of_layers = [cast(RecordedKernel, solution.kernel(symbol, layer)).values for layer in layers]
            kernels = [np.broadcast_to(each, (replicates, *each.shape[1:])) for each in of_layers]
            kernels = [each.reshape(replicates, times, *rows, *rows) for each in kernels]
            dims = ("replicate", "layer", *(dim for dim in pair if dim != "time_prime"))
            values: Any = np.stack(kernels, axis=1)
            if symbol == "NTK":
                values, dims = values[:, 0], ("replicate", *dims[2:])
        else:
            shape, dims = (replicates, times, *rows, times, *rows), ("replicate", *pair)
            if symbol != "NTK":
                shape, dims = (replicates, len(layers), *shape[1:]), ("replicate", "layer", *pair)
            values = indexing.LazilyIndexedArray(LazyKernel(shape, _reader(solution, symbol)))
        if times < len(solution.times):
            dims = tuple(KEPT.get(dim, dim) for dim in dims)
        variables[symbol] = variable(dims, values, about)
    return variables


def _fields(solution: Solution) -> dict[str, tuple]:
    samples = solution.field_samples
    layers, steps = (sorted({key[place] for key in samples}) for place in (0, 1))
    variables = {}
    for name in next(iter(samples.values()), {}):
        stacked = np.stack([np.stack([samples[layer, step][name] for step in steps], axis=1) for layer in layers], 1)
        dims = ("replicate" if len(stacked) == len(solution.replicate_predictions) else "any_replicate", "layer")
        variables[name] = variable((*dims, "recorded_step", "sample", "neuron"), stacked, f"samples of {FIELDS[name]}")
    return variables


class LazyKernel(BackendArray):
    """An array that `read` computes, at the outer product of one array of indices for each axis, when it is indexed."""

    def __init__(self, shape: tuple[int, ...], read: Callable[..., np.ndarray]) -> None:
        self.shape, self.dtype, self.read = shape, np.dtype(np.float64), read

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Returns entries at basic or outer indices."""
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._outer)

    def _outer(self, key: tuple[Any, ...]) -> np.ndarray:
        chosen = [np.arange(size)[index] for size, index in zip(self.shape, key, strict=True)]
        values = self.read(*map(np.atleast_1d, chosen))
        return values[tuple(0 if index.ndim == 0 else slice(None) for index in chosen)]


def _reader(solution: Solution, symbol: Symbol) -> Callable[..., np.ndarray]:
    """A reader for `LazyKernel`, with axes replicate, layer (unless the NTK), time, sample, time', sample'.

    Kernels of several outputs have an axis of outputs after each axis of samples.
    """
    steps = solution.kernel_steps(symbol)

    def one(replicates: np.ndarray, layer: int | None, *pair: np.ndarray) -> np.ndarray:
        (t, mu, *c), (s, nu, *d) = pair[: len(pair) // 2], pair[len(pair) // 2 :]
        samples, rows = np.unique(np.concatenate([mu, nu]), return_inverse=True)
        left, right = rows[: len(mu)], rows[len(mu) :]
        if c:  # rows are pairs (sample, output)
            outputs = solution.problem.outputs
            left, right = np.add.outer(left * outputs, c[0]), np.add.outer(right * outputs, d[0])
        chosen = solution.restricted(samples, replicates)
        values = chosen.kernel_estimate(symbol, layer, t=steps[t], s=steps[s]).replicates
        return values[:, :, left][..., right]

    def read(replicates: np.ndarray, *others: np.ndarray) -> np.ndarray:
        if symbol == "NTK":
            return one(replicates, None, *others)
        layers, *pair = others
        return np.stack([one(replicates, int(layer) + 1, *pair) for layer in layers], axis=1)

    return read
