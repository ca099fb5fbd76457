"""Alternating Monte Carlo: sample fields from kernels, average kernels over the fields, until both agree.

The paper's own solver for nonlinear networks. Kernels cover all pairs of the n = (steps + 1) P entries (t, mu), time
first, so that memory is O(n^2) and an iteration takes O(n^3) for each sample. Nothing is shared with the march.
"""

from __future__ import annotations

import functools
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Literal, cast

import jax
import numpy as np
from jax import Array
from pydantic import Field, field_validator
from scipy.special import ndtri
from threadpoolctl import threadpool_limits

from kernelfield.common.progress import Report
from kernelfield.describe.networks import MLP
from kernelfield.describe.run import Run
from kernelfield.solution.factors import stacked
from kernelfield.solution.kernel import network_kernels
from kernelfield.solution.method import Method
from kernelfield.solution.solution import Solution
from kernelfield.solution.status import Status
from kernelfield.theories.alternating_iteration import Constants, Iteration
from kernelfield.theories.static_ntk import factor

MOST_ENTRIES = 4096  # kernels of 128 MiB each, about 5 L + 4 of them for each replicate
DIVERGED = 1e3  # times the initial loss
CACHE_BYTES, MOST_BYTES = 2**23, 2**28  # tangents in memory together: on a CPU, and on an accelerator
RANK_TOL = 1e-14  # variance, relative, that factors of the final kernels leave out


