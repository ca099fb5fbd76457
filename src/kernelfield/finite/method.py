"""Finite networks: width N, trained by automatic differentiation, many seeds at once.

The independent witness of the theory. Gradients come from `jax.vjp`, kernels from averages over neurons;
nothing here is shared with the march but the description of the network.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from kernelfield.common.progress import Report
from kernelfield.describe.problem import Problem
from kernelfield.describe.run import Run
from kernelfield.describe.training import SGD, GradientDescent, GradientFlow, OnlineSGD, Training
from kernelfield.finite.network import CHUNK, Constants, Finite, Kernels, Recorded, Updates, begun, compiled
from kernelfield.finite.predictor import FinitePredictor
from kernelfield.solution.kernel import network_kernels
from kernelfield.solution.low_rank import compressed, stacked
from kernelfield.solution.method import Method
from kernelfield.solution.solution import Solution
from kernelfield.solution.status import Status, interrupted
from kernelfield.solution.status import diverged as diverged_at
from kernelfield.solution.time_modes import slim

DIVERGED = 1e3  # times the initial loss
BATCH_BYTES = 2**30  # parameters and recorded neurons of the seeds that train together
SECONDS_BETWEEN_FETCHES = 0.3  # what Ctrl-C waits for
LEFT_OUT = {"float32": 1e-7, "float64": 1e-15}  # variance, relative, that compressed kernels leave out


class FiniteWidth(Method):
    """Networks of width N, several seeds (theory: an error of O(N^-1/2) each, and of O(1/N) in their mean).

    The replicates of the Solution are the seeds, so that standard errors are of the mean over seeds; the
    distance O(1/N) of that mean from infinite width is not in them.

    f is reported minus its value f0 at initialization, also under weight decay: at infinite width f0 is zero. Weight
    decay acts on all weights, biases and readout included. Mini-batches (`kernelfield.SGD`) are the same for all
    seeds; an update touches their points alone, and predictions and kernels of all points are recorded between epochs.

    Of C outputs, the fields z and g are those of the error signal, sum_c Delta_c z_c and sum_c Delta_c g_c.

    Args:
        width: N, neurons of each hidden layer.
        seeds: networks, each from its own random initialization.
        seed: of the first network; the others follow it, one by one.
        kernels: "all" records feature and gradient kernels of all times, "features" leaves gradient kernels
            and the NTK out, "none" records predictions (and fields) alone. Of several outputs "all" is "features";
            "per_output" records gradient kernels of every output too, with rows (sample, output), P C of them.
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

    rules: ClassVar[tuple[type, ...]] = (GradientDescent, SGD, OnlineSGD, GradientFlow)
    takes: ClassVar[frozenset[str]] = frozenset({"losses", "outputs", "momentum", "weight_decay", "schedule"})

    def solve(self, run: Run, progress: Report, checkpoint: None = None) -> Solution | Status:
        """Returns the Solution; see `kernelfield.solve`."""
        with jax.enable_x64(self.precision == "float64"):
            ensemble = Ensemble(run)
            return ensemble.solution(ensemble.all_seeds(progress))

    def restored_predictor(
        self, run: Run, info: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> FinitePredictor:
        """Returns what a solved run had left to predict with."""
        return FinitePredictor.restored(finite(run), run.network.gamma0, self.precision, arrays)


def finite(run: Run) -> Finite:
    """Returns the network at the width of its method, as plain functions."""
    method, network, problem, training = cast(FiniteWidth, run.method), run.network, run.problem, run.training
    return Finite(
        network.layers,
        network.inputs(problem).shape[1:],
        method.width,
        problem.loss,
        problem.outputs,
        network.factorizes,
        training.rtol if isinstance(training, GradientFlow) else None,
    )


class Part(NamedTuple):
    """What a batch of seeds recorded: f (R, t, P), factors (R, t, P, k), tangent kernels (R, t, P, P), fields,
    and parameters by step.

    Of C outputs f is (R, t, P, C), and gradients of every output have P C rows in place of P.
    """

    f: np.ndarray
    features: list[np.ndarray]
    gradients: list[np.ndarray]
    tangents: np.ndarray | None
    fields: dict[tuple[int, int], dict[str, np.ndarray]]
    params: dict[int, Any]


class Ensemble:
    """One solve: batches of seeds, trained one after the other."""

    def __init__(self, run: Run) -> None:
        self.run, self.method, self.finite = run, cast(FiniteWidth, run.method), finite(run)
        self.network, self.problem, self.training = network, problem, training = run.network, run.problem, run.training
        method = self.method
        momentum, decay = (
            (0.0, 0.0) if isinstance(training, GradientFlow) else (training.momentum, training.weight_decay)
        )
        self.rule = momentum > 0, decay > 0
        stream = problem.stream
        highest = DIVERGED * problem.initial_loss if problem.initial_loss > 0 else np.inf
        real = functools.partial(jnp.asarray, dtype=method.precision)
        self.constants = Constants(
            X=real(network.inputs(problem)),
            y=real(problem.y),
            weights=real(problem.weights),
            gamma0=real(network.gamma0),
            last=jnp.asarray(training.steps),
            limit=real(highest),
            momentum=real(momentum) if self.rule[0] else None,
            weight_decay=real(decay) if self.rule[1] else None,
            stream=None if stream is None else (real(network.inputs(stream)), real(stream.y)),
        )
        self.updates = _updates(problem, training)
        self.seconds = {"compile": 0.0, "run": 0.0, "compress": 0.0}
        self.parts: list[Part] = []
        self.t, self.records, self.fields, self.params = 0, [], {}, {}

    def all_seeds(self, progress: Report) -> Status:
        """Train batch after batch; `parts` then holds what can be kept."""
        method, last = self.method, self.training.steps
        first, end, batch = method.seed, method.seed + method.seeds, self._batch()
        try:
            for start in range(first, end, batch):
                seeds = range(start, min(start + batch, end))

                def report(t: int, seeds: range = seeds) -> None:
                    done = (seeds.start - first) * last + len(seeds) * min(t, last)
                    progress(done // method.seeds, last)

                status = self._train(seeds, report)
                self._finish()
                if status.code != "ok":
                    return status
        except KeyboardInterrupt:
            if self.parts:
                done = sum(len(part.f) for part in self.parts)
                return interrupted(done, method.seeds, "seeds")
            self._finish()
            return interrupted(max(self.t - 1, 0), last)
        return Status()

    def _batch(self) -> int:
        """Seeds that train together: as many as fit in BATCH_BYTES, in batches of nearly equal size."""
        stream_y = None if self.constants.stream is None else self.constants.stream[1]
        begin = functools.partial(begun, self.finite, self.rule[0], y=self.constants.y, stream_y=stream_y)
        all_weights = jax.eval_shape(begin, jnp.zeros(1, jnp.uint32))
        weights = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), all_weights)
        numbers = 3 * _size(weights.params) + _size(weights.velocity) + _size(weights.stream_f0)
        step = functools.partial(self.finite.step, self.method.kernels, self.constants)
        updates = jax.tree.map(lambda values: values[0], self._next())
        _, record = jax.eval_shape(step, weights, self.constants.last, updates)
        numbers += (self.training.steps + 1 + CHUNK) * _size(record)
        most = max(1, BATCH_BYTES // (numbers * np.dtype(self.method.precision).itemsize))
        return -(-self.method.seeds // -(-self.method.seeds // most))

    def _train(self, seeds: range, report: Callable[[int], None]) -> Status:
        """Train the networks of `seeds` to the last step, fetching records on the way."""
        self.t, self.records, self.fields, self.params = 0, [], {}, {}
        began = time.perf_counter()
        method, batches, stream = self.method, self.updates.rows, self.problem.stream
        sizes = None if batches is None else batches.shape[1:]
        programs = compiled(
            self.finite,
            method.kernels,
            self.problem.points,
            len(seeds),
            method.precision,
            self.rule,
            sizes,
            stream and stream.points,
        )
        compiled_at = time.perf_counter()
        self.seconds["compile"] += compiled_at - began
        weights, stride = jax.block_until_ready(programs.init(jnp.asarray(seeds, jnp.uint32))), 1
        self.seconds["run"] += time.perf_counter() - compiled_at
        while self.t <= self.training.steps:
            began = time.perf_counter()
            if self.t in self.run.fields_at:
                self.params[self.t] = jax.tree.map(np.array, weights.params)
                found = programs.fields(self.constants, weights, jnp.asarray(self.t))
                for layer, passed in enumerate(found, start=1):
                    self.fields[layer, self.t] = {name: np.asarray(rows) for name, rows in passed.items()}
            bounds = [self.t + stride, self.training.steps + 1, *(t for t in self.run.fields_at if t > self.t)]
            now = programs.advance(self.constants, weights, jnp.asarray(self.t), jnp.asarray(min(bounds)), self._next())
            reached, diverged = int(now.t), not now.alive
            self._keep(now.records, reached - diverged)
            weights, elapsed = now.weights, time.perf_counter() - began
            self.seconds["run"] += elapsed
            if diverged:
                return diverged_at(self.t, self.training.learning_rate, DIVERGED)
            stride = max(1, min(CHUNK, int(stride * min(4.0, SECONDS_BETWEEN_FETCHES / elapsed))))
            report(self.t)
        return Status()

    def _next(self) -> Updates:
        """The updates of the next CHUNK rows, filled up with zeros beyond the last one."""

        def chunk(values: np.ndarray) -> jax.Array:
            now = values[self.t : self.t + CHUNK]
            padded = np.pad(now, [(0, CHUNK - len(now)), *[(0, 0)] * (now.ndim - 1)])
            return jnp.asarray(padded, jnp.int32 if now.dtype.kind == "i" else self.method.precision)

        return jax.tree.map(chunk, self.updates)

    def _keep(self, records: Recorded, reached: int) -> None:
        """Fetch what the steps since `self.t` recorded, seeds first."""
        if reached > self.t:
            count = reached - self.t
            self.records.append(
                jax.tree.map(lambda leaf: np.moveaxis(np.array(np.asarray(leaf)[:count]), 0, 1), records)
            )
        self.t = reached

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
                self.params,
            )
        )
        self.records = []
        self.seconds["compress"] += time.perf_counter() - began

    def _predictor(self, steps: int) -> FinitePredictor:
        """What is left of all seeds, at steps that all of them reached."""
        shared = set.intersection(*(set(part.params) for part in self.parts))
        joined = {
            t: jax.tree.map(lambda *each: np.concatenate(each), *(part.params[t] for part in self.parts))
            for t in sorted(shared)
            if t < steps
        }
        done, first = sum(len(part.f) for part in self.parts), self.method.seed
        return FinitePredictor(
            self.finite, self.network.gamma0, tuple(range(first, first + done)), joined, self.method.precision
        )

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
        kernels = self.method.kernels
        return Solution(
            self.run,
            np.concatenate([part.f[:, :steps] for part in self.parts]),
            network_kernels(
                self.problem,
                None if kernels == "none" else features,
                gradients if self.finite.tracks_gradients(kernels) else None,
                np.concatenate(tangents) if tangents else None,
            ),
            field_samples=fields,
            predictor=self._predictor(steps),
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


def _updates(problem: Problem, training: Training) -> Updates:
    """The updates between rows (T, U); of gradient flow one, over the time between them."""
    if isinstance(training, GradientFlow):
        return Updates(np.full((training.steps, 1), training.learning_rate))
    batches = training.batches(problem)
    eta = training.rates(problem).reshape(training.steps, -1)
    return Updates(eta) if batches is None else Updates(eta, *(each.reshape(*eta.shape, -1) for each in batches))


def _size(tree: Any) -> int:
    """Numbers in a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _by_neuron(rows: np.ndarray) -> np.ndarray:
    """A field (R, t, P, *sites, N) with every site of a neuron as a neuron: its kernel is then the mean over sites."""
    return rows.reshape(*rows.shape[:3], -1)


def _summed(rows: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """The factor of the sum over sites, given that of their mean."""
    sites = np.prod(rows.shape[3:-1], dtype=int)
    return factor if sites == 1 else factor * np.sqrt(sites, dtype=factor.dtype)
