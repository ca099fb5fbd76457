"""Finite networks: width N, trained by automatic differentiation, many seeds at once.

The independent witness of the theory. Gradients come from `jax.vjp`, kernels from averages over neurons;
nothing here is shared with the march but the description of the network.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from kernelfield.finite_network import CHUNK, Batch, Constants, Finite, Kernels, Record, Weights, compiled
from kernelfield.low_rank import compressed, stacked
from kernelfield.problem import Problem
from kernelfield.solution import Solution, Status
from kernelfield.time_modes import slim
from kernelfield.training import GradientDescent
from kernelfield.validation import Spec

Progress = Callable[[int, int], None]
DIVERGED = 1e3  # times the initial loss
BATCH_BYTES = 2**30  # parameters and recorded neurons of the seeds that train together
SECONDS_BETWEEN_FETCHES = 0.3  # what Ctrl-C waits for
LEFT_OUT = {"float32": 1e-7, "float64": 1e-15}  # variance, relative, that compressed kernels leave out


class FiniteWidth(Spec):
    """Networks of width N, several seeds (theory: an error of O(N^-1/2) each, and of O(1/N) in their mean).

    The replicates of the Solution are the seeds, so that standard errors are of the mean over seeds; the
    distance O(1/N) of that mean from infinite width is not in them.

    Trains on mini-batches too (`kernelfield.GradientDescent`), the same ones for all seeds: only their points are
    differentiated; predictions and kernels of all points are still recorded before every update.

    Args:
        width: N, neurons of each hidden layer.
        seeds: networks, each from its own random initialization.
        seed: of the first network; the others follow it, one by one.
        kernels: "all" records feature and gradient kernels of all times, "features" leaves gradient kernels
            and the NTK out, "none" records predictions (and fields) alone.
        precision: of the weights; "float64" for gamma0 below about 1e-3, where f is a small difference.

    Source: arXiv:2205.09653, section 2; gradient descent with learning rate eta gamma0^2 N on all weights.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> problem = kf.Problem(np.eye(2), [1.0, -1.0])
        >>> training = kf.GradientDescent(learning_rate=0.5, steps=4)
        >>> method = kf.FiniteWidth(width=32, seeds=3)
        >>> kf.solve(kf.MLP(depth=2), problem, training, method).replicate_predictions.shape
        (3, 5, 2)
    """

    width: int = Field(ge=1)
    seeds: int = Field(default=8, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
    kernels: Kernels = "all"
    precision: Literal["float32", "float64"] = "float32"

    mini_batches: ClassVar[bool] = True

    def run(
        self,
        network: Any,
        problem: Problem,
        training: GradientDescent,
        fields_at: Sequence[int],
        progress: Progress,
    ) -> Solution | Status:
        """Solve; see `kernelfield.solve`."""
        with jax.enable_x64(self.precision == "float64"):
            run = _Run(self, network, problem, training)
            return run.solution(run.all_seeds(fields_at, progress))


class Part(NamedTuple):
    """What a batch of seeds recorded: f (R, t, P), factors (R, t, P, k), tangent kernels (R, t, P, P), and fields."""

    f: np.ndarray
    features: list[np.ndarray]
    gradients: list[np.ndarray]
    tangents: np.ndarray | None
    fields: dict[tuple[int, int], dict[str, np.ndarray]]


class _Run:
    """One solve: batches of seeds, trained one after the other."""

    def __init__(self, method: FiniteWidth, network: Any, problem: Problem, training: GradientDescent) -> None:
        self.method, self.network, self.problem, self.training = method, network, problem, training
        shape = network.inputs(problem).shape[1:]
        self.finite = Finite(network.layers, shape, method.width, network.factorizes)
        self.constants = Constants(
            X=jnp.asarray(network.inputs(problem), method.precision),
            y=jnp.asarray(problem.y, method.precision),
            weights=jnp.asarray(problem.weights, method.precision),
            gamma0=jnp.asarray(network.gamma0, method.precision),
            eta=jnp.asarray(training.learning_rate, method.precision),
            last=jnp.asarray(training.steps),
            limit=jnp.asarray(DIVERGED * (problem.weights @ problem.y**2) / 2, method.precision),
        )
        self.batches = training.batches(problem.weights)
        self.seconds = {"compile": 0.0, "run": 0.0, "compress": 0.0}
        self.parts: list[Part] = []
        self.t, self.records, self.fields = 0, [], {}

    def all_seeds(self, fields_at: Sequence[int], progress: Progress) -> Status:
        """Train batch after batch; `parts` then holds what can be kept."""
        method, last = self.method, self.training.steps
        first, end, batch = method.seed, method.seed + method.seeds, self._batch()
        try:
            for start in range(first, end, batch):
                seeds = range(start, min(start + batch, end))

                def report(t: int, seeds: range = seeds) -> None:
                    done = (seeds.start - first) * last + len(seeds) * min(t, last)
                    progress(done // method.seeds, last)

                status = self._train(seeds, fields_at, report)
                self._finish()
                if status.code != "ok":
                    return status
        except KeyboardInterrupt:
            if self.parts:
                done = sum(len(part.f) for part in self.parts)
                return Status("interrupted", f"stopped by the user after {done} of {method.seeds} seeds")
            self._finish()
            return Status("interrupted", f"stopped by the user after {max(self.t - 1, 0)} of {last} steps")
        return Status()

    def _batch(self) -> int:
        """Seeds that train together: as many as fit in BATCH_BYTES, in batches of nearly equal size."""
        params = jax.eval_shape(self.finite.init, jnp.zeros((), jnp.uint32))
        numbers = 3 * sum(leaf.size for leaf in jax.tree.leaves(params))
        step = functools.partial(self.finite.step, self.method.kernels, self.constants)
        _, record = jax.eval_shape(step, Weights(params, self.constants.y), self.constants.last)
        numbers += (self.training.steps + 1 + CHUNK) * sum(leaf.size for leaf in jax.tree.leaves(record))
        most = max(1, BATCH_BYTES // (numbers * np.dtype(self.method.precision).itemsize))
        return -(-self.method.seeds // -(-self.method.seeds // most))

    def _train(self, seeds: range, fields_at: Sequence[int], report: Callable[[int], None]) -> Status:
        """Train the networks of `seeds` to the last step, fetching records on the way."""
        self.t, self.records, self.fields = 0, [], {}
        began = time.perf_counter()
        method, problem, training = self.method, self.problem, self.training
        programs = compiled(self.finite, method.kernels, problem.points, len(seeds), method.precision, training.batch)
        compiled_at = time.perf_counter()
        self.seconds["compile"] += compiled_at - began
        weights, stride = jax.block_until_ready(programs.init(jnp.asarray(seeds, jnp.uint32))), 1
        self.seconds["run"] += time.perf_counter() - compiled_at
        while self.t <= self.training.steps:
            began = time.perf_counter()
            if self.t in fields_at:
                for layer, passed in enumerate(programs.fields(weights, self.constants.X), start=1):
                    self.fields[layer, self.t] = {name: np.asarray(rows) for name, rows in passed.items()}
            bounds = [self.t + stride, self.training.steps + 1, *(t for t in fields_at if t > self.t)]
            now = programs.advance(
                self.constants, weights, jnp.asarray(self.t), jnp.asarray(min(bounds)), self._drawn()
            )
            reached, diverged = int(now.t), not now.alive
            self._keep(now.records, reached - diverged)
            weights, elapsed = now.weights, time.perf_counter() - began
            self.seconds["run"] += elapsed
            if diverged:
                return self._diverged()
            stride = max(1, min(CHUNK, int(stride * min(4.0, SECONDS_BETWEEN_FETCHES / elapsed))))
            report(self.t)
        return Status()

    def _drawn(self) -> Batch | None:
        """The batches of the next CHUNK steps, filled up with zeros beyond the last one; None for full batches."""
        if self.batches is None:
            return None
        rows, weights = (values[self.t : self.t + CHUNK] for values in self.batches)
        padding = [(0, CHUNK - len(rows)), (0, 0)]
        return Batch(
            jnp.asarray(np.pad(rows, padding), jnp.int32),
            jnp.asarray(np.pad(weights, padding), self.method.precision),
        )

    def _keep(self, records: Record, reached: int) -> None:
        """Fetch what the steps since `self.t` recorded, seeds first."""
        if reached > self.t:
            count = reached - self.t
            self.records.append(
                jax.tree.map(lambda leaf: np.moveaxis(np.array(np.asarray(leaf)[:count]), 0, 1), records)
            )
        self.t = reached

    def _diverged(self) -> Status:
        return Status(
            "diverged",
            f"the loss exceeded {DIVERGED:g} times its initial value at step {self.t}: "
            f"try a learning_rate below {self.training.learning_rate:g}",
        )

    def _finish(self) -> None:
        """Turn the records of a batch into a part, its kernels compressed."""
        if not self.records:
            return
        began = time.perf_counter()
        joined = jax.tree.map(lambda *chunks: np.concatenate(chunks, axis=1), *self.records)
        left_out = LEFT_OUT[self.method.precision]
        self.parts.append(
            Part(
                joined.f.astype(np.float64),
                [compressed(_by_neuron(rows), left_out) for rows in joined.features],
                [_summed(rows, compressed(_by_neuron(rows), left_out)) for rows in joined.gradients],
                joined.tangent,
                self.fields,
            )
        )
        self.records = []
        self.seconds["compress"] += time.perf_counter() - began

    def solution(self, status: Status) -> Solution | Status:
        """All parts, cut to the steps that all of them reached; the status alone if there are none."""
        if not self.parts:
            return status
        steps, left_out = min(part.f.shape[1] for part in self.parts), LEFT_OUT[self.method.precision]
        features, gradients = (
            tuple(
                slim(stacked([factor[:, :steps] for factor in layer]), left_out) for layer in zip(*factors, strict=True)
            )
            for factors in zip(*((part.features, part.gradients) for part in self.parts), strict=True)
        )
        fields = {
            key: {name: np.concatenate([part.fields[key][name] for part in self.parts]) for name in samples}
            for key, samples in self.parts[0].fields.items()
            if key[1] < steps
        }
        tangents = [part.tangents[:, :steps] for part in self.parts if part.tangents is not None]
        kernels, one = self.method.kernels, np.ones((1, 1, self.problem.points, 1))
        data = self.problem.input_coordinates[None, None]
        return Solution(
            network=self.network,
            problem=self.problem,
            training=self.training,
            method=self.method,
            replicate_predictions=np.concatenate([part.f[:, :steps] for part in self.parts]),
            feature_factors=() if kernels == "none" else (data, *features),
            gradient_factors=(*gradients, one) if kernels == "all" else (),
            tangent_kernels=np.concatenate(tangents) if tangents else None,
            field_samples=fields,
            status=status,
            info={
                "width": self.method.width,
                "seeds": sum(len(part.f) for part in self.parts),
                "feature_ranks": [factor.shape[-1] for factor in features],
                "gradient_ranks": [factor.shape[-1] for factor in gradients],
                "precision": self.method.precision,
                **{f"seconds_{name}": seconds for name, seconds in self.seconds.items()},
            },
        )


def _by_neuron(rows: np.ndarray) -> np.ndarray:
    """A field (R, t, P, *sites, N) with every site of a neuron as a neuron: its kernel is then the mean over sites."""
    return rows.reshape(*rows.shape[:3], -1)


def _summed(rows: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """The factor of the sum over sites, given that of their mean."""
    sites = np.prod(rows.shape[3:-1], dtype=int)
    return factor if sites == 1 else factor * np.sqrt(sites, dtype=factor.dtype)
