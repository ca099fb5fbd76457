"""Layers without weights: nonlinearities, and averages over sites."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
from jax import Array

from kernelfield.activations.functions import Activation as Nonlinearity
from kernelfield.activations.functions import activation, elementwise_derivative
from kernelfield.activations.gaussian_averages import kernel_map
from kernelfield.engine.series import Fields, apply_linear, lift, lowest_order
from kernelfield.engine.wiring import Sites
from kernelfield.layers.base import FieldTrace, Mass, Signal, Stateless, Tape
from kernelfield.layers.kernels import sites_of, split_sites


@dataclass(frozen=True)
class Activation(Stateless):
    """phi(h) going up, g = phi'(h) z going down.

    Args:
        nonlinearity: a name that `kernelfield.MLP` knows, or any elementwise JAX function.
    """

    nonlinearity: Nonlinearity

    def __post_init__(self) -> None:
        object.__setattr__(self, "nonlinearity", activation(self.nonlinearity))

    @property
    def is_linear(self) -> bool:
        """Whether phi is the identity."""
        return self.nonlinearity.is_linear

    def forward(self, state: None, x: Fields, mass: Mass) -> tuple[None, Fields, FieldTrace]:
        """Returns phi(h)."""
        phi = lift(self.nonlinearity.phi, self.nonlinearity.dphi)(x)
        return None, phi, FieldTrace(h=x, phi=phi)

    def backward(
        self, state: None, chi: Fields, trace: FieldTrace, mass: Mass, signal: Signal
    ) -> tuple[None, Fields, FieldTrace]:
        """Returns g = phi'(h) z, or the activity that stands for it."""
        if signal.activity is not None:
            factor = signal.activity.astype(trace.phi.dtype)
            return None, factor.reshape(-1, *[1] * (trace.phi.ndim - 1)) * trace.phi, trace
        dphi = self.nonlinearity.dphi
        g = lift(dphi, elementwise_derivative(dphi))(trace.h) * chi
        return None, g, trace._replace(z=chi, g=g)

    def lazy_forward(self, kernel: np.ndarray, seed: int) -> tuple[np.ndarray, FieldTrace]:
        """Returns <phi(h) phi(h)> for Gaussian h."""
        phi = kernel_map(kernel, self.nonlinearity.phi, self.nonlinearity.feature_map)
        return phi, FieldTrace(h=kernel, phi=phi)

    def lazy_backward(self, kernel: np.ndarray, trace: FieldTrace, seed: int) -> tuple[np.ndarray, float, FieldTrace]:
        """Returns <g g> = <phi'(h) phi'(h)> <z z>."""
        g = kernel * kernel_map(trace.h, self.nonlinearity.dphi, self.nonlinearity.derivative_map)
        return g, 0.0, trace._replace(z=kernel, g=g)

    def finite_apply(self, params: None, x: Array, tape: Tape) -> Array:
        """Returns phi(x)."""
        return tape("phi", self.nonlinearity.phi(tape("h", x)))


def count_windows(layer: Stateless, size: int, sites: Sites) -> Sites:
    """Returns the numbers of windows of `size` sites along each axis; raises ValueError if they do not fit."""
    if not sites or any(number % size for number in sites):
        raise ValueError(f"{type(layer).__name__}(size={size}) needs sites that its size divides, got {sites}")
    return tuple(number // size for number in sites)


def reduce_windows(how: Literal["mean", "max"], x: Any, sites: Sites, counts: Sites) -> Any:
    """Returns the mean or the maximum of x (P, *sites, ...) over windows, `counts` of them along each axis."""
    split = [number for size, count in zip(sites, counts, strict=True) for number in (count, size // count)]
    windows = x.reshape(len(x), *split, *x.shape[1 + len(sites) :])
    return getattr(windows, how)(axis=tuple(range(2, 2 + 2 * len(sites), 2)))


class Pool(Stateless):
    """The average over windows of sites that do not overlap: a linear map between sites."""

    @property
    def is_linear(self) -> bool:
        """True."""
        return True

    def forward(self, state: None, x: Fields, mass: Mass) -> tuple[None, Fields, Fields]:
        """Returns the average; the trace is the field below."""
        return None, apply_linear(self._average, x), x

    def backward(
        self, state: None, chi: Fields, trace: Fields, mass: Mass, signal: Signal
    ) -> tuple[None, Fields, Fields]:
        """Returns an equal share for every site."""
        transpose = jax.linear_transpose(self._average, lowest_order(trace))
        return None, apply_linear(lambda values: transpose(values)[0], chi), trace

    def _average(self, x: Any) -> Any:
        sites = x.shape[1:-1]
        above = self.sites_above(sites)
        mean = reduce_windows("mean", x, sites, above or (1,) * len(sites))
        return mean.reshape(len(x), *above, x.shape[-1])

    def _matrix(self, sites: Sites) -> np.ndarray:
        """Returns the map (sites above, sites below)."""
        units = np.eye(math.prod(sites)).reshape(-1, *sites, 1)
        return np.asarray(self._average(units)).reshape(len(units), -1).T

    def lazy_forward(self, kernel: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the average over both sites; the trace is the kernel below."""
        sites = sites_of(kernel)
        matrix = self._matrix(sites)
        pooled = np.einsum("ba,manc,dc->mbnd", matrix, split_sites(kernel), matrix, optimize=True)
        return pooled.reshape((len(kernel), *self.sites_above(sites)) * 2), kernel

    def lazy_backward(self, kernel: np.ndarray, trace: np.ndarray, seed: int) -> tuple[np.ndarray, float, np.ndarray]:
        """Returns an equal share for every pair of sites."""
        matrix = self._matrix(sites_of(trace))
        divided = np.einsum("ba,mbnd,dc->manc", matrix, split_sites(kernel), matrix, optimize=True)
        return divided.reshape(trace.shape), 0.0, trace

    def finite_apply(self, params: None, x: Array, tape: Tape) -> Array:
        """Returns the average."""
        return self._average(x)


@dataclass(frozen=True)
class AveragePool(Pool):
    """The average over windows of `size` sites along each axis, which do not overlap.

    Args:
        size: of the windows; it divides the number of sites along each axis.
    """

    size: int = 2

    def sites_above(self, sites: Sites) -> Sites:
        """Returns one site for each window."""
        return count_windows(self, self.size, sites)


@dataclass(frozen=True)
class GlobalAveragePool(Pool):
    """The average over all sites, which leaves a field without sites."""

    def sites_above(self, sites: Sites) -> Sites:
        """Returns no sites."""
        if not sites:
            raise ValueError("GlobalAveragePool needs a field with sites")
        return ()
