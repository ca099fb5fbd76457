"""Alternating Monte Carlo: sample fields from kernels, average kernels over the fields, until both agree.

The paper's own solver for nonlinear networks. Kernels cover all pairs of the n = (steps + 1) P entries (t, mu), time
first, so that memory is O(n^2) and an iteration takes O(n^3) for each sample. Nothing is shared with the march.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.linalg import solve_triangular
from pydantic import Field, field_validator
from scipy.special import ndtri
from scipy.stats import qmc
from threadpoolctl import threadpool_limits

from kernelfield.activations import Activation, elementwise_derivative
from kernelfield.low_rank import stacked
from kernelfield.problem import Problem
from kernelfield.solution import Solution, Status
from kernelfield.training import GradientDescent
from kernelfield.validation import Spec

Progress = Callable[[int, int], None]
MOST_ENTRIES = 4096  # kernels of 128 MiB each, about 5 L + 4 of them for each replicate
TRUSTED = 2.0  # change of a row of time in one iteration, relative, up to which later rows build on it
DIVERGED = 1e3  # times the initial loss
CACHE_BYTES, MOST_BYTES = 2**23, 2**28  # tangents in memory together: on a CPU, and on an accelerator
RANK_TOL = 1e-14  # of the factors of the final kernels
TINY = float(np.finfo(float).tiny)


class AlternatingMonteCarlo(Spec):
    """Infinite width by Algorithm 1 of the paper: a fixed point of kernels over all pairs of times; a reference.

    An iteration takes the layers from below. With c = eta / P, gamma0 inside A and B, and A^0 = B^L = 0:

        u ~ GP(0, Phi^{l-1}),  C = A^{l-1} + gamma0 c 1[s<t] Phi^{l-1} Delta,  h(t) = u(t) + sum_{s<t} C g(s)
        r ~ GP(0, G^{l+1}),    D = B^l + gamma0 c 1[s<t] G^{l+1} Delta,        z(t) = r(t) + sum_{s<=t} D phi(s)
        Phi^l = <phi phi>, G^l = <g g>, A^l = <dphi/dr>, B^{l-1} = <dg/du>,    f = <z^L phi(h^L) - r phi(u)> / gamma0

    Draws are u = R zeta, with R the causal root of the kernel and zeta kept throughout: Sobol points through the
    normal quantile, made exactly orthonormal. Since R is causal, an undamped iteration makes at least one more row of
    time of one more layer final, and ends even where it does not contract. Rows that would build on a row which still
    moves a lot repeat that row. Linear networks come out exact, from one replicate.

    Args:
        samples: S, neurons of each hidden layer, of every replicate; a power of two, and no fewer than a neuron has
            Gaussian coordinates, which are 2 (steps + 1) P at most.
        replicates: independent draws; their spread is the standard error.
        damping: part of the old kernels, responses and Delta that an iteration keeps; 0 replaces them.
        max_iterations: of each replicate.
        tolerance: relative change of every kernel, every response and Delta in one iteration at which it has
            converged; by default 1e-5, and 1e-10 for linear networks.
        responses: "derivatives" averages dphi/dr and dg/du, in O(n^3) operations for each sample; "stein" averages
            phi zeta R^-1 and g zeta R^-1, noisier, in O(n^2). By default derivatives if the activation is smooth.
        root_tol: variance, relative to the mean square at t = 0, below which a new direction of u or r fades out; by
            default 1e-12, and 1e-4 for "stein", which divides by it.
        seed: of the draws.

    Source: arXiv:2205.09653, Algorithm 1, in discrete time (sums over steps for its integrals; B includes equal
    times) and with its A, B, C, D multiplied by gamma0. Terms of the responses whose mean is zero are left out.
    Delta = y - f is solved by Newton's method, with the tangent kernel for the derivative of f.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> from kernelfield.theories.alternating import AlternatingMonteCarlo
        >>> problem, training = kf.Problem(np.eye(2), [1.0, -1.0]), kf.GradientDescent(learning_rate=0.5, steps=4)
        >>> solution = kf.solve(kf.MLP(depth=2), problem, training, AlternatingMonteCarlo(samples=64, replicates=2))
        >>> solution.replicate_predictions.shape, solution.info["residual"] < 1e-5
        ((2, 5, 2), True)
    """

    samples: int = Field(default=1024, ge=16)
    replicates: int = Field(default=4, ge=1)
    damping: float = Field(default=0.0, ge=0, lt=1)
    max_iterations: int = Field(default=300, ge=1)
    tolerance: float | None = Field(default=None, gt=0, lt=1)
    responses: Literal["derivatives", "stein"] | None = None
    root_tol: float | None = Field(default=None, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)

    @field_validator("samples")
    @classmethod
    def _balanced(cls, samples: int) -> int:
        if samples & (samples - 1):
            raise ValueError(f"samples must be a power of two (Sobol points), got {samples}")
        return samples

    def run(
        self, network: Any, problem: Problem, training: GradientDescent, fields_at: Sequence[int], progress: Progress
    ) -> Solution | Status:
        """Solve; see `kernelfield.solve`."""
        n = (training.steps + 1) * problem.points
        if n > MOST_ENTRIES:
            raise ValueError(
                f"AlternatingMonteCarlo keeps ((steps + 1) P)^2 numbers for each kernel and allows (steps + 1) P up to "
                f"{MOST_ENTRIES}, got {n}: use March, which needs no kernels over all pairs of times"
            )
        needed = max(map(sum, _coordinates(network.depth, n, problem.input_coordinates.shape[1])))
        if self.samples < needed:
            raise ValueError(f"samples must be at least {needed}, the coordinates of a neuron, got {self.samples}")
        with jax.enable_x64(True), threadpool_limits(1, "blas"):  # replicates have the cores
            run = _Run(self, network, problem, training, tuple(fields_at))
            return run.solution(run.iterate(progress))


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
    """F_x (P, k), y (P,), gamma0, c = eta / P, and two settings."""

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
            f = jnp.mean(neurons.z * phi - neurons.r * self.phi.phi(neurons.u), axis=1) / constants.gamma0
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
        learned = jnp.where(self.until(1), constants.gamma0 * constants.c * now.Delta, 0.0)
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
        """R with R R^T = kernel, by Gram-Schmidt in the order of time.

        Column i is the direction that entry i adds to those before. Its weight is one over its standard deviation,
        but fades to zero, and the column with it, where its variance falls from twice to once `tol`: a continuous choice.
        """
        least, entries = tol * jnp.mean(jnp.diag(kernel)[: self.points]) + TINY, jnp.arange(len(kernel))

        def add(i: Array, done: Root) -> Root:
            rest = jnp.where(entries >= i, kernel[:, i] - done.R @ done.R[i], 0.0)
            weight = jnp.clip(rest[i] / least - 1.0, 0.0, 1.0) / jnp.sqrt(jnp.maximum(rest[i], least))
            return Root(done.R.at[:, i].set(rest * weight), done.weights.at[i].set(weight))

        return lax.fori_loop(0, len(kernel), add, Root(jnp.zeros_like(kernel), jnp.zeros_like(kernel[0])))

    def errors(self, constants: Constants, now: State, f: Array, horizon: Array) -> Array:
        """Delta = y - f by one Newton step, with df = -c 1[s<t] NTK dDelta."""
        y, ntk = jnp.tile(constants.y, self.times), sum(map(jnp.multiply, now.Phi, now.G[1:]))
        slope = jnp.where(self.until(1), constants.c * ntk, 0.0)
        misfit = jnp.where(self.at <= horizon, y - f - now.Delta, 0.0)
        step = solve_triangular(slope, misfit, lower=True, unit_diagonal=True)
        return (now.Delta + step)[self.held(jnp.minimum(horizon, self.trusted(step, y)))]

    def response(self, neurons: Neurons, by_r: bool) -> Array:
        """A = <dphi/dr>, s < t, or else B of the layer below = <dg/du>, s <= t."""
        phi, dphi, u, r, h, z = self.phi.phi, self.phi.dphi, *neurons[-4:]
        if self.stein:  # <phi(u) zeta_r> = 0 and <phi'(u) r zeta_u> = 0
            moved = phi(h) - phi(u) if by_r else dphi(h) * z - dphi(u) * r
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


@functools.lru_cache(maxsize=32)
def _compiled(iteration: Iteration, structure: Any, shapes: tuple[tuple[int, ...], ...]) -> Callable:
    arguments = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(shape, jnp.float64) for shape in shapes])
    return jax.jit(iteration).lower(*arguments).compile()


class _Replicate:
    """One set of draws, and where its iteration has come."""

    def __init__(self, constants: Constants, iteration: Iteration, samples: int, seed: np.random.SeedSequence) -> None:
        n, depth, rank = iteration.times * iteration.points, iteration.depth, constants.data.shape[1]
        sizes = zip(_coordinates(depth, n, rank), seed.spawn(depth), strict=True)
        zetas = [_zetas(*size, samples, layer_seed) for size, layer_seed in sizes]
        gap, zero, ones = jnp.zeros(()), jnp.zeros((n, n)), jnp.ones((n, n))
        K = jnp.tile(constants.data @ constants.data.T, (iteration.times, iteration.times))
        hidden, between = [zero] * depth, [zero] * (depth - 1)
        self.state = State([K, *hidden], [gap, *hidden, ones], [zero, *between], [gap, *between, zero], zero[0])
        self.constants, self.zetas, self.fields = constants, zetas, []
        self.iterations, self.residual = 0, np.inf

    @property
    def errors(self) -> np.ndarray:
        """Delta (steps + 1, P)."""
        return np.asarray(self.state.Delta).reshape(-1, len(self.constants.y))

    def advance(self, program: Callable) -> None:
        """One iteration."""
        with jax.enable_x64(True):
            self.state, change, self.fields = program(self.constants, self.zetas, self.state)
            self.residual, self.iterations = float(change), self.iterations + 1


def _coordinates(depth: int, n: int, rank: int) -> list[tuple[int, int]]:
    """Gaussian coordinates of u and of r, of layers 1..L: inputs have the rank of K_x, and the readout has one."""
    return [(rank if layer == 1 else n, 1 if layer == depth else n) for layer in range(1, depth + 1)]


def _zetas(k_u: int, k_r: int, samples: int, seed: np.random.SeedSequence) -> tuple[Array, Array]:
    """Coordinates of u (k_u, S) and r (k_r, S), in turns from one Sobol sequence, with <zeta_i zeta_j> = delta_ij."""
    uniform = qmc.Sobol(k_u + k_r, rng=np.random.default_rng(seed)).random(samples)
    axes, lengths = np.linalg.qr(ndtri(uniform + 2.0**-32))
    zeta = np.sqrt(samples) * (axes * np.sign(np.diag(lengths))).T
    turns = np.argsort(np.argsort([*range(k_u), *range(k_r)], kind="stable"))
    return jnp.asarray(zeta[turns[:k_u]]), jnp.asarray(zeta[turns[k_u:]])


class _Run:
    """One solve: replicates that iterate side by side."""

    def __init__(
        self, method: AlternatingMonteCarlo, network: Any, problem: Problem, training: GradientDescent, at: tuple
    ) -> None:
        self.method, self.network, self.problem, self.training = method, network, problem, training
        phi, times, points = network.nonlinearity, training.steps + 1, problem.points
        self.exact, self.began = phi.is_linear, time.perf_counter()
        self.tolerance = method.tolerance or (1e-10 if self.exact else 1e-5)
        stein = (method.responses or ("derivatives" if phi.smooth else "stein")) == "stein"
        self.root_tol = method.root_tol or (1e-4 if stein and not self.exact else 1e-12)
        scalars = network.gamma0, training.learning_rate / points, method.damping, self.root_tol
        constants = Constants(*(jnp.asarray(np.float64(x)) for x in (problem.input_coordinates, problem.y, *scalars)))
        memory = CACHE_BYTES if jax.default_backend() == "cpu" else MOST_BYTES
        at_once = 2 ** int(np.log2(max(1, memory / (16 * (times * points) ** 2))))
        self.iteration = Iteration(phi, network.depth, times, points, stein, at, min(method.samples, at_once))
        seeds = np.random.SeedSequence(method.seed).spawn(1 if self.exact else method.replicates)
        self.replicates = [_Replicate(constants, self.iteration, method.samples, seed) for seed in seeds]
        compiled_from = time.perf_counter()
        leaves, structure = jax.tree.flatten((constants, self.replicates[0].zetas, self.replicates[0].state))
        self.program = _compiled(self.iteration, structure, tuple(leaf.shape for leaf in leaves))
        self.seconds_compile = time.perf_counter() - compiled_from

    @property
    def residual(self) -> float:
        """Relative change in the last iteration, the largest of all replicates."""
        return float(np.max([each.residual for each in self.replicates]))

    def iterate(self, progress: Progress) -> Status:
        """Iterate all replicates, as many at once as there are cores, until each has converged."""
        most, active = self.method.max_iterations, self.replicates
        with ThreadPoolExecutor(min(len(active), os.cpu_count() or 1)) as pool:
            try:
                for done in range(1, most + 1):
                    list(pool.map(_Replicate.advance, active, [self.program] * len(active)))
                    active = [each for each in active if not each.residual <= self.tolerance]
                    if not active or not np.isfinite(self.residual):
                        break
                    progress(done, most)
                progress(most, most)
            except KeyboardInterrupt:
                pool.shutdown(cancel_futures=True)
                return Status("interrupted", f"stopped by the user, at changes of {self.residual:.1e} in an iteration")
        with np.errstate(over="ignore"):
            losses = np.array([np.mean(each.errors**2, axis=1) for each in self.replicates])
        if not np.isfinite(self.residual) or losses.max() > DIVERGED * np.mean(self.problem.y**2):
            told = f"the loss exceeded {DIVERGED:g} times its initial value, or kernels overflowed"
            return Status("diverged", f"{told}: try a learning_rate below {self.training.learning_rate:g}")
        if active:
            told = f"kernels still change by {self.residual:.1e} in iteration {most} (tolerance {self.tolerance:g})"
            return Status("not_converged", f"{told}: raise max_iterations, or lower gamma0 or learning_rate")
        return Status()

    def solution(self, status: Status) -> Solution | Status:
        """The last iterates as a Solution; the status alone if they mean nothing."""
        if status.code == "diverged" or not all(each.iterations for each in self.replicates):
            return status
        layers, points, replicates = range(1, self.network.depth + 1), self.problem.points, self.replicates
        features = [stacked([_factor(each.state.Phi[layer], points) for each in replicates]) for layer in layers]
        gradients = [stacked([_factor(each.state.G[layer], points) for each in replicates]) for layer in layers]
        fields = {
            (layer, step): {
                name: np.stack([np.asarray(each.fields[layer - 1][name][place]) for each in replicates])
                for name in ("h", "z", "g")
            }
            for layer in layers
            for place, step in enumerate(self.iteration.fields_at)
        }
        return Solution(
            network=self.network,
            problem=self.problem,
            training=self.training,
            method=self.method,
            replicate_predictions=self.problem.y - np.stack([each.errors for each in replicates]),
            feature_factors=(self.problem.input_coordinates[None, None], *features),
            gradient_factors=(*gradients, np.ones((1, 1, points, 1))),
            field_samples=fields,
            exact=self.exact and status.code == "ok",
            status=status,
            info={
                "samples": self.method.samples,
                "iterations": [each.iterations for each in replicates],
                "residual": self.residual,
                "tolerance": self.tolerance,
                "root_tol": self.root_tol,
                "feature_ranks": [factor.shape[-1] for factor in features],
                "gradient_ranks": [factor.shape[-1] for factor in gradients],
                "seconds_compile": self.seconds_compile,
                "seconds_run": time.perf_counter() - self.began - self.seconds_compile,
            },
        )


def _factor(kernel: Any, points: int) -> np.ndarray:
    """F (1, steps + 1, P, k) with F F^T the kernel (n, n)."""
    variances, axes = np.linalg.eigh(np.asarray(kernel))
    kept = variances > RANK_TOL * variances[-1]
    return (axes[:, kept] * np.sqrt(variances[kept])).reshape(1, len(axes) // points, points, -1)
