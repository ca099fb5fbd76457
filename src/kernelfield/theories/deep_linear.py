"""Deep linear networks: the paper's algebraic matrix equations, iterated to their fixed point."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
from pydantic import Field
from scipy.linalg import solve_triangular
from threadpoolctl import threadpool_limits

from kernelfield.common.progress import Report
from kernelfield.describe.networks import MLP
from kernelfield.describe.run import Run
from kernelfield.solution.kernel import network_kernels
from kernelfield.solution.method import Method
from kernelfield.solution.solution import Solution
from kernelfield.solution.status import Status, diverged, interrupted

LEFT_OUT = 1e-15  # variance of a direction that a factor drops, relative to its largest
DIVERGED = 1e3  # times the initial loss
NEURONS = 4096  # samples of a field
TINY = np.finfo(float).tiny


class DeepLinear(Method):
    """Infinite width, linear networks: the algebraic equations of the theory as a fixed point. Exact.

    With c = eta gamma0, signal E = w Delta (w = 1/P unless the problem has weights), and 1[s<t] for earlier times:

        C^l = A^{l-1} + c 1[s<t] H^{l-1} E                D^l = B^l + c 1[s<t] G^{l+1} E
        R = (1 - C D)^{-1},  A^l = R C                    Q = (1 - D C)^{-1},  B^{l-1} = Q D
        H^l = R [H^{l-1} + C G^{l+1} C^T] R^T             G^l = Q [G^{l+1} + D H^{l-1} D^T] Q^T
        Delta(t+1) = Delta(t) - eta sum_{l=0..L} G^{l+1}(t,t) H^l(t+1,t) E(t)

    These equations are closed, since fields are linear in the Gaussian u and r. H^l = F F^T, a matrix over pairs of
    times and samples, is kept as F, from fields in terms of independent Gaussian variables: g^l = Q (r^l + D u^l) and
    h^l = u^l + C g^l; only Q is inverted, since A^l = C Q. A sweep takes O(L T^2 P (T + rank)) operations. The past
    does not depend on the future, so each sweep makes one more row of time exact, and usually many. Rows that
    settled stay as they are: iterating on them would amplify rounding errors. Where many rows overflow, half are tried.

    `info` of the Solution reports sweeps, residual (largest change with which a row settled), horizons (rows settled
    after each attempt), restarts (attempts cut short) and readout_gap, |<z^L h^L> / gamma0 - f| relative to targets.

    Args:
        tolerance: change of a row of time in one sweep at which it settles, relative to its fields and errors.
        max_iterations: the most sweeps in all.
        seed: seed of the samples of fields; nothing else is random.

    Source: arXiv:2205.09653, eqs. 11-12 and the appendix that defines C and D. The paper's A, B, C, D are ours
    divided by gamma0, and its time is continuous. Sums over steps replace its integrals, and kernels enter the
    update of Delta at steps t + 1 and t, which makes it exact for gradient descent.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> network, problem = kf.MLP(depth=3, activation="linear"), kf.Problem(np.eye(2), [1.0, -1.0])
        >>> solution = kf.solve(network, problem, kf.GradientDescent(learning_rate=0.2, steps=20), kf.DeepLinear())
        >>> solution.feature_kernel(layer=3).shape, solution.info["readout_gap"] < 1e-9
        ((2, 2), True)
    """

    tolerance: float = Field(default=1e-12, gt=0, lt=1)
    max_iterations: int = Field(default=1000, ge=1)
    seed: int = Field(default=0, ge=0)
    networks: ClassVar[tuple[str, ...]] = ("MLP",)

    def supports(self, run: Run) -> None:
        """Raise ValueError if the network is not linear."""
        super().supports(run)
        if not run.network.is_linear:
            activation = cast(MLP, run.network).activation
            raise ValueError(f"DeepLinear needs a network with activation='linear', got {activation!r}")

    def solve(self, run: Run, progress: Report, checkpoint: None = None) -> Solution | Status:
        """Returns the Solution; see `kernelfield.solve`."""
        return LinearRun(run, self).solve(progress)


@dataclass(frozen=True)
class _Rows:
    """Order parameters on the first T rows of time, by layer; T P rows are times, and samples within times."""

    Delta: np.ndarray  # (T, P)
    F: dict[int, np.ndarray]  # layer 0..L: (T P, k), H^l = F F^T
    G: dict[int, np.ndarray]  # layer 1..L+1: (T, T)
    A: dict[int, np.ndarray]  # layer 0..L: (T P, T), response of h to r at earlier times; A^0 = 0
    B: dict[int, np.ndarray]  # layer 0..L: (T, T P), response of g to u, one layer up, at earlier times; B^L = 0

    def resized(self, rows: int) -> _Rows:
        """The first `rows` rows of time; new ones repeat the last, whose columns are zero in A and B."""
        times, points = self.Delta.shape
        at = np.minimum(np.arange(rows), times - 1)
        entries = (points * at[:, None] + np.arange(points)).ravel()
        return _Rows(
            Delta=self.Delta[at],
            F={layer: F[entries] for layer, F in self.F.items()},
            G={layer: G[np.ix_(at, at)] for layer, G in self.G.items()},
            A={layer: A[np.ix_(entries, at)] for layer, A in self.A.items()},
            B={layer: B[np.ix_(at, entries)] for layer, B in self.B.items()},
        )


class LinearRun:
    """The rows of one run that have settled, and the report of how they did; `coupling` 0 leaves responses out."""

    def __init__(self, run: Run, settings: DeepLinear, coupling: float = 1.0) -> None:
        self.run, self.settings, self.coupling, self.began = run, settings, coupling, time.perf_counter()
        self.problem, self.gamma0, self.rate = run.problem, run.network.gamma0, run.training.learning_rate
        self.depth, self.last = cast(MLP, run.network).depth, run.steps
        self.limit = DIVERGED * (
            run.problem.weights @ run.problem.targets[:, 0] ** 2
        )  # loss at which a run has diverged
        self.sweeps, self.restarts, self.residual, self.horizons = 0, 0, 0.0, list[int]()
        layers, points = range(self.depth + 1), run.problem.points
        self.rows = _Rows(  # at initialization: h ~ GP(0, K_x) and g ~ GP(0, 1) in every layer
            Delta=run.problem.targets.T,
            F=dict.fromkeys(layers, run.problem.input_coordinates),
            G={layer + 1: np.ones((1, 1)) for layer in layers},
            A=dict.fromkeys(layers, np.zeros((points, 1))),
            B=dict.fromkeys(layers, np.zeros((1, points))),
        )

    def solve(self, progress: Report) -> Solution:
        """Returns the Solution, after sweeps to the end."""
        with threadpool_limits(1, "blas"), np.errstate(all="ignore"):  # small matrices; overflow is looked for
            return self.solution(self.iterate(progress))

    def sweep(self, rows: _Rows, settled: int) -> _Rows:
        """Returns the rows after all equations, but for the `settled` first; FloatingPointError where one overflows."""
        known = settled * self.problem.points
        new = _Rows(self.errors(rows, settled), dict(rows.F), dict(rows.G), dict(rows.A), dict(rows.B))
        for layer in range(1, self.depth + 1):
            h, _, A = self.fields(new, layer)
            new.F[layer] = _compress(h)
            new.A[layer] = np.vstack([rows.A[layer][:known], A[known:]])
        for layer in range(self.depth, 0, -1):
            _, D, Q = self.operators(new, layer)
            D_F = D @ new.F[layer - 1]
            new.G[layer] = Q @ (new.G[layer + 1] + D_F @ D_F.T) @ Q.T
            new.G[layer][:settled, :settled] = rows.G[layer][:settled, :settled]
            new.B[layer - 1] = np.vstack([rows.B[layer - 1][:settled], (Q @ D)[settled:]])
        return new

    def operators(self, rows: _Rows, layer: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns C (T P, T), D (T, T P) and Q (T, T) of a layer."""
        (steps, points), F = rows.Delta.shape, rows.F[layer - 1]
        c, signal = self.rate * self.gamma0, self.problem.weights * rows.Delta
        earlier = np.tri(steps, k=-1)  # 1[s < t]
        H_Delta = F @ np.einsum("smk,sm->ks", F.reshape(steps, points, -1), signal)
        G_Delta = (earlier * rows.G[layer + 1])[:, :, None] * signal
        C = self.coupling * rows.A[layer - 1] + c * np.repeat(earlier, points, axis=0) * H_Delta
        D = self.coupling * rows.B[layer] + c * G_Delta.reshape(steps, steps * points)
        Q = solve_triangular(np.eye(steps) - D @ C, np.eye(steps), lower=True, unit_diagonal=True, check_finite=False)
        return C, D, Q

    def fields(self, rows: _Rows, layer: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns h (T P, n) and g (T, n) of a layer in n independent Gaussian variables, and A (T P, T)."""
        F, (C, D, Q) = rows.F[layer - 1], self.operators(rows, layer)
        g = Q @ np.hstack([D @ F, _root(rows.G[layer + 1])])
        h = C @ g
        h[:, : F.shape[1]] += F
        return h, g, C @ Q

    def errors(self, rows: _Rows, settled: int) -> np.ndarray:
        """Returns Delta (T, P) by its exact increments."""
        (steps, points), Delta = rows.Delta.shape, rows.Delta.copy()
        layers = [(rows.F[layer].reshape(steps, points, -1), rows.G[layer + 1]) for layer in range(self.depth + 1)]
        for t in range(settled - 1, steps - 1):
            ntk_Delta = sum(G[t, t] * F[t + 1] @ (self.problem.weights * Delta[t] @ F[t]) for F, G in layers)
            Delta[t + 1] = Delta[t] - self.rate * ntk_Delta
        return Delta

    def iterate(self, progress: Report) -> Status:
        """Settle all rows: the whole horizon at once if that works, otherwise piece by piece."""
        window = self.last
        try:
            while (known := len(self.rows.Delta)) <= self.last:
                window = min(window, self.last + 1 - known)
                change = self.extend(window, progress)
                settled = len(self.rows.Delta) - known
                self.horizons += [known + settled] if settled else []
                self.restarts += settled < window
                if failure := self.failure(change, stuck=window == 1 and not settled):
                    return failure
                window = 2 * window if settled == window else max(1, window // 2)
        except KeyboardInterrupt:
            return interrupted(len(self.rows.Delta) - 1, self.last)
        return Status()

    def extend(self, window: int, progress: Report) -> float:
        """Try `window` more rows and keep those that settle; returns the last change of the first that did not."""
        known = settled = len(self.rows.Delta)
        rows, change = self.rows.resized(known + window), np.full(known + window + 1, np.inf)
        try:
            for due in range(known - 1, known - 1 + self.settings.max_iterations - self.sweeps):
                self.sweeps += 1
                new = self.sweep(rows, settled)
                change[:-1], rows = _change(new, rows), new
                before, settled = settled, int(np.argmax(change > self.settings.tolerance))
                self.residual = float(max([self.residual, *change[before:settled]]))
                progress(settled - 1, self.last)
                if settled == known + window or settled < due:  # a row is exact one sweep after the one before it
                    break
        except FloatingPointError:
            change[settled:] = np.inf
        finally:
            self.rows = rows.resized(settled)
        is_high = rows.Delta**2 @ self.problem.weights > self.limit
        return np.inf if is_high[settled:].any() else float(change[settled])

    def failure(self, change: float, stuck: bool) -> Status | None:
        """Returns the reason to stop, if there is one: divergence, too many sweeps, or rounding."""
        if (is_high := self.rows.Delta**2 @ self.problem.weights > self.limit).any():
            self.rows = self.rows.resized(int(np.argmax(is_high)))
        done = len(self.rows.Delta)
        if is_high.any() or (stuck and np.isinf(change)):
            return diverged(done, self.rate, DIVERGED)
        if done <= self.last and self.sweeps >= self.settings.max_iterations:
            event = f"{done} of {self.last + 1} rows settled in {self.sweeps} sweeps"
            return Status("not_converged", f"{event}: raise max_iterations, or lower gamma0 or learning_rate")
        if stuck:
            event = f"rounding errors change step {done} by {change:.1e} in every sweep"
            return Status("not_converged", f"{event}: raise tolerance above that, or lower learning_rate")

    def solution(self, status: Status) -> Solution:
        """Returns the settled rows as a Solution."""
        (steps, points), layers, y = self.rows.Delta.shape, range(1, self.depth + 1), self.problem.targets[:, 0]
        h, g, _ = self.fields(self.rows, self.depth)
        readout, f = np.einsum("tmk,tk->tm", h.reshape(steps, points, -1), g) / self.gamma0, y - self.rows.Delta
        features = [self.rows.F[layer].reshape(1, steps, points, -1) for layer in layers]
        gradients = [np.repeat(_root(self.rows.G[layer])[None, :, None], points, axis=2) for layer in layers]
        return Solution(
            self.run,
            f[None],
            network_kernels(self.problem, features, gradients),
            field_samples=self.sample(),
            exact=True,
            status=status,
            info={
                **{name: getattr(self, name) for name in ("sweeps", "residual", "horizons", "restarts")},
                "readout_gap": float(np.abs(f - readout).max() / (np.abs(y).max() or 1.0)),
                "feature_ranks": [factor.shape[-1] for factor in features],
                "gradient_ranks": [factor.shape[-1] for factor in gradients],
                "seconds_run": time.perf_counter() - self.began,
            },
        )

    def sample(self) -> dict[tuple[int, int], dict[str, np.ndarray]]:
        """Returns Gaussian samples of h and of g = z at some steps; a neuron is the same in both and at all times."""
        rng, samples, (steps, points) = np.random.default_rng(self.settings.seed), {}, self.rows.Delta.shape
        for layer in range(1, self.depth + 1):
            h, g, _ = self.fields(self.rows, layer)
            zeta = rng.standard_normal((h.shape[1], NEURONS))
            for step in [step for step in self.run.fields_at if step < steps]:
                gradient = np.tile(g[step] @ zeta, (1, points, 1))
                samples[layer, step] = {"h": h[None, step * points :][:, :points] @ zeta, "z": gradient, "g": gradient}
        return samples


def _compress(rows: np.ndarray) -> np.ndarray:
    """Returns the fewest columns that keep rows rows^T, with every row resolved relative to its own norm."""
    scaled = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), TINY)
    return rows @ _axes(scaled.T @ scaled)[0]


def _root(kernel: np.ndarray) -> np.ndarray:
    """Returns E with E E^T = kernel and the fewest columns, with every row resolved relative to its own norm."""
    scale = np.sqrt(np.diag(kernel))
    axes, variances = _axes(kernel / np.outer(scale, scale))
    return scale[:, None] * axes * np.sqrt(variances)


def _axes(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the principal axes of a kernel that are not negligible, and their variances."""
    if not np.isfinite(kernel).all():
        raise FloatingPointError("a sweep overflowed")
    variances, axes = np.linalg.eigh(kernel)
    matters = variances >= LEFT_OUT * variances[-1]
    return axes[:, matters], variances[matters]


def _change(new: _Rows, old: _Rows) -> np.ndarray:
    """Returns how much each row (T,) moved relative to the fields: the largest over Delta, G, A g / h and B h / g."""

    def norms(matrix: np.ndarray) -> np.ndarray:
        return np.linalg.norm(matrix.reshape(len(new.Delta), -1), axis=1)

    def size(matrix: np.ndarray) -> np.ndarray:
        return np.maximum(np.maximum.accumulate(norms(matrix)), TINY)

    changes = [norms(new.Delta - old.Delta) / size(new.Delta)]
    for layer in new.A:
        h, g = size(new.F[layer]), np.sqrt(np.maximum.accumulate(np.diag(new.G[layer + 1])))
        changes += [norms(np.tril(new.G[layer + 1] - old.G[layer + 1])) / g**2]
        changes += [norms(new.A[layer] - old.A[layer]) * g / h, norms(new.B[layer] - old.B[layer]) * h / g]
    return np.nan_to_num(np.max(changes, axis=0), nan=np.inf)
