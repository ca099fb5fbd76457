"""Many networks of finite width: batches of seeds, trained one after the other."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from kernelfield.common.progress import Report
from kernelfield.describe.run import Run
from kernelfield.describe.training import GradientFlow
from kernelfield.finite.network import CHUNK, Advance, Constants, FiniteNetwork, Kernels, Record, State, Updates
from kernelfield.finite.predictor import FinitePredictor
from kernelfield.solution.kernel import network_kernels
from kernelfield.solution.low_rank import compressed, stacked
from kernelfield.solution.solution import Solution
from kernelfield.solution.status import Status, diverged, interrupted
from kernelfield.solution.time_modes import Factor, slim

if TYPE_CHECKING:
    from kernelfield.finite.method import FiniteWidth

DIVERGED = 1e3  # times the initial loss
BATCH_BYTES = 2**30  # parameters and recorded neurons of the seeds that train together
SECONDS_BETWEEN_FETCHES = 0.3  # what Ctrl-C waits for
LEFT_OUT = {"float32": 1e-7, "float64": 1e-15}  # variance, relative, that compressed kernels leave out


def finite_network(run: Run) -> FiniteNetwork:
    """Returns the network of a run at the width of its method."""
    width, problem, rtol = cast("FiniteWidth", run.method).width, run.problem, getattr(run.training, "rtol", None)
    layers, inputs = run.network.layers, run.network.inputs(problem).shape[1:]
    return FiniteNetwork(layers, inputs, width, problem.loss, problem.outputs, run.network.factorizes, rtol)


class Programs(NamedTuple):
    """Compiled functions of a batch of networks: `FiniteNetwork.start`, `advance` and `fields`."""

    start: Callable[[Array], State]
    advance: Callable[..., Advance]
    fields: Callable[..., list[dict[str, Array]]]


@functools.lru_cache(maxsize=32)
def compile_programs(network: FiniteNetwork, kernels: Kernels, seeds: int, structure: Any, shapes: tuple) -> Programs:
    """Returns the programs of `seeds` networks for a tree (constants, updates) of arrays of these shapes and dtypes."""
    constants, updates = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*shape) for shape in shapes])
    numbers, t = jax.ShapeDtypeStruct((seeds,), jnp.uint32), constants.last
    start = jax.jit(lambda seeds: network.start(constants, seeds)).lower(numbers)
    advance = jax.jit(functools.partial(network.advance, kernels), donate_argnums=1)
    fields = jax.jit(jax.vmap(network.fields, in_axes=(None, 0, None))).lower(constants, start.out_info, t)
    advance = advance.lower(constants, start.out_info, t, t, updates)
    return Programs(start.compile(), advance.compile(), fields.compile())


class Batch(NamedTuple):
    """Trained seeds: their record, fields by layer and step, and parameters by step.

    In the record f is (R, t, P), features and gradients are factors (R, t, P, k) of their kernels, and tangent kernels
    are (R, t, P, P). With C outputs f is (R, t, P, C), and gradients of every output have P C rows in place of P.
    """

    record: Record
    fields: dict[tuple[int, int], dict[str, np.ndarray]]
    params: dict[int, Any]


class Ensemble:
    """The networks of one run, and the batches that have been trained."""

    def __init__(self, run: Run) -> None:
        self.run, self.method, self.network = run, cast("FiniteWidth", run.method), finite_network(run)
        problem, training, stream = run.problem, run.training, run.problem.stream
        momentum, decay = (getattr(training, name, 0.0) for name in ("momentum", "weight_decay"))
        real = functools.partial(jnp.asarray, dtype=self.method.precision)
        self.constants = Constants(
            X=real(run.network.inputs(problem)),
            y=real(problem.y),
            weights=real(problem.weights),
            gamma0=real(run.network.gamma0),
            last=jnp.asarray(run.steps),
            limit=real(DIVERGED * problem.initial_loss if problem.initial_loss > 0 else np.inf),
            momentum=real(momentum) if momentum > 0 else None,
            weight_decay=real(decay) if decay > 0 else None,
            stream=None if stream is None else (real(run.network.inputs(stream)), real(stream.y)),
        )
        self.updates = _updates(run)
        self.seconds = {"compile": 0.0, "run": 0.0, "compress": 0.0}
        self.batches: list[Batch] = []
        self.t, self.records, self.fields, self.params = 0, [], {}, {}  # of the batch that trains

    def train(self, progress: Report) -> Status:
        """Train batch after batch; `batches` then holds what can be kept."""
        first, end, size = self.method.seed, self.method.seed + self.method.seeds, self._batch_size()
        try:
            for start in range(first, end, size):
                status = self._train_batch(range(start, min(start + size, end)), progress)
                self._finish_batch()
                if status.code != "ok":
                    return status
        except KeyboardInterrupt:
            if self.batches:
                return interrupted(self.seeds_done, self.method.seeds, "seeds")
            self._finish_batch()
            return interrupted(max(self.t - 1, 0), self.run.steps)
        return Status()

    @property
    def seeds_done(self) -> int:
        """The number of networks of all batches."""
        return sum(len(batch.record.f) for batch in self.batches)

    def _batch_size(self) -> int:
        """Returns how many seeds train together: as many as fit in BATCH_BYTES, in batches of nearly equal size."""
        network = jax.eval_shape(functools.partial(self.network.start, self.constants), jnp.zeros(1, jnp.uint32))
        advance = functools.partial(self.network.advance, self.method.kernels, self.constants)
        chunk = jax.eval_shape(advance, network, self.constants.last, self.constants.last, self._next_updates()).records
        numbers = 3 * _size(network.params) + _size(network.velocity) + _size(network.stream_f0)
        numbers += (self.run.steps + 1 + CHUNK) * _size(chunk) // CHUNK
        most = max(1, BATCH_BYTES // (numbers * np.dtype(self.method.precision).itemsize))
        return -(-self.method.seeds // -(-self.method.seeds // most))

    def _train_batch(self, seeds: range, progress: Report) -> Status:
        """Train the networks of `seeds` to the last step, and fetch their records on the way."""
        self.t, self.records, self.fields, self.params = 0, [], {}, {}
        method, last, fields_at, began = self.method, self.run.steps, self.run.fields_at, time.perf_counter()
        leaves, structure = jax.tree.flatten((self.constants, self._next_updates()))
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        programs = compile_programs(self.network, method.kernels, len(seeds), structure, shapes)
        compiled_at = time.perf_counter()
        self.seconds["compile"] += compiled_at - began
        state, stride = jax.block_until_ready(programs.start(jnp.asarray(seeds, jnp.uint32))), 1
        self.seconds["run"] += time.perf_counter() - compiled_at
        while self.t <= last:
            began, t = time.perf_counter(), jnp.asarray(self.t)
            if self.t in fields_at:
                self.params[self.t] = jax.tree.map(np.array, state.params)
                for layer, fields in enumerate(programs.fields(self.constants, state, t), start=1):
                    self.fields[layer, self.t] = jax.tree.map(np.asarray, fields)
            stop = min(self.t + stride, last + 1, *(step for step in fields_at if step > self.t))
            now = programs.advance(self.constants, state, t, jnp.asarray(stop), self._next_updates())
            self._fetch(now.records, int(now.t) - (not now.alive))
            state, elapsed = now.state, time.perf_counter() - began
            self.seconds["run"] += elapsed
            if not now.alive:
                return diverged(self.t, self.run.training.learning_rate, DIVERGED)
            stride = max(1, min(CHUNK, int(stride * min(4.0, SECONDS_BETWEEN_FETCHES / elapsed))))
            done = (seeds.start - method.seed) * last + len(seeds) * min(self.t, last)
            progress(done // method.seeds, last)
        return Status()

    def _next_updates(self) -> Updates:
        """Returns the updates of the next CHUNK rows, filled up with zeros beyond the last one."""

        def chunk(values: np.ndarray) -> jax.Array:
            rows = values[self.t : self.t + CHUNK]
            padded = np.pad(rows, [(0, CHUNK - len(rows)), *[(0, 0)] * (rows.ndim - 1)])
            return jnp.asarray(padded, jnp.int32 if rows.dtype.kind == "i" else self.method.precision)

        return jax.tree.map(chunk, self.updates)

    def _fetch(self, records: Record, stop: int) -> None:
        """Fetch the records of the rows from `self.t` to `stop`, seeds first."""
        if count := stop - self.t:
            rows = jax.tree.map(lambda leaf: np.array(np.asarray(leaf)[:count]), records)
            self.records.append(jax.tree.map(lambda leaf: np.moveaxis(leaf, 0, 1), rows))
        self.t = stop

    def _finish_batch(self) -> None:
        """Put the records of a batch together, and compress its kernels."""
        if not self.records:
            return
        began = time.perf_counter()
        whole = jax.tree.map(lambda *chunks: np.concatenate(chunks, axis=1), *self.records)
        left_out = LEFT_OUT[self.method.precision]
        record = Record(
            whole.f.astype(np.float64),
            [_factor(field, left_out) for field in whole.features],
            [_factor(field, left_out, sums=True) for field in whole.gradients],
            whole.tangent,
        )
        self.batches.append(Batch(record, self.fields, self.params))
        self.records = []
        self.seconds["compress"] += time.perf_counter() - began

    def _predictor(self, steps: int) -> FinitePredictor:
        """Returns the predictor of all seeds at the first steps, those among them that all batches reached."""
        shared = set.intersection(*(set(batch.params) for batch in self.batches))
        params = {
            t: jax.tree.map(lambda *leaves: np.concatenate(leaves), *(batch.params[t] for batch in self.batches))
            for t in sorted(shared)
            if t < steps
        }
        seeds = tuple(range(self.method.seed, self.method.seed + self.seeds_done))
        return FinitePredictor(self.network, self.run.network.gamma0, seeds, params, self.method.precision)

    def solution(self, status: Status) -> Solution | Status:
        """Returns the Solution of all batches, cut to the steps that all of them reached; without any the status."""
        if not self.batches:
            return status
        method, records = self.method, [batch.record for batch in self.batches]
        steps = min(record.f.shape[1] for record in records)

        def join(kind: str) -> list[Factor]:
            layers = zip(*(getattr(record, kind) for record in records), strict=True)
            factors = (stacked([factor[:, :steps] for factor in layer]) for layer in layers)
            return [slim(factor, LEFT_OUT[method.precision]) for factor in factors]

        features, gradients = join("features"), join("gradients")
        tangents = [record.tangent[:, :steps] for record in records if record.tangent is not None]
        fields = {
            key: {name: np.concatenate([batch.fields[key][name] for batch in self.batches]) for name in samples}
            for key, samples in self.batches[0].fields.items()
            if key[1] < steps
        }
        return Solution(
            self.run,
            np.concatenate([record.f[:, :steps] for record in records]),
            network_kernels(
                self.run.problem,
                None if method.kernels == "none" else features,
                gradients if self.network.tracks_gradients(method.kernels) else None,
                np.concatenate(tangents) if tangents else None,
            ),
            field_samples=fields,
            predictor=self._predictor(steps),
            status=status,
            info={
                "width": method.width,
                "seeds": self.seeds_done,
                "feature_ranks": [factor.shape[-1] for factor in features],
                "gradient_ranks": [factor.shape[-1] for factor in gradients],
                "precision": method.precision,
                **{f"seconds_{name}": seconds for name, seconds in self.seconds.items()},
            },
        )


def _updates(run: Run) -> Updates:
    """Returns the updates between rows (T, U); of gradient flow one, over the time between them."""
    problem, training = run.problem, run.training
    if isinstance(training, GradientFlow):
        return Updates(np.full((training.steps, 1), training.learning_rate))
    batches, eta = training.batches(problem), training.rates(problem).reshape(training.steps, -1)
    return Updates(eta, *(values.reshape(*eta.shape, -1) for values in batches or ()))


def _size(tree: Any) -> int:
    """Returns how many numbers a tree of arrays has."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _factor(field: np.ndarray, left_out: float, sums: bool = False) -> np.ndarray:
    """Returns the factor of the kernel of a field (R, t, P, *sites, N): the mean over its sites, or their sum."""
    factor = compressed(field.reshape(*field.shape[:3], -1), left_out)
    sites = np.prod(field.shape[3:-1], dtype=int) if sums else 1
    return factor if sites == 1 else factor * np.sqrt(sites, dtype=factor.dtype)
