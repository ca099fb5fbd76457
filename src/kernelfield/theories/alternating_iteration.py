"""One iteration of Algorithm 1: neurons from kernels, then kernels and responses from neurons, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.linalg import solve_triangular

from kernelfield.activations.functions import Activation, elementwise_derivative

TRUSTED = 2.0  # the largest relative change of a row of time in one iteration at which later rows build on it
TINY = float(np.finfo(float).tiny)


class State(NamedTuple):
    """The order parameters of all layers, (n, n) each, and Delta (n,).

    Layers are 0..L for Phi, 0..L+1 for G, 0..L-1 for A and 0..L for B, with A^0 = B^L = 0. G and B have a gap at 0;
    gaps and ends of the lists stay as they are.
    """

    Phi: list[Array]
    G: list[Array]
    A: list[Array]
    B: list[Array]
    Delta: Array


class Constants(NamedTuple):
    """The data F_x (P, k), y (P,), gamma0, c = eta w (P,), and two settings of the method."""

    data: Array
    y: Array
    gamma0: Array
    c: Array
    damping: Array
    root_tol: Array


class Root(NamedTuple):
    """A causal root R (n, k) of a kernel, and weights (k,), which are one over its diagonal or zero."""

    R: Array
    weights: Array


class Neurons(NamedTuple):
    """S neurons of one layer: roots and coordinates (k, S) of u and r, C and D (n, n), and fields u, r, h, z (n, S)."""

    roots: tuple[Root, Root]
    zetas: tuple[Array, Array]
    C: Array
    D: Array
    u: Array
    r: Array
    h: Array
    z: Array


@dataclass(frozen=True)
class Iteration:
    """One pass of Algorithm 1 through all layers; tangents of `at_once` samples are in memory together."""

    phi: Activation
    depth: int
    times: int
    points: int
    stein: bool
    fields_at: tuple[int, ...]
    at_once: int

    def __call__(self, constants: Constants, zetas: list, old: State) -> tuple[State, Array, list[dict[str, Array]]]:
        """Returns the next state, its relative change, and h, z, g (steps, P, S) of layers 1..L at `fields_at`."""
        Phi, G, A, B = (list(layers) for layers in old[:4])
        now, fields, steps = State(Phi, G, A, B, old.Delta), [], np.array(self.fields_at, int)
        horizon, f = jnp.asarray(self.times - 1), jnp.zeros_like(old.Delta)

        def damp(before: Array, new: Array) -> Array:
            return constants.damping * before + (1 - constants.damping) * new

        for layer, zeta in enumerate(zetas, start=1):  # layers above see the new kernels of those below
            neurons = self.neurons(layer, constants, zeta, now)
            u, r, h, z = neurons[-4:]
            phi, g = self.phi.phi(h), self.phi.dphi(h) * z
            new_Phi, new_G = _mean(phi, phi), _mean(g, g)
            for new, kernel in ((new_Phi, Phi[layer]), (new_G, G[layer])):
                horizon = jnp.minimum(horizon, self.find_horizon(jnp.diag(new - kernel), jnp.diag(kernel)))
            settled = jnp.maximum(self.entry_times, self.entry_times[:, None]) <= horizon
            sources = self.sources(horizon)
            Phi[layer] = damp(Phi[layer], new_Phi[sources][:, sources])
            G[layer] = damp(G[layer], new_G[sources][:, sources])
            if layer < self.depth:
                A[layer] = damp(A[layer], jnp.where(settled, self.response(neurons, by_r=True), 0.0))
            if layer > 1:
                B[layer - 1] = damp(B[layer - 1], jnp.where(settled, self.response(neurons, by_r=False), 0.0))
            f = jnp.mean((z - r) * phi + r * (phi - self.phi.phi(u)), axis=1) / constants.gamma0  # of the last layer
            named = (("h", h), ("z", z), ("g", g))
            fields.append({name: field.reshape(self.times, self.points, -1)[steps] for name, field in named})
        new = now._replace(Delta=damp(old.Delta, self.errors(constants, now, f, horizon)))
        changes = jax.tree.map(lambda a, b: jnp.linalg.norm(a - b) / jnp.maximum(jnp.linalg.norm(a), TINY), new, old)
        return new, jnp.max(jnp.stack(jax.tree.leaves(changes))) / (1 - constants.damping), fields

    def start(self, constants: Constants) -> State:
        """Returns the state before the first iteration: the kernels of inputs and readout, and zeros."""
        K = jnp.tile(constants.data @ constants.data.T, (self.times, self.times))
        gap, zero = jnp.zeros(()), jnp.zeros_like(K)
        hidden, between = [zero] * self.depth, [zero] * (self.depth - 1)
        G = [gap, *hidden, jnp.ones_like(K)]
        return State([K, *hidden], G, [zero, *between], [gap, *between, zero], zero[0])

    def neurons(self, layer: int, constants: Constants, zetas: tuple[Array, Array], now: State) -> Neurons:
        """Returns neurons that solve h(t) = u(t) + sum_{s<t} C g(s), z(t) = r(t) + sum_{s<=t} D phi(s)."""
        data, ones = jnp.tile(constants.data, (self.times, 1)), jnp.ones((self.times * self.points, 1))
        roots = (
            Root(data, data[0]) if layer == 1 else self.root(now.Phi[layer - 1], constants.root_tol),
            Root(ones, ones[0]) if layer == self.depth else self.root(now.G[layer + 1], constants.root_tol),
        )
        u, r = (root.R @ zeta for root, zeta in zip(roots, zetas, strict=True))
        pull = jnp.where(self.causal_mask(1), constants.gamma0 * jnp.tile(constants.c, self.times) * now.Delta, 0.0)
        C = now.A[layer - 1] + pull * now.Phi[layer - 1]
        D = now.B[layer] + pull * now.G[layer + 1]

        def step(t: Array, fields: tuple[Array, ...]) -> tuple[Array, ...]:
            h, z, phi, g = fields  # zero from t on
            h_t = self.take(u, t) + self.take(C, t) @ g
            phi = self.put(phi, self.phi.phi(h_t), t)
            z_t = self.take(r, t) + self.take(D, t) @ phi
            return self.put(h, h_t, t), self.put(z, z_t, t), phi, self.put(g, self.phi.dphi(h_t) * z_t, t)

        h, z, *_ = lax.fori_loop(0, self.times, step, (jnp.zeros_like(u),) * 4)
        return Neurons(roots, zetas, C, D, u, r, h, z)

    def root(self, kernel: Array, tol: Array) -> Root:
        """Returns R with R R^T = kernel up to `tol`, in the order of time.

        R comes from Cholesky with a nugget, or for Stein from Gram-Schmidt. Column i is the direction that entry i adds
        to the entries before. Stein's lemma divides by its standard deviation. The weight, one over this, and the
        column fade to zero where the variance falls below 2 `tol`.
        """
        least, entries = tol * jnp.mean(jnp.diag(kernel)[: self.points]) + TINY, jnp.arange(len(kernel))
        if not self.stein:
            factor = jnp.linalg.cholesky(kernel + least * jnp.eye(len(kernel)))
            return Root(factor, 1 / jnp.diag(factor))

        def add(i: Array, root: Root) -> Root:
            rest = jnp.where(entries >= i, kernel[:, i] - root.R @ root.R[i], 0.0)
            weight = jnp.clip(rest[i] / least - 1.0, 0.0, 1.0) / jnp.sqrt(jnp.maximum(rest[i], least))
            return Root(root.R.at[:, i].set(rest * weight), root.weights.at[i].set(weight))

        return lax.fori_loop(0, len(kernel), add, Root(jnp.zeros_like(kernel), jnp.zeros_like(kernel[0])))

    def errors(self, constants: Constants, now: State, f: Array, horizon: Array) -> Array:
        """Returns Delta = y - f after one Newton step, with df = -c 1[s<t] NTK dDelta."""
        y, ntk = jnp.tile(constants.y, self.times), sum(map(jnp.multiply, now.Phi, now.G[1:]))
        slope = jnp.where(self.causal_mask(1), jnp.tile(constants.c, self.times) * ntk, 0.0)
        misfit = jnp.where(self.entry_times <= horizon, y - f - now.Delta, 0.0)
        step = solve_triangular(slope, misfit, lower=True, unit_diagonal=True)
        return (now.Delta + step)[self.sources(jnp.minimum(horizon, self.find_horizon(step, y)))]

    def response(self, neurons: Neurons, by_r: bool) -> Array:
        """Returns A = <dphi/dr>, s < t, or else B of the layer below = <dg/du>, s <= t."""
        phi, dphi, u, r, h, z = self.phi.phi, self.phi.dphi, *neurons[-4:]
        if self.stein:  # <phi(u) zeta_r> = 0 and <phi'(u) r zeta_u> = 0
            change = phi(h) - phi(u) if by_r else dphi(h) * (z - r) + (dphi(h) - dphi(u)) * r
            moments = jnp.where(self.causal_mask(int(by_r)), _mean(change, neurons.zetas[by_r]), 0.0)
            R, weights = neurons.roots[by_r]
            return solve_triangular(R * weights, (moments * weights).T, trans=1, lower=True, unit_diagonal=True).T
        ddphi = elementwise_derivative(dphi)
        lazy = jnp.zeros_like(r) if by_r else r * ddphi(u)  # <r phi''(u)> = 0
        one = jnp.eye(len(lazy))[..., None]

        def add(total: Array, block: tuple[Array, ...]) -> tuple[Array, None]:
            slope, bend, lazy = block
            tangents = self.tangents(neurons.C, neurons.D, slope, bend, by_r)
            return total + jnp.sum(tangents - one * lazy, axis=-1), None

        fields = (dphi(h), z * ddphi(h), lazy)
        blocks = tuple(jnp.moveaxis(field.reshape(len(lazy), -1, self.at_once), 1, 0) for field in fields)
        return lax.scan(add, jnp.zeros_like(neurons.C), blocks)[0] / lazy.shape[1]

    def tangents(self, C: Array, D: Array, slope: Array, bend: Array, by_r: bool) -> Array:
        """Returns dphi/dr, or else dg/du (n, n, s): dh = 1_u + C dg, dz = 1_r + D dphi and dg = phi' dz + z phi'' dh.

        Blocks of rows follow one another in time: earlier blocks contribute one matrix product for all samples.
        """
        n, height = len(C), self.points * max(-(-self.times // 8), -(-32 // self.points))
        dphi = dg = jnp.zeros((n, n, slope.shape[1]))
        for start in range(0, n, height):
            old, new, stop = slice(start), slice(start, start + height), min(start + height, n)
            ahead = ((0, 0), (0, stop - start), (0, 0))
            dh = jnp.pad(jnp.tensordot(C[new, old], dg[old, old], 1), ahead)
            dz = jnp.pad(jnp.tensordot(D[new, old], dphi[old, old], 1), ahead)
            one = jnp.eye(n)[new, :stop, None]
            dh, dz = (dh, dz + one) if by_r else (dh + one, dz)
            inside = C[new, new], D[new, new], slope[new, None], bend[new, None], dh, dz

            def step(t: Array, tangents: tuple[Array, Array], inside: tuple = inside) -> tuple[Array, Array]:
                dphi, dg = tangents
                C, D, slope, bend, dh, dz = (self.take(values, t) for values in inside)
                dh = dh + jnp.tensordot(C, dg, 1)
                dphi = self.put(dphi, slope * dh, t)
                dz = dz + jnp.tensordot(D, dphi, 1)
                return dphi, self.put(dg, slope * dz + bend * dh, t)

            blocks = lax.fori_loop(0, (stop - start) // self.points, step, (jnp.zeros_like(dh),) * 2)
            dphi, dg = (whole.at[new, :stop].set(block) for whole, block in zip((dphi, dg), blocks, strict=True))
        return dphi if by_r else dg

    @property
    def entry_times(self) -> Array:
        """The time of every entry (n,)."""
        return jnp.repeat(jnp.arange(self.times), self.points)

    def causal_mask(self, lag: int) -> Array:
        """Returns 1[s + lag <= t], (n, n)."""
        return self.entry_times + lag <= self.entry_times[:, None]

    def take(self, matrix: Array, t: Array) -> Array:
        """Returns the entries of time t."""
        return lax.dynamic_slice_in_dim(matrix, t * self.points, self.points)

    def put(self, matrix: Array, rows: Array, t: Array) -> Array:
        """Returns the matrix with other entries at time t."""
        return lax.dynamic_update_slice_in_dim(matrix, rows, t * self.points, 0)

    def find_horizon(self, change: Array, size: Array) -> Array:
        """Returns the first time whose change (n,) is large against its size (n,), or not a number; else the last."""
        change, size = (jnp.abs(values).reshape(self.times, -1).sum(axis=1) for values in (change, size))
        return jnp.argmin((change <= TRUSTED * size).at[-1].set(False))

    def sources(self, horizon: Array) -> Array:
        """Returns the entries (n,) that replace all entries: those after the horizon repeat their sample at it."""
        return jnp.minimum(self.entry_times, horizon) * self.points + jnp.tile(jnp.arange(self.points), self.times)


def _mean(left: Array, right: Array) -> Array:
    return left @ right.T / left.shape[1]
