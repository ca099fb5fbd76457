"""Networks of finite width at new points."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernelfield.finite.network import FiniteNetwork

POINTS_AT_ONCE = 512  # new points that pass a network at once


@functools.partial(jax.jit, static_argnums=0)
def outputs(network: FiniteNetwork, gamma0: float, params: Any, seed: Array, x: Array) -> Array:
    """Returns f (n, C) of one network, minus its value at initialization if the network is `centered`."""
    output = network.apply(params, x)[0]
    return (output - network.apply(network.init(seed), x)[0] if network.centered else output) / gamma0


@functools.partial(jax.jit, static_argnums=0)
def slopes(network: FiniteNetwork, gamma0: float, params: Any, seed: Array, x: Array) -> Array:
    """Returns the gradients of `outputs` in the inputs (n, C, *inputs)."""
    f, pull = jax.vjp(lambda x: outputs(network, gamma0, params, seed, x), x)
    units = jnp.eye(f.shape[1], dtype=f.dtype)
    return jnp.stack([pull(jnp.broadcast_to(unit, f.shape))[0] for unit in units], axis=1)


@functools.partial(jax.jit, static_argnums=(0, 1))
def features(network: FiniteNetwork, layer: int, params: Any, seed: Array, x: Array) -> Array:
    """Returns the features of a hidden layer (n, sites N), so scaled that products are kernels."""
    values = network.apply(params, x)[1]["in"][layer]
    return values.reshape(len(x), -1) / math.sqrt(values[0].size)


@functools.partial(jax.jit, static_argnums=0)
def tangent(network: FiniteNetwork, params: Any, x: Array, others: Array) -> Array:
    """Returns the tangent kernel (n C, m C) between inputs."""
    return network.tangent(params, x, others)


@dataclass(frozen=True, eq=False)
class FinitePredictor:
    """Trained networks at the steps that were kept; see `kernelfield.solution.trained_network.Predictor`."""

    network: FiniteNetwork
    gamma0: float
    seeds: tuple[int, ...]  # of the networks, which give their initialization
    params: dict[int, Any]  # parameters by step, NumPy arrays (R, ...)
    precision: str

    @property
    def steps(self) -> list[int]:
        """The steps whose parameters were kept."""
        return sorted(self.params)

    def of_replicates(self, chosen: Any) -> FinitePredictor:
        """Returns the predictor of some of the networks."""
        params = jax.tree.map(lambda values: values[chosen], self.params)
        return replace(self, seeds=tuple(np.array(self.seeds)[chosen].tolist()), params=params)

    def predictions(self, inputs: np.ndarray, t: int) -> np.ndarray:
        """Returns f (R, n, C), minus its value at initialization if the networks are `centered`."""
        return self._map(functools.partial(outputs, self.network, self.gamma0), inputs, t)

    def gradients(self, inputs: np.ndarray, t: int) -> np.ndarray:
        """Returns the gradients of `predictions` in the inputs (R, n, C, *inputs.shape[1:])."""
        return self._map(functools.partial(slopes, self.network, self.gamma0), inputs, t)

    def kernel(self, a: np.ndarray, b: np.ndarray, t: int, layer: int | None) -> np.ndarray:
        """Returns the feature kernel of a layer (R, n, m), or the tangent kernel (R, n C, m C)."""
        if layer is None:
            return self._map(lambda params, _, x: tangent(self.network, params, x, jnp.asarray(b, x.dtype)), a, t)
        project = functools.partial(features, self.network, layer)
        return self._map(project, a, t) @ self._map(project, b, t).swapaxes(1, 2)

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns seeds, steps, and every array of the parameters by its step and place."""
        return {"seeds": np.array(self.seeds), "steps": np.array(self.steps)} | {
            f"step{t}_{place}": leaf
            for t, params in self.params.items()
            for place, leaf in enumerate(jax.tree.leaves(params))
        }

    @classmethod
    def restored(
        cls, network: FiniteNetwork, gamma0: float, precision: str, arrays: Mapping[str, np.ndarray]
    ) -> FinitePredictor:
        """Returns the predictor whose `arrays` were stored."""
        leaves, tree = jax.tree.flatten(jax.eval_shape(network.init, jnp.uint32(0)))
        shapes = [(-1, *leaf.shape) for leaf in leaves]  # older files have no axis for one output
        params = {
            int(t): tree.unflatten([arrays[f"step{t}_{place}"].reshape(shape) for place, shape in enumerate(shapes)])
            for t in arrays["steps"]
        }
        return cls(network, gamma0, tuple(arrays["seeds"].tolist()), params, precision)

    def _map(self, function: Callable[..., Array], inputs: np.ndarray, t: int) -> np.ndarray:
        """Returns a function of the networks, one after the other, and of inputs, a few at once: (R, n, ...)."""
        with jax.enable_x64(self.precision == "float64"):
            results = []
            parts = np.array_split(inputs, range(POINTS_AT_ONCE, len(inputs), POINTS_AT_ONCE))
            batches = [jax.device_put(np.asarray(part, self.precision)) for part in parts]
            for number, seed in enumerate(self.seeds):
                params = jax.tree.map(lambda values, number=number: values[number], self.params[t])
                results.append(np.concatenate([function(params, jnp.uint32(seed), batch) for batch in batches]))
            return np.stack(results).astype(float)
