"""One iteration of Algorithm 1: neurons from kernels, kernels and responses from neurons, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.linalg import solve_triangular

from kernelfield.activations.functions import Activation, elementwise_derivative

TRUSTED = 2.0  # change of a row of time in one iteration, relative, up to which later rows build on it
TINY = float(np.finfo(float).tiny)


class State(NamedTuple):
    """Order parameters by layer, (n, n) each, and Delta (n,). Ends and gaps of the lists stay as they are.

    Phi of layers 0..L, G of 0..L+1 (0 is a gap), A of 0..L-1, B of 0..L (0 is a gap), with A^0 = B^L = 0.
    """

    Phi: list[Array]
    G: list[Array]
    A: list[Array]
    B: list[Array]
    Delta: Array


class Constants(NamedTuple):
    """F_x (P, k), y (P,), gamma0, c = eta w (P,), and two settings."""

    data: Array
    y: Array
    gamma0: Array
    c: Array
    damping: Array
    root_tol: Array


class Root(NamedTuple):
    """Causal root R (n, k) of a kernel, and weights (k,), which are one over its diagonal or zero."""

    R: Array
    weights: Array


class Neurons(NamedTuple):
    """S neurons of one layer: roots and coordinates (k, S) of u and r, C and D (n, n), and u, r, h, z (n, S)."""

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
    """Algorithm 1 once through all layers; tangents of `at_once` samples are in memory together."""

    phi: Activation
    depth: int
    times: int
    points: int
    stein: bool
    fields_at: tuple[int, ...]
    at_once: int

    def __call__(self, constants: Constants, zetas: list, old: State) -> tuple[State, Array, list[dict[str, Array]]]:
        """The next state, its relative change, and h, z, g of layers 1..L at `fields_at`, (steps, P, S) each."""
        Phi, G, A, B = (list(each) for each in old[:4])
        now, recorded = State(Phi, G, A, B, old.Delta), []  # layers above see what those below found
        horizon, f = jnp.asarray(self.times - 1), jnp.zeros_like(old.Delta)

        def damped(before: Array, new: Array) -> Array:
            return constants.damping * before + (1 - constants.damping) * new

        for layer, zeta in enumerate(zetas, start=1):
            neurons = self.neurons(layer, constants, zeta, now)
            phi, g = self.phi.phi(neurons.h), self.phi.dphi(neurons.h) * neurons.z
            new_Phi, new_G = _mean(phi, phi), _mean(g, g)
            for new, kernel in ((new_Phi, Phi[layer]), (new_G, G[layer])):
                horizon = jnp.minimum(horizon, self.trusted(jnp.diag(new - kernel), jnp.diag(kernel)))
            held, known = self.held(horizon), jnp.maximum(self.at, self.at[:, None]) <= horizon
            Phi[layer] = damped(Phi[layer], new_Phi[held][:, held])
            G[layer] = damped(G[layer], new_G[held][:, held])
            if layer < self.depth:
                A[layer] = damped(A[layer], jnp.where(known, self.response(neurons, by_r=True), 0.0))
            if layer > 1:
                B[layer - 1] = damped(B[layer - 1], jnp.where(known, self.response(neurons, by_r=False), 0.0))
            u, r, _, z = neurons[-4:]
            f = jnp.mean((z - r) * phi + r * (phi - self.phi.phi(u)), axis=1) / constants.gamma0  # of the last layer
            recorded.append({"h": self.chosen(neurons.h), "z": self.chosen(neurons.z), "g": self.chosen(g)})
        new = now._replace(Delta=damped(old.Delta, self.errors(constants, now, f, horizon)))
        return new, _change(new, old) / (1 - constants.damping), recorded

    def neurons(self, layer: int, constants: Constants, zetas: tuple[Array, Array], now: State) -> Neurons:
        """Solve h(t) = u(t) + sum_{s<t} C g(s), z(t) = r(t) + sum_{s<=t} D phi(s), forward in time."""
        data, ones = jnp.tile(constants.data, (self.times, 1)), jnp.ones((self.times * self.points, 1))
        roots = (
            Root(data, data[0]) if layer == 1 else self.root(now.Phi[layer - 1], constants.root_tol),
            Root(ones, ones[0]) if layer == self.depth else self.root(now.G[layer + 1], constants.root_tol),
        )
        u, r = (root.R @ zeta for root, zeta in zip(roots, zetas, strict=True))
        learned = jnp.where(self.until(1), constants.gamma0 * self.at_all_times(constants.c) * now.Delta, 0.0)
        C = now.A[layer - 1] + learned * now.Phi[layer - 1]
        D = now.B[layer] + learned * now.G[layer + 1]

        def step(t: Array, done: tuple[Array, ...]) -> tuple[Array, ...]:
            h, z, phi, g = done  # zero from t on
            h_t = self.rows(u, t) + self.rows(C, t) @ g
            phi = self.put(phi, self.phi.phi(h_t), t)
            z_t = self.rows(r, t) + self.rows(D, t) @ phi
            return self.put(h, h_t, t), self.put(z, z_t, t), phi, self.put(g, self.phi.dphi(h_t) * z_t, t)

        h, z, *_ = lax.fori_loop(0, self.times, step, (jnp.zeros_like(u),) * 4)
        return Neurons(roots, zetas, C, D, u, r, h, z)

    def root(self, kernel: Array, tol: Array) -> Root:
        """R with R R^T = kernel up to `tol`, in the order of time: Cholesky with a nugget, or for Stein Gram-Schmidt.

        Column i is the direction that entry i adds to those before. Stein's lemma divides by its standard deviation,
        which becomes a weight that fades to zero, and the column with it, where the variance falls below 2 `tol`.
        """
        least, entries = tol * jnp.mean(jnp.diag(kernel)[: self.points]) + TINY, jnp.arange(len(kernel))
        if not self.stein:
            factor = jnp.linalg.cholesky(kernel + least * jnp.eye(len(kernel)))
            return Root(factor, 1 / jnp.diag(factor))

        def add(i: Array, done: Root) -> Root:
            rest = jnp.where(entries >= i, kernel[:, i] - done.R @ done.R[i], 0.0)
            weight = jnp.clip(rest[i] / least - 1.0, 0.0, 1.0) / jnp.sqrt(jnp.maximum(rest[i], least))
            return Root(done.R.at[:, i].set(rest * weight), done.weights.at[i].set(weight))

        return lax.fori_loop(0, len(kernel), add, Root(jnp.zeros_like(kernel), jnp.zeros_like(kernel[0])))

    def errors(self, constants: Constants, now: State, f: Array, horizon: Array) -> Array:
        """Delta = y - f by one Newton step, with df = -c 1[s<t] NTK dDelta."""
        y, ntk = self.at_all_times(constants.y), sum(map(jnp.multiply, now.Phi, now.G[1:]))
        slope = jnp.where(self.until(1), self.at_all_times(constants.c) * ntk, 0.0)
        misfit = jnp.where(self.at <= horizon, y - f - now.Delta, 0.0)
        step = solve_triangular(slope, misfit, lower=True, unit_diagonal=True)
        return (now.Delta + step)[self.held(jnp.minimum(horizon, self.trusted(step, y)))]

    def response(self, neurons: Neurons, by_r: bool) -> Array:
        """A = <dphi/dr>, s < t, or else B of the layer below = <dg/du>, s <= t."""
        phi, dphi, u, r, h, z = self.phi.phi, self.phi.dphi, *neurons[-4:]
        if self.stein:  # <phi(u) zeta_r> = 0 and <phi'(u) r zeta_u> = 0
            moved = phi(h) - phi(u) if by_r else dphi(h) * (z - r) + (dphi(h) - dphi(u)) * r
            moments = jnp.where(self.until(int(by_r)), _mean(moved, neurons.zetas[by_r]), 0.0)
            return _over(moments, neurons.roots[by_r])
        ddphi = elementwise_derivative(dphi)
        lazy = jnp.zeros_like(r) if by_r else r * ddphi(u)  # <r phi''(u)> = 0
        one = jnp.eye(len(lazy))[..., None]

        def add(total: Array, block: tuple[Array, ...]) -> tuple[Array, None]:
            slope, bend, lazy = block
            tangents = self.tangents(neurons.C, neurons.D, slope, bend, by_r)
            return total + jnp.sum(tangents - one * lazy, axis=-1), None

        fields = (dphi(h), z * ddphi(h), lazy)
        blocks = tuple(jnp.moveaxis(each.reshape(len(lazy), -1, self.at_once), 1, 0) for each in fields)
        return lax.scan(add, jnp.zeros_like(neurons.C), blocks)[0] / lazy.shape[1]

    def tangents(self, C: Array, D: Array, slope: Array, bend: Array, by_r: bool) -> Array:
        """dphi/dr, or else dg/du (n, n, s), by dh = 1_u + C dg, dz = 1_r + D dphi and dg = phi' dz + z phi'' dh.

        Forward in time, in blocks of rows: what the blocks before contribute is one matrix product for all samples.
        """
        n, height = len(C), self.points * max(-(-self.times // 8), -(-32 // self.points))
        dphi = dg = jnp.zeros((n, n, slope.shape[1]))
        for start in range(0, n, height):
            old, new, stop = slice(start), slice(start, start + height), min(start + height, n)
            ahead = ((0, 0), (0, stop - start), (0, 0))
            dh, dz = (
                jnp.pad(jnp.tensordot(coupling[new, old], done[old, old], 1), ahead)
                for coupling, done in ((C, dg), (D, dphi))
            )
            one = jnp.eye(n)[new, :stop, None]
            dh, dz = (dh, dz + one) if by_r else (dh + one, dz)
            inside = C[new, new], D[new, new], slope[new, None], bend[new, None], dh, dz

            def step(t: Array, done: tuple[Array, Array], inside: tuple = inside) -> tuple[Array, Array]:
                dphi, dg = done
                C, D, slope, bend, dh, dz = (self.rows(each, t) for each in inside)
                dh = dh + jnp.tensordot(C, dg, 1)
                dphi = self.put(dphi, slope * dh, t)
                dz = dz + jnp.tensordot(D, dphi, 1)
                return dphi, self.put(dg, slope * dz + bend * dh, t)

            blocks = lax.fori_loop(0, (stop - start) // self.points, step, (jnp.zeros_like(dh),) * 2)
            dphi, dg = (done.at[new, :stop].set(block) for done, block in zip((dphi, dg), blocks, strict=True))
        return dphi if by_r else dg

    def at_all_times(self, values: Array) -> Array:
        """Values of samples (P,) for every entry (n,)."""
        return jnp.tile(values, self.times)

    @property
    def at(self) -> Array:
        """Time of every entry (n,)."""
        return jnp.repeat(jnp.arange(self.times), self.points)

    def until(self, lag: int) -> Array:
        """1[s + lag <= t], (n, n)."""
        return self.at + lag <= self.at[:, None]

    def rows(self, matrix: Array, t: Array) -> Array:
        """The entries of time t."""
        return lax.dynamic_slice_in_dim(matrix, t * self.points, self.points)

    def put(self, matrix: Array, rows: Array, t: Array) -> Array:
        """The matrix with other entries at time t."""
        return lax.dynamic_update_slice_in_dim(matrix, rows, t * self.points, 0)

    def chosen(self, field: Array) -> Array:
        """A field (n, S) at the steps to record, (steps, P, S)."""
        return field.reshape(self.times, self.points, -1)[np.array(self.fields_at, int)]

    def trusted(self, change: Array, size: Array) -> Array:
        """First time at which a change (n,) is large against a size (n,), or not a number; else the last time."""
        change, size = (jnp.abs(each).reshape(self.times, -1).sum(axis=1) for each in (change, size))
        return jnp.argmin((change <= TRUSTED * size).at[-1].set(False))

    def held(self, horizon: Array) -> Array:
        """For every entry (n,), the one of the same sample at the same time, or at the horizon if that is earlier."""
        return jnp.minimum(self.at, horizon) * self.points + jnp.tile(jnp.arange(self.points), self.times)


def _mean(left: Array, right: Array) -> Array:
    return left @ right.T / left.shape[1]


def _over(matrix: Array, root: Root) -> Array:
    """matrix R^-1."""
    scaled = (matrix * root.weights).T
    return solve_triangular(root.R * root.weights, scaled, trans=1, lower=True, unit_diagonal=True).T


def _change(new: State, old: State) -> Array:
    changes = jax.tree.map(lambda a, b: jnp.linalg.norm(a - b) / jnp.maximum(jnp.linalg.norm(a), TINY), new, old)
    return jnp.max(jnp.stack(jax.tree.leaves(changes)))
