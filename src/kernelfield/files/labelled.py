"""A Solution as one xarray.Dataset with named dimensions, whose kernels are expanded from their factors when read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray
from xarray.backends import BackendArray
from xarray.core import indexing

from kernelfield import observables
from kernelfield.files.storage import FIELDS, INPUT_DIMS, OUTPUT_DIMS, about_steps, attributes
from kernelfield.solution.solution import Solution

FILE_ATTRIBUTES = ("format", "schema")  # by which `kernelfield.load` knows its files
PAIRS = ("time", "sample", "time_prime", "sample_prime")
PAIRS_OF_OUTPUTS = ("time", "sample", "output", "time_prime", "sample_prime", "output_prime")


def labelled(solution: Solution) -> xarray.Dataset:
    """Predictions, losses, kernels of all pairs of times and recorded fields, as labelled arrays.

    Kernels between all pairs of times and samples rarely fit in memory: choose from them first, and only what was
    chosen is computed. Use `Solution.save` to write a file; this Dataset's own `to_netcdf` would expand everything.

    Args:
        solution: what to label.

    Returns:
        xarray.Dataset with dimensions replicate, layer (1..L), time, sample, time_prime, sample_prime, recorded_step,
        neuron and dimension; with several outputs also output, of y, predictions, G and NTK, and output_prime.
        Variables: X, y, weights, K_x, predictions, loss, Phi, G, NTK, and fields h, z, g; what the run did not track is
        left out. Fields of every output have the dimension sample_output.

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
    times = {
        name: (name, solution.times, {"long_name": "training time, the sum of learning rates so far", "units": "1"})
        for name in ("time", "time_prime")
    }
    counts = {"long_name": about_steps(solution), "units": "steps"}
    coordinates: dict[str, Any] = {**times, "step": ("time", solution.steps(), counts)}
    layers = np.arange(1, solution.network.hidden_layers + 1)
    coordinates["layer"] = ("layer", layers, {"long_name": "hidden layer", "units": "1"})
    variables = {**_plain(solution), **_kernels(solution), **_fields(solution)}
    if solution.field_samples:
        steps = sorted({step for _, step in solution.field_samples})
        coordinates["recorded_step"] = ("recorded_step", steps, {**counts, "long_name": "step of recorded fields"})
    about = {name: value for name, value in attributes(solution).items() if name not in FILE_ATTRIBUTES}
    return xarray.Dataset(variables, coordinates, about)


def _plain(solution: Solution) -> dict[str, xarray.Variable]:
    problem, outputs = solution.problem, OUTPUT_DIMS[solution.problem.y.ndim]
    predicted = ("replicate", "time", "sample", *outputs)
    return {
        "X": _variable(INPUT_DIMS[problem.X.ndim], problem.X, "inputs"),
        "y": _variable(("sample", *outputs), problem.y, "targets"),
        "weights": _variable(("sample",), problem.weights, "weights of samples in the loss"),
        "K_x": _variable(("sample", "sample_prime"), problem.input_kernel, "input kernel X X^T / D"),
        "predictions": _variable(predicted, solution.replicate_predictions, "network output f"),
        "loss": _variable(("replicate", "time"), observables.loss(solution).replicates, "training loss"),
    }