class AlternatingMonteCarlo(Method):
    """Infinite width by Algorithm 1 of the paper: a fixed point of kernels over all pairs of times; a reference.

    An iteration takes the layers from below. With c = eta w (w = 1/P unless the problem has weights), gamma0 inside A
    and B, and A^0 = B^L = 0:

        u ~ GP(0, Phi^{l-1}),  C = A^{l-1} + gamma0 c 1[s<t] Phi^{l-1} Delta,  h(t) = u(t) + sum_{s<t} C g(s)
        r ~ GP(0, G^{l+1}),    D = B^l + gamma0 c 1[s<t] G^{l+1} Delta,        z(t) = r(t) + sum_{s<=t} D phi(s)
        Phi^l = <phi phi>, G^l = <g g>, A^l = <dphi/dr>, B^{l-1} = <dg/du>,    f = <z^L phi(h^L) - r phi(u)> / gamma0

    Draws are u = R zeta, with R the causal root of the kernel and the same zeta in all iterations: Sobol points through
    the normal quantile, made exactly orthonormal. Since R is causal, an undamped iteration makes at least one more row
    of time of one more layer final, and ends even where it does not contract. Rows that would build on a row which
    still moves a lot repeat that row. Linear networks come out exact, from one replicate.

    Args:
        samples: S, neurons of each hidden layer, of every replicate; a power of two, and no fewer than a neuron has
            Gaussian coordinates, which are 2 (steps + 1) P at most.
        replicates: number of independent draws; their spread is the standard error.
        damping: part of the old kernels, responses and Delta that an iteration keeps; 0 replaces them.
        max_iterations: the most iterations of each replicate.
        tolerance: relative change of every kernel, every response and Delta in one iteration at which it has
            converged; by default 1e-5, and 1e-10 for linear networks.
        responses: "derivatives" averages dphi/dr and dg/du, in O(n^3) operations for each sample; "stein" averages
            phi zeta R^-1 and g zeta R^-1, noisier, in O(n^2). By default derivatives if the activation is smooth.
        root_tol: variance, relative to the mean square at t = 0, that roots do not resolve. By default 1e-12, added to
            the diagonal; and 1e-4 for "stein", which divides by new directions, so that smaller ones are left out.
        seed: seed of the draws.

    Source: arXiv:2205.09653, Algorithm 1, in discrete time (sums over steps for its integrals; B includes equal
    times) and with its A, B, C, D multiplied by gamma0. Terms of the responses whose mean is zero are left out.
    Delta = y - f is solved by Newton's method, with the tangent kernel for the derivative of f.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> problem, training = kf.Problem(np.eye(2), [1.0, -1.0]), kf.GradientDescent(learning_rate=0.5, steps=4)
        >>> solution = kf.solve(kf.MLP(depth=2), problem, training, kf.AlternatingMonteCarlo(samples=64, replicates=2))
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
    networks: ClassVar[tuple[str, ...]] = ("MLP",)

    @field_validator("samples")
    @classmethod
    def _check_power(cls, samples: int) -> int:
        if samples & (samples - 1):
            raise ValueError(f"samples must be a power of two (Sobol points), got {samples}")
        return samples

    def supports(self, run: Run) -> None:
        """Raise ValueError if the problem is too large, or there are too few samples."""
        super().supports(run)
        network, problem, n = cast(MLP, run.network), run.problem, (run.steps + 1) * run.problem.points
        if n > MOST_ENTRIES:
            raise ValueError(
                f"AlternatingMonteCarlo keeps ((steps + 1) P)^2 numbers for each kernel and allows (steps + 1) P up to "
                f"{MOST_ENTRIES}, got {n}: use March, which needs no kernels over all pairs of times"
            )
        needed = max(map(sum, _coordinates(network.depth, n, problem.input_coordinates.shape[1])))
        if self.samples < needed:
            raise ValueError(f"samples must be at least {needed}, the coordinates of a neuron, got {self.samples}")

    def solve(self, run: Run, progress: Report, checkpoint: None = None) -> Solution | Status:
        """Returns the Solution; see `kernelfield.solve`."""
        with jax.enable_x64(True), threadpool_limits(1, "blas"):  # replicates have the cores
            iterations = _Iterations(run)
            return iterations.solution(iterations.iterate(progress))


jit = functools.lru_cache(maxsize=32)(jax.jit)  # equal iterations share what they compiled


def _coordinates(depth: int, n: int, rank: int) -> list[tuple[int, int]]:
    """Returns numbers of Gaussian coordinates of u and r, layers 1..L: inputs have the rank of K_x, the readout one."""
    return [(rank if layer == 1 else n, 1 if layer == depth else n) for layer in range(1, depth + 1)]


def _zetas(k_u: int, k_r: int, samples: int, seed: np.random.SeedSequence) -> tuple[Array, Array]:
    """Returns zeta of u (k_u, S) and r (k_r, S), in turns from one Sobol sequence, with <zeta_i zeta_j> = delta_ij."""
    from scipy.stats import qmc  # lazy: it takes half a second to import

    uniform = qmc.Sobol(k_u + k_r, rng=np.random.default_rng(seed)).random(samples)
    axes, lengths = np.linalg.qr(ndtri(uniform + 2.0**-32))
    zeta = np.sqrt(samples) * (axes * np.sign(np.diag(lengths))).T
    turns = np.argsort(np.argsort([*range(k_u), *range(k_r)], kind="stable"))
    return jax.device_put((zeta[turns[:k_u]], zeta[turns[k_u:]]))


class _Iterations:
    """The replicates of one run, which iterate side by side; lists hold their draws zeta, states, fields and so on."""

    def __init__(self, run: Run) -> None:
        network, problem, method = cast(MLP, run.network), run.problem, cast(AlternatingMonteCarlo, run.method)
        self.run, self.method, self.began = run, method, time.perf_counter()
        phi, depth, n = network.nonlinearity, network.depth, (run.steps + 1) * problem.points
        stein = method.responses == "stein" if method.responses else not phi.smooth
        self.exact = phi.is_linear and not stein
        self.tolerance = method.tolerance or (1e-10 if self.exact else 1e-5)
        self.root_tol = method.root_tol or (1e-4 if stein else 1e-12)
        data, eta = problem.input_coordinates, run.training.learning_rate
        numbers = data, problem.targets[:, 0], network.gamma0, eta * problem.weights, method.damping, self.root_tol
        self.constants = Constants(*jax.device_put([*map(np.float64, numbers)]))
        memory = CACHE_BYTES if jax.default_backend() == "cpu" else MOST_BYTES
        at_once = min(method.samples, 2 ** int(np.log2(max(1, memory / (16 * n**2)))))
        self.iteration = Iteration(phi, depth, run.steps + 1, problem.points, stein, run.fields_at, at_once)
        seeds = np.random.SeedSequence(method.seed).spawn(1 if self.exact else method.replicates)
        sizes = _coordinates(depth, n, data.shape[1])
        layers = [zip(sizes, seed.spawn(depth), strict=True) for seed in seeds]
        self.zetas = [[_zetas(*size, method.samples, seed) for size, seed in replicate] for replicate in layers]
        self.states, self.fields = [self.iteration.start(self.constants)] * len(seeds), [[]] * len(seeds)
        self.iterations, self.residuals = [0] * len(seeds), [np.inf] * len(seeds)
        compiled_from = time.perf_counter()
        self.program = jit(self.iteration).lower(self.constants, self.zetas[0], self.states[0]).compile()
        self.seconds_compile = time.perf_counter() - compiled_from

    @property
    def residual(self) -> float:
        """The relative change in the last iteration, the largest of all replicates."""
        return float(np.max(self.residuals))

    @property
    def errors(self) -> np.ndarray:
        """Delta (R, steps + 1, P)."""
        return np.stack([state.Delta for state in self.states]).reshape(len(self.states), -1, self.run.problem.points)

    def iterate(self, progress: Report) -> Status:
        """Iterate all replicates, as many at once as there are cores, until each has converged."""
        most, active = self.method.max_iterations, range(len(self.states))
        with ThreadPoolExecutor(min(len(active), os.cpu_count() or 1)) as pool:
            try:
                for done in range(1, most + 1):
                    list(pool.map(self._advance, active))
                    active = [index for index in active if not self.residuals[index] <= self.tolerance]
                    if not active or np.isnan(self.residual):
                        break
                    progress(done, most)
                progress(most, most)
            except KeyboardInterrupt:
                pool.shutdown(cancel_futures=True)
                return Status("interrupted", f"stopped by the user, at changes of {self.residual:.1e} in an iteration")
        problem, rounding = self.run.problem, np.finfo(float).eps / self.run.network.gamma0
        with np.errstate(over="ignore"):
            loss = np.max(self.errors**2 @ problem.weights)
        if np.isnan(self.residual) or loss > DIVERGED * max(problem.weights @ problem.targets[:, 0] ** 2, rounding**2):
            event = f"the loss exceeded {DIVERGED:g} times its initial value, or kernels overflowed"
            return Status("diverged", f"{event}: try a learning_rate below {self.run.training.learning_rate:g}")
        if active:
            event = f"kernels still change by {self.residual:.1e} in iteration {most} (tolerance {self.tolerance:g})"
            return Status("not_converged", f"{event}: raise max_iterations, or lower gamma0 or learning_rate")
        return Status()

    def _advance(self, index: int) -> None:
        """Do one iteration of a replicate."""
        with jax.enable_x64(True):
            state, change, self.fields[index] = self.program(self.constants, self.zetas[index], self.states[index])
            self.states[index], self.residuals[index] = state, float(change)
            self.iterations[index] += 1

    def solution(self, status: Status) -> Solution | Status:
        """Returns the last iterates as a Solution; the status alone if they mean nothing."""
        if status.code == "diverged" or not all(self.iterations):
            return status
        layers, f = range(1, self.iteration.depth + 1), self.run.problem.targets[:, 0] - self.errors

        def factors(kind: str, layer: int) -> np.ndarray:
            kernels = [np.asarray(getattr(state, kind)[layer]) for state in self.states]
            return stacked([factor(kernel, RANK_TOL)[None] for kernel in kernels]).reshape(*f.shape, -1)

        features, gradients = ([factors(kind, layer) for layer in layers] for kind in ("Phi", "G"))
        samples = {
            (layer, step): {
                name: np.stack([np.asarray(fields[layer - 1][name][place]) for fields in self.fields]) for name in "hzg"
            }
            for layer in layers
            for place, step in enumerate(self.run.fields_at)
        }
        return Solution(
            self.run,
            f,
            network_kernels(self.run.problem, features, gradients),
            field_samples=samples,
            exact=self.exact and status.code == "ok",
            status=status,
            info={
                "samples": self.method.samples,
                **{name: getattr(self, name) for name in ("iterations", "residual", "tolerance", "root_tol")},
                "feature_ranks": [F.shape[-1] for F in features],
                "gradient_ranks": [F.shape[-1] for F in gradients],
                "seconds_compile": self.seconds_compile,
                "seconds_run": time.perf_counter() - self.began - self.seconds_compile,
            },
        )
