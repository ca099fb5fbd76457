"""Finite networks, the independent witness of the theory: they share nothing with the march but the description."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, NamedTuple, cast

import jax
import numpy as np
from pydantic import Field

from kernelfield.common.progress import Report
from kernelfield.describe.run import Run
from kernelfield.describe.training import SGD, Adam, GradientDescent, GradientFlow, Langevin, OnlineSGD
from kernelfield.finite.conditioned import ROUNDING, Conditioned
from kernelfield.finite.network import CHUNK, Constants, FiniteNetwork, Kernels, Record, Updates
from kernelfield.finite.optimizers import Moments
from kernelfield.finite.predictor import FinitePredictor
from kernelfield.march.layout import Layout
from kernelfield.solution.factors import compressed, slim, stacked
from kernelfield.solution.kernel import Key, network_kernels
from kernelfield.solution.method import Method
from kernelfield.solution.solution import Solution
from kernelfield.solution.status import Status, diverged, interrupted

DIVERGED = 1e3  # times the initial loss
BATCH_BYTES = 2**30  # parameters and recorded neurons of the seeds that train together
SECONDS_BETWEEN_FETCHES = 0.3  # what Ctrl-C waits for
LEAST_MOVEMENT = {"float32": 1e-5, "float64": 1e-12}  # of features, relative to them
LARGEST_KERNEL = {"float32": 1e30, "float64": 1e150}  # mean squares of inputs; those of larger ones overflow
LEAST_WIDTH = 4096  # of networks that "auto" conditions
UNKNOWN = {"particles", "replicates", "directions"}  # what the `info` of a march has more
LEFT_OUT = {"float32": 1e-7, "float64": 1e-15}  # variance, relative, that compressed kernels leave out


class FiniteWidth(Method):
    """Networks of width N, several seeds (theory: an error of O(N^-1/2) each, and of O(1/N) in their mean).

    The replicates of the Solution are the seeds, so that standard errors are those of the mean over seeds. They do not
    contain the distance O(1/N) of that mean from infinite width.

    f is reported minus its value f0 at initialization, also under weight decay: at infinite width f0 is zero. Weight
    decay acts on all weights, biases and readout included. Mini-batches (`kernelfield.SGD`) are the same for all
    seeds; an update touches their points alone, and predictions and kernels of all points are recorded between epochs.

    `kernelfield.Adam` has moments for every weight, and every seed has its own. `kernelfield.Langevin` draws fresh
    noise for every weight, step and seed. There f is the output itself, which also trains the network: noise makes it
    forget f0.

    With C outputs, the fields z and g are those of the error signal, sum_c Delta_c z_c and sum_c Delta_c g_c.

    Args:
        width: N, neurons of each hidden layer.
        seeds: number of networks, each with its own random initialization.
        seed: seed of the first network; the others follow it, one by one.
        kernels: "all" records feature and gradient kernels of all times, "features" leaves gradient kernels
            and the NTK out, "none" records predictions (and fields) alone. With several outputs "all" is "features";
            "per_output" records gradient kernels of every output too, with rows (sample, output), P C of them.
        precision: precision of the weights; "float64" for gamma0 below about 1e-3, where f is a small difference.
        algorithm: "explicit" trains the weight matrices by automatic differentiation, at a cost that grows as N^2 and
            apart from all other theories. "conditioned" draws of every matrix what training sees of it, at a cost that
            grows as N: other networks of the same distribution, to rounding. They predict at the points of the problem
            alone (give new points a weight of zero), and keep fields at activations of networks of one output. "auto"
            is "conditioned" where that is faster, from N = 4096 on at the earliest.

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
    algorithm: Literal["auto", "explicit", "conditioned"] = "auto"

    rules: ClassVar[tuple[type, ...]] = (GradientDescent, SGD, OnlineSGD, GradientFlow, Adam, Langevin)
    takes: ClassVar[frozenset[str]] = frozenset(
        {"losses", "outputs", "momentum", "weight_decay", "schedule", "rule", "mixing"}
    )

    def supports(self, run: Run) -> None:
        """Raises ValueError for a run that it cannot solve: also where weights move by less than their rounding."""
        super().supports(run)
        if self.algorithm == "conditioned" and "rule" in run.extras:
            raise ValueError("algorithm='conditioned' solves no learning rules but gradients: take 'explicit'")
        if self.algorithm == "conditioned" and not isinstance(run.training, Conditioned.rules):
            rules = " and ".join(rule.__name__ for rule in Conditioned.rules)
            raise ValueError(
                f"algorithm='conditioned' solves {rules}, not {type(run.training).__name__}: take 'explicit'"
            )
        is_single = self.precision == "float32"
        advice = "precision='float64' reaches further" if is_single else "divide it by a number"
        run.check_scale(LARGEST_KERNEL[self.precision], advice)
        if 0 < run.movement < LEAST_MOVEMENT[self.precision] and not isinstance(run.training, Langevin):
            advice = "take precision='float64'" if is_single else "StaticNTK() solves that limit"
            raise ValueError(
                f"features would move by {run.movement:.0e} of their size, which is below rounding: {advice}"
            )

    def solve(self, run: Run, progress: Report, checkpoint: None = None) -> Solution | Status:
        """Returns the Solution; see `kernelfield.solve`."""
        if self.algorithm == "conditioned" or (self.algorithm == "auto" and _is_faster_conditioned(run)):
            return self._solve_conditioned(run, progress)
        with jax.enable_x64(self.precision == "float64"):
            ensemble = Ensemble(run)
            return ensemble.solution(ensemble.train(progress))

    def _solve_conditioned(self, run: Run, progress: Report) -> Solution | Status:
        precision = "single" if self.precision == "float32" else "double"
        method = Conditioned(
            particles=self.width,
            replicates=self.seeds,
            seed=self.seed,
            kernels=self.kernels,
            precision=precision,
            tol=ROUNDING[precision],
        )
        fields_at = run.fields_at if run.problem.outputs == 1 else ()
        result = method.solve(replace(run, method=method, fields_at=fields_at), progress)
        if isinstance(result, Status):
            return result
        info = {"width": self.width, "seeds": self.seeds, **result.info, "precision": self.precision}
        return replace(result, run=run, info={key: value for key, value in info.items() if key not in UNKNOWN})

    def restored_predictor(
        self, run: Run, info: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> FinitePredictor:
        """Returns the predictor that a stored run kept."""
        return FinitePredictor.restored(finite_network(run), run.network.gamma0, self.precision, arrays)


def _is_faster_conditioned(run: Run) -> bool:
    """Returns whether conditioning is faster: products with k directions, 19 N k a row, for 6 N^2 with a matrix."""
    if not isinstance(run.training, Conditioned.rules) or "rule" in run.extras:
        return False
    width = cast(FiniteWidth, run.method).width
    return width >= max(LEAST_WIDTH, 4 * Layout(replace(run, method=Conditioned(particles=width))).directions)


def finite_network(run: Run) -> FiniteNetwork:
    """Returns the network of a run at the width of its method."""
    method, network, problem = cast(FiniteWidth, run.method), run.network, run.problem
    inputs, rtol = network.inputs(problem).shape[1:], getattr(run.training, "rtol", None)
    settings = problem.loss, problem.outputs, network.factorizes, rtol, method.kernels
    rule, centered = getattr(run.training, "rule", None), not isinstance(run.training, Langevin)
    return FiniteNetwork(network.layers, inputs, method.width, *settings, rule, centered)


@functools.lru_cache(maxsize=32)
def programs(network: FiniteNetwork) -> tuple[Any, Any, Any]:
    """Returns `start`, `advance` and `fields` of a batch of networks, to be compiled once for arguments of a shape."""
    fields = jax.vmap(network.fields, in_axes=(None, 0, None))
    return jax.jit(network.start), jax.jit(network.advance, donate_argnums=1), jax.jit(fields)


@functools.lru_cache(maxsize=32)
def looking(network: FiniteNetwork) -> Any:
    """Returns `look` of a batch of networks, to be compiled once for arguments of a shape."""
    return jax.jit(jax.vmap(network.look, in_axes=(None, 0, None)))


class Batch(NamedTuple):
    """Trained seeds: their record, and for every chosen step their parameters and the fields of all layers.

    In the record f is (R, t, P, C), features and gradients are factors (R, t, P, k) of their kernels, and tangent
    kernels are (R, t, P, P). With C outputs gradients of every output have P C rows in place of P.
    """

    record: Record
    kept: dict[int, tuple[Any, list[dict[str, np.ndarray]]]]


class Ensemble:
    """The networks of one run, and the batches that have been trained."""

    def __init__(self, run: Run) -> None:
        self.run, self.method, self.network = run, cast(FiniteWidth, run.method), finite_network(run)
        # where few kernels are kept, only their rows are looked at
        self.bare = self.network if run.save_at is None else replace(self.network, kernels="none")
        problem, training, stream = run.problem, run.training, run.problem.stream
        momentum, decay = (getattr(training, name, 0.0) for name in ("momentum", "weight_decay"))

        def real(values: Any) -> jax.Array:
            return jax.device_put(np.asarray(values, self.method.precision))

        initial = problem.initial_loss
        if not self.network.centered:  # f starts at about 1 / (gamma0 sqrt(N))
            initial += 1 / (run.network.gamma0**2 * self.method.width)
        self.constants = Constants(
            X=real(run.network.inputs(problem)),
            y=real(problem.targets),
            weights=real(problem.weights),
            gamma0=real(run.network.gamma0),
            last=jax.device_put(run.steps),
            limit=real(DIVERGED * initial if initial > 0 else np.inf),
            momentum=real(momentum) if momentum > 0 else None,
            weight_decay=real(decay) if decay > 0 else None,
            stream=None if stream is None else (real(run.network.inputs(stream)), real(stream.targets)),
            moments=Moments(*map(real, (*training.betas, training.eps))) if isinstance(training, Adam) else None,
            temperature=real(training.temperature) if isinstance(training, Langevin) else None,
        )
        if isinstance(training, GradientFlow):  # one update, over the time between two rows
            self.updates = Updates(np.full((training.steps, 1), training.learning_rate))
        else:
            batches, eta = training.batches(problem), training.rates(problem).reshape(run.steps, -1)
            self.updates = Updates(eta, *(values.reshape(*eta.shape, -1) for values in batches or ()))
        self.seconds = {"compile": 0.0, "run": 0.0, "compress": 0.0}
        self.batches: list[Batch] = []
        self.t, self.records, self.looks, self.kept = 0, [], [], {}  # of the batch that trains

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
                return interrupted(sum(len(batch.record.f) for batch in self.batches), self.method.seeds, "seeds")
            self._finish_batch()
            return interrupted(max(self.t - 1, 0), self.run.steps)
        return Status()

    def _batch_size(self) -> int:
        """Returns how many seeds train together: as many as fit in BATCH_BYTES, in batches of nearly equal size."""
        constants, last, seeds = self.constants, self.constants.last, self.method.seeds
        start, advance, _ = programs(self.bare)  # traced for all seeds, which often train together
        network = start.eval_shape(constants, jax.ShapeDtypeStruct((seeds,), np.uint32))
        chunk = advance.eval_shape(constants, network, last, last, self._next_updates()).records
        numbers = 3 * _size(network.params) + _size((network.velocity, network.moments, network.stream_f0))
        numbers += (self.run.steps + 1 + CHUNK) * _size(chunk) // CHUNK
        if self.run.save_at:
            numbers += len(self.run.save_at) * _size(looking(self.network).eval_shape(constants, network, last))
        most = max(1, BATCH_BYTES * seeds // (numbers * np.dtype(self.method.precision).itemsize))
        return -(-seeds // -(-seeds // most))

    def _train_batch(self, seeds: range, progress: Report) -> Status:
        """Train the networks of `seeds` to the last step, and fetch their records on the way."""
        self.t, self.records, self.looks, self.kept = 0, [], [], {}
        method, constants, last, fields_at = self.method, self.constants, self.run.steps, self.run.fields_at
        began, numbers = time.perf_counter(), jax.device_put(np.asarray(seeds, np.uint32))
        look = looking(self.network)
        start, advance, read = programs(self.bare)
        start = start.lower(constants, numbers)
        advance = advance.lower(constants, start.out_info, constants.last, constants.last, self._next_updates())
        read = read.lower(constants, start.out_info, constants.last)
        start, advance, read = (program.compile() for program in (start, advance, read))
        compiled_at = time.perf_counter()
        self.seconds["compile"] += compiled_at - began
        state, stride = jax.block_until_ready(start(constants, numbers)), 1
        self.seconds["run"] += time.perf_counter() - compiled_at
        while self.t <= last:
            began, t = time.perf_counter(), jax.device_put(self.t)
            if self.t in fields_at:
                self.kept[self.t] = jax.tree.map(np.array, (state.params, read(constants, state, t)))
            if self.run.save_at and self.t in self.run.save_at:
                self.looks.append(jax.tree.map(np.array, look(constants, state, t)))
            stops = (*fields_at, *(self.run.save_at or ()))
            stop = min(self.t + stride, last + 1, *(step for step in stops if step > self.t))
            now = advance(constants, state, t, jax.device_put(stop), self._next_updates())
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
            return jax.device_put(padded.astype(np.int32 if rows.dtype.kind == "i" else self.method.precision))

        return jax.tree.map(chunk, self.updates)

    def _fetch(self, records: Record, stop: int) -> None:
        """Fetch the records of the rows from `self.t` to `stop`, seeds first."""
        if count := stop - self.t:
            rows = jax.tree.map(lambda leaf: np.array(np.asarray(leaf)[:count]).swapaxes(0, 1), records)
            self.records.append(rows)
        self.t = stop

    def _finish_batch(self) -> None:
        """Put the records of a batch together, and compress its kernels."""
        if not self.records:
            return
        began = time.perf_counter()
        whole = jax.tree.map(lambda *chunks: np.concatenate(chunks, axis=1), *self.records)
        left_out = LEFT_OUT[self.method.precision]
        if self.looks:
            looks = jax.tree.map(lambda *rows: np.stack(rows, axis=1), *self.looks)
            whole = looks._replace(f=whole.f)
        record = whole._replace(
            f=whole.f.astype(np.float64),
            features=[_factor(field, left_out) for field in whole.features],
            gradients=[_factor(field, left_out, sums=True) for field in whole.gradients],
        )
        self.batches.append(Batch(record, self.kept))
        self.records = []
        self.seconds["compress"] += time.perf_counter() - began

    def solution(self, status: Status) -> Solution | Status:
        """Returns the Solution of all batches, cut to the steps that all of them reached; without any the status."""
        if not self.batches:
            return status
        method, records = self.method, [batch.record for batch in self.batches]
        steps, left_out = min(record.f.shape[1] for record in records), LEFT_OUT[method.precision]
        with_kernels = tuple(t for t in self.run.kernel_steps if t < steps)
        if not with_kernels:
            records = [Record(record.f) for record in records]

        def join(*parts: np.ndarray) -> np.ndarray:
            return stacked([part[:, : len(with_kernels)] for part in parts])

        record = jax.tree.map(join, *records)._replace(f=np.concatenate([record.f[:, :steps] for record in records]))
        features, gradients = ([slim(F, left_out) for F in factors] for factors in (record.features, record.gradients))
        kept = {
            t: jax.tree.map(lambda *parts: np.concatenate(parts), *(batch.kept[t] for batch in self.batches))
            for t in self.batches[0].kept
            if t < steps
        }
        seeds, params = range(method.seed, method.seed + len(record.f)), {t: params for t, (params, _) in kept.items()}
        return Solution(
            self.run,
            record.f,
            network_kernels(
                self.run.problem,
                features or None,
                gradients or None,
                _recorded(record),
                None if len(with_kernels) == steps else with_kernels,
            ),
            field_samples={
                (layer, t): field for t, (_, fields) in kept.items() for layer, field in enumerate(fields, start=1)
            },
            predictor=FinitePredictor(self.network, self.run.network.gamma0, tuple(seeds), params, method.precision),
            status=status,
            info={
                "width": method.width,
                "seeds": len(seeds),
                "feature_ranks": [factor.shape[-1] for factor in features],
                "gradient_ranks": [factor.shape[-1] for factor in gradients],
                "precision": method.precision,
                **{f"seconds_{name}": seconds for name, seconds in self.seconds.items()},
            },
        )


def _recorded(record: Record) -> dict[Key, np.ndarray]:
    """Returns the kernels at equal times that factors do not give."""
    found: dict[Key, Any] = {("NTK", None): record.tangent, ("eNTK", None): record.effective}
    found |= {("cosine", layer): cosine for layer, cosine in enumerate(record.cosines, start=1)}
    return {key: kernel for key, kernel in found.items() if kernel is not None}


def _size(tree: Any) -> int:
    """Returns how many numbers a tree of arrays has."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _factor(field: np.ndarray, left_out: float, sums: bool = False) -> np.ndarray:
    """Returns the factor of the kernel of a field (R, t, P, *sites, N): the mean over its sites, or their sum."""
    factor = compressed(field.reshape(*field.shape[:3], -1), left_out)
    sites = np.prod(field.shape[3:-1], dtype=int) if sums else 1
    return factor if sites == 1 else factor * np.sqrt(sites, dtype=factor.dtype)
