"""Functions of every particle: its components and its sites mix, and particles meet in their means alone.

A particle can carry C components, neurons that belong together: the query, key and value of a head of attention, the
two halves of a gate. A function of them is the same for all particles. At infinite width its backward pass is the
vector-Jacobian product of the function on the whole array of particles: where the function takes a mean over particles,
1/S stands for 1/N. The finite-width twin is the function itself, on neurons.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernelfield.engine.points import padded_sobol
from kernelfield.engine.series import Fields
from kernelfield.engine.wiring import Sites
from kernelfield.layers.base import Mass, Signal, Space, Stateless, Tape
from kernelfield.layers.kernels import sites_of
from kernelfield.layers.stateless import count_windows, reduce_windows

SAMPLES = 2**15  # particles that a lazy limit is averaged over, at most
SAMPLED_NUMBERS = 2**28  # in their fields, at most


class ParticleFunction(Stateless):
    """A function (P, *sites, C, S) -> (P, *sites', C', S) of the fields of S particles with C components.

    A layer of one component takes fields of any number of components, as if each component were a particle.
    """

    components: int = 1  #: C, of the particles below

    @property
    def is_sampled(self) -> bool:
        """True, but where the average is known."""
        return True

    def apply(self, h: Array) -> Array:
        """Returns the function of h (P, *sites, C, S)."""
        raise NotImplementedError

    def sites_above(self, sites: Sites) -> Sites:
        """Returns the sites of what the function returns."""
        return self._shape_above(sites)[0]

    def space_above(self, below: Space) -> Space:
        """Returns the space of what the function returns: its width is C' / C times that below."""
        if self.components not in (1, below.components):
            need = f"Dense or Conv with components={self.components} below it"
            raise ValueError(f"{type(self).__name__} needs {need}, got components={below.components}")
        sites, above = self._shape_above(below.sites)
        components = above if below.components == self.components else below.components
        width = below.width * above / self.components
        return below._replace(sites=sites, components=components, width=width)

    def forward(self, state: None, x: Fields, mass: Mass) -> tuple[None, Fields, Array]:
        """Returns the function; the trace is the field below."""
        return None, self._apply_flat(x), x

    def backward(
        self, state: None, chi: Fields, trace: Array, mass: Mass, signal: Signal
    ) -> tuple[None, Fields, Array]:
        """Returns the vector-Jacobian product."""
        return None, jax.vjp(self._apply_flat, trace)[1](chi)[0], trace

    def lazy_forward(self, kernel: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the kernel of the function of Gaussian fields, an average over samples; the trace is that below."""
        (x,) = self._sample(seed, (kernel, self.components))
        return _covariance(self._apply_flat(x), kernel.dtype), kernel

    def lazy_backward(self, kernel: np.ndarray, trace: np.ndarray, seed: int) -> tuple[np.ndarray, float, np.ndarray]:
        """Returns the kernel of gradients that go down, for gradients independent of the fields.

        Kernels that go down are sums over neurons, whose number changes by C / C'.
        """
        above = self._shape_above(sites_of(trace))[1]
        x, g = self._sample(seed, (trace, self.components), (kernel, above))
        z = jax.vjp(self._apply_flat, x)[1](g)[0]
        return _covariance(z, kernel.dtype) * (self.components / above), 0.0, trace

    def finite_init(self, key: Array, shape: tuple[int, ...], width: int) -> tuple[None, tuple[int, ...]]:
        """Returns no parameters, and the shape above."""
        *sites, channels = shape
        if channels % self.components:
            name, need = type(self).__name__, f"a number of neurons that {self.components} divides"
            raise ValueError(f"{name} needs {need}, got {channels}: choose another width")
        sites, above = self._shape_above(tuple(sites))
        return None, (*sites, channels // self.components * above)

    def finite_apply(self, params: None, x: Array, tape: Tape) -> Array:
        """Returns the function of neurons."""
        return self._apply_flat(x)

    def _shape_above(self, sites: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
        """Returns the sites and the number C' of components of what the function returns."""
        particles = 16
        h = jax.ShapeDtypeStruct((1, *sites, self.components, particles), jnp.float32)
        shape = jax.eval_shape(self.apply, h).shape
        if len(shape) < 3 or shape[0] != 1 or shape[-1] != particles:
            need = f"(P, *sites, components, S) of {h.shape}"
            raise ValueError(f"the function of {type(self).__name__} must return {need}, it returns {shape}")
        return shape[1:-2], shape[-2]

    def _apply_flat(self, x: Array) -> Array:
        """Returns the function of fields (P, *sites, C S), shaped as those."""
        y = self.apply(x.reshape(*x.shape[:-1], self.components, -1))
        return y.reshape(*y.shape[:-2], -1)

    def _sample(self, seed: int, *kernels: tuple[np.ndarray, int]) -> list[Array]:
        """Returns Gaussian fields (P, *sites, C S) with these kernels, of C independent components, from one point set.

        Fields of two point sets would not be independent: their points come in the same order.
        """
        sizes = [math.isqrt(kernel.size) * components for kernel, components in kernels]
        particles = min(SAMPLES, 2 ** int(math.log2(SAMPLED_NUMBERS / sum(sizes))))
        normal = padded_sobol(sum(sizes), particles, np.random.SeedSequence(seed))
        fields = []
        for (kernel, _), z in zip(kernels, np.split(normal, np.cumsum(sizes)[:-1]), strict=True):
            rows = math.isqrt(kernel.size)
            variances, axes = np.linalg.eigh(kernel.reshape(rows, rows))
            root = (axes * np.sqrt(np.maximum(variances, 0)))[:, ::-1]  # the largest come first, as in the points
            root[np.diag(kernel.reshape(rows, rows)) == 0] = 0  # padding
            x = root.astype(z.dtype) @ z.reshape(rows, -1)
            fields.append(jnp.asarray(x.reshape(*kernel.shape[: kernel.ndim // 2], -1)))
        return fields


def _covariance(field: Any, dtype: Any) -> np.ndarray:
    """Returns the kernel (P, *sites, P, *sites) of a field (P, *sites, S)."""
    rows = np.asarray(field).reshape(-1, field.shape[-1])
    return (rows @ rows.T / rows.shape[1]).astype(dtype).reshape(field.shape[:-1] * 2)


@dataclass(frozen=True)
class Particlewise(ParticleFunction):
    """A layer of one function, (P, *sites, C, S) -> (P, *sites', C', S), the same for each of S particles.

    Particles may meet in means over the last axis, and nowhere else. Samples must not meet.

    Args:
        function: a JAX function of fields; it is differentiated automatically.
        components: C, those of the Dense or Conv below.

    Example:
        >>> import kernelfield as kf, jax.numpy as jnp
        >>> from kernelfield.layers import Dense, Particlewise, Readout
        >>> product = Particlewise(lambda h: h[..., :1, :] * h[..., 1:, :], components=2)
        >>> kf.Network(layers=[Dense(components=2, width=2), product, Readout()]).hidden_layers
        1
    """

    function: Callable[[Array], Array]
    components: int = 1

    def apply(self, h: Array) -> Array:
        """Returns the function of h."""
        return self.function(h)


@dataclass(frozen=True)
class RMSNorm(ParticleFunction):
    """h / sqrt(<h^2> + eps), with the mean over all neurons, at each site.

    Args:
        eps: small number beside the mean square.

    Source: arXiv:1910.07467.
    """

    eps: float = 1e-5

    @property
    def is_sampled(self) -> bool:
        """False."""
        return False

    @property
    def keeps_gaussian(self) -> bool:
        """True: at infinite width it divides by numbers."""
        return True

    def apply(self, h: Array) -> Array:
        """Returns h in units of its root mean square."""
        return h / jnp.sqrt(jnp.mean(h * h, axis=(-2, -1), keepdims=True) + self.eps)

    def lazy_forward(self, kernel: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the kernel in these units."""
        return self._divide(kernel, kernel), kernel

    def lazy_backward(self, kernel: np.ndarray, trace: np.ndarray, seed: int) -> tuple[np.ndarray, float, np.ndarray]:
        """Returns the kernel over these units: gradients are independent of h, whose size does not feel them."""
        return self._divide(kernel, trace), 0.0, trace

    def _divide(self, kernel: np.ndarray, fields: np.ndarray) -> np.ndarray:
        rows = math.isqrt(fields.size)
        root = np.sqrt(np.diag(fields.reshape(rows, rows)) + self.eps)
        return kernel / np.outer(root, root).reshape(kernel.shape)


@dataclass(frozen=True)
class LayerNorm(RMSNorm):
    """(h - <h>) / sqrt(<(h - <h>)^2> + eps), with means over all neurons, at each site.

    `Gain` and `Bias` after it are what it learns in practice.

    Args:
        eps: small number beside the variance.

    Source: arXiv:1607.06450.
    """

    def apply(self, h: Array) -> Array:
        """Returns h without its mean, in units of its standard deviation."""
        return super().apply(h - jnp.mean(h, axis=(-2, -1), keepdims=True))


@dataclass(frozen=True)
class SwiGLU(ParticleFunction):
    """silu(a) b of two components (a, b): Dense or Conv with components=2 and twice the width below it.

    Source: arXiv:2002.05202.
    """

    components = 2

    def apply(self, h: Array) -> Array:
        """Returns silu(a) b."""
        return jax.nn.silu(h[..., :1, :]) * h[..., 1:, :]


@dataclass(frozen=True)
class MaxPool(ParticleFunction):
    """The largest value of each neuron in windows of `size` sites along each axis, which do not overlap.

    Args:
        size: of the windows; it divides the number of sites along each axis.
    """

    size: int = 2

    def apply(self, h: Array) -> Array:
        """Returns the largest values."""
        sites = h.shape[1:-2]
        return reduce_windows("max", h, sites, count_windows(self, self.size, sites))