def _kernels(solution: Solution) -> dict[str, xarray.Variable]:
    """Lazy kernels of the hidden layers, and the NTK."""
    replicates, rows, points = solution.replicate_predictions.shape[:3]
    outputs = solution.problem.outputs
    of_outputs = (points,) if outputs is None else (points, outputs)
    sizes = {"Phi": (rows, points, rows, points), "G": (rows, *of_outputs, rows, *of_outputs)}
    names = {"Phi": PAIRS, "G": PAIRS if outputs is None else PAIRS_OF_OUTPUTS}
    features, gradients = len(solution.feature_factors), len(solution.gradient_factors)
    found = {}
    for name, kind, depth in (("Phi", "feature", features - 1), ("G", "gradient", gradients - 1)):
        if depth > 0:
            kernel = LazyKernel((replicates, depth, *sizes[name]), _reader(solution, f"{kind}_kernel"))
            about = f"{kind} kernels of hidden layers"
            found[name] = _variable(("replicate", "layer", *names[name]), indexing.LazilyIndexedArray(kernel), about)
    if not solution.network.factorizes:
        if (recorded := solution.tangent_kernels) is not None:
            kernels = recorded.reshape(*recorded.shape[:2], *of_outputs, *of_outputs)
            kernels = np.broadcast_to(kernels, (replicates, rows, *kernels.shape[2:]))
            dims = ("replicate", *(each for each in names["G"] if each != "time_prime"))
            found["NTK"] = _variable(dims, kernels, "neural tangent kernel at equal times")
    elif features and gradients:
        kernel = LazyKernel((replicates, *sizes["G"]), _reader(solution, "ntk"))
        about = "neural tangent kernel"
        found["NTK"] = _variable(("replicate", *names["G"]), indexing.LazilyIndexedArray(kernel), about)
    return found


def _fields(solution: Solution) -> dict[str, xarray.Variable]:
    samples = solution.field_samples
    layers, steps = (sorted({key[place] for key in samples}) for place in (0, 1))
    found = {}
    for name in next(iter(samples.values()), {}):
        stacked = np.stack([np.stack([samples[layer, step][name] for step in steps], axis=1) for layer in layers], 1)
        dims = ("replicate" if len(stacked) == len(solution.replicate_predictions) else "any_replicate", "layer")
        rows = "sample" if stacked.shape[3] == solution.problem.points else "sample_output"
        found[name] = _variable((*dims, "recorded_step", rows, "neuron"), stacked, f"samples of {FIELDS[name]}")
    return found


def _variable(dims: tuple[str, ...], values: Any, long_name: str) -> xarray.Variable:
    return xarray.Variable(dims, values, {"long_name": long_name, "units": "1"})


class LazyKernel(BackendArray):
    """An array that is computed for the indices that are asked for.

    Args:
        shape: of the whole array.
        read: called with one array of indices for each axis, returns the entries at their outer product.
    """

    def __init__(self, shape: tuple[int, ...], read: Callable[..., np.ndarray]) -> None:
        self.shape, self.dtype, self.read = shape, np.dtype(np.float64), read

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Entries at basic or outer indices."""
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._outer)

    def _outer(self, key: tuple[Any, ...]) -> np.ndarray:
        chosen = [np.arange(size)[each] for size, each in zip(self.shape, key, strict=True)]
        values = self.read(*map(np.atleast_1d, chosen))
        return values[tuple(0 if each.ndim == 0 else slice(None) for each in chosen)]


def _reader(solution: Solution, quantity: str) -> Callable[..., np.ndarray]:
    """What `LazyKernel` reads: (replicates, layers unless the NTK, times, samples, times', samples').

    Kernels of several outputs have an axis of them after each of samples.
    """

    def one(replicates: np.ndarray, layer: list[int], *pair: np.ndarray) -> np.ndarray:
        (t, mu, *c), (s, nu, *d) = pair[: len(pair) // 2], pair[len(pair) // 2 :]
        samples, places = np.unique(np.concatenate([mu, nu]), return_inverse=True)
        values = solution.restricted(samples, replicates).estimate(quantity, *layer, t=t, s=s).replicates
        if c:
            shape = len(samples), solution.problem.outputs or 1
            values = values.reshape(*values.shape[:2], *shape, len(s), *shape)
            return values[:, :, places[: len(mu)]][:, :, :, c[0]][..., places[len(mu) :], :][..., d[0]]
        return values[:, :, places[: len(mu)]][..., places[len(mu) :]]

    def read(replicates: np.ndarray, *others: np.ndarray) -> np.ndarray:
        if quantity == "ntk":
            return one(replicates, [], *others)
        layers, *pair = others
        return np.stack([one(replicates, [int(layer) + 1], *pair) for layer in layers], axis=1)

    return read
