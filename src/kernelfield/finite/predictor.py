"""Networks of finite width at new points."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernelfield.finite.network import Finite

TOGETHER = 512  # new points that pass a network at once


@dataclass(frozen=True, eq=False)
class FinitePredictor:
    """Networks at the steps that were kept.

    Args:
        finite: the network of width N.
        gamma0: feature-learning strength.
        seeds: of the networks, which know their initialization.
        params: their parameters by step, as NumPy arrays (R, ...).
        precision: of the parameters.
    """

    finite: Finite
    gamma0: float
    seeds: tuple[int, ...]
    params: dict[int, Any]
    precision: str

    @property
    def steps(self) -> list[int]:
        """At which parameters were kept."""
        return sorted(self.params)

    def of_replicates(self, chosen: Any) -> FinitePredictor:
        """Some of the networks."""
        params = jax.tree.map(lambda values: values[chosen], self.params)
        return replace(self, seeds=tuple(np.array(self.seeds)[chosen].tolist()), params=params)

    def predictions(self, inputs: np.ndarray, t: int) -> np.ndarray:
        """f (R, n) or (R, n, C), minus that at initialization."""

        def centred(params: Any, seed: jax.Array, x: jax.Array) -> jax.Array:
            return (self.finite.apply(params, x)[0] - self.finite.apply(self.finite.init(seed), x)[0]) / self.gamma0

        return self._mapped(centred, inputs, t)

    def kernel(self, a: np.ndarray, b: np.ndarray, t: int, layer: int | None) -> np.ndarray:
        """Of neurons (R, n, m), or the tangent kernel (R, n C, m C)."""
        if layer is None:

            def tangents(params: Any, seed: jax.Array, x: jax.Array) -> jax.Array:
                return self.finite.tangent(params, x, jnp.asarray(b, x.dtype))

            return self._mapped(tangents, a, t)

        def neurons(params: Any, seed: jax.Array, x: jax.Array) -> jax.Array:
            features = [each.values for each in self.finite.apply(params, x)[1] if each.kind == "in"][layer]
            return features.reshape(len(x), -1) / math.sqrt(features[0].size)

        return self._mapped(neurons, a, t) @ self._mapped(neurons, b, t).swapaxes(1, 2)

    def arrays(self) -> dict[str, np.ndarray]:
        """Seeds, steps, and every array of the parameters by step and place."""
        return {"seeds": np.array(self.seeds), "steps": np.array(self.steps)} | {
            f"step{t}_{place}": leaf
            for t, params in self.params.items()
            for place, leaf in enumerate(jax.tree.leaves(params))
        }

    @classmethod
    def restored(
        cls, finite: Finite, gamma0: float, precision: str, arrays: Mapping[str, np.ndarray]
    ) -> FinitePredictor:
        """The predictor with `arrays`."""
        tree = jax.tree.structure(jax.eval_shape(finite.init, jnp.uint32(0)))

        def params(t: int) -> Any:
            return tree.unflatten([arrays[f"step{t}_{place}"] for place in range(tree.num_leaves)])

        steps = {int(t): params(t) for t in arrays["steps"]}
        return cls(finite, gamma0, tuple(arrays["seeds"].tolist()), steps, precision)

    def _mapped(self, function: Callable[..., jax.Array], inputs: np.ndarray, t: int) -> np.ndarray:
        """The function of all networks, one after the other, and of all inputs, a few at once: (R, n, ...)."""
        with jax.enable_x64(self.precision == "float64"):
            program = jax.jit(function)
            starts = range(0, len(inputs), TOGETHER)
            batches = [jnp.asarray(inputs[start : start + TOGETHER], self.precision) for start in starts]

            def every(number: int, seed: int) -> np.ndarray:
                params = jax.tree.map(lambda values: values[number], self.params[t])
                return np.concatenate([program(params, jnp.uint32(seed), batch) for batch in batches])

            return np.stack([every(*each) for each in enumerate(self.seeds)]).astype(float)
