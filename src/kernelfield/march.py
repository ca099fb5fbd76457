"""The march: one causal sweep through training time at infinite width.

The theory is causal, so no fixed point is iterated: every step sends the data up through the layers, compares
with the targets, sends gradients down and updates what was learned. The march knows steps, not architectures.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from pydantic import Field

from kernelfield.engine.basis import room
from kernelfield.engine.points import OutOfParticles, cubature, sobol
from kernelfield.layers import FieldTrace, Sequential, Setup, WeightTrace
from kernelfield.problem import Problem
from kernelfield.solution import Solution, Status
from kernelfield.training import GradientDescent
from kernelfield.validation import Spec

Progress = Callable[[int, int], None]
SINGLE_PRECISION_TOL = 1e-6  # smaller tolerances resolve directions that float32 particles blur
RECORD_BYTES = 2**26  # kernel factors kept on the device between two fetches
SECONDS_BETWEEN_FETCHES = 0.3  # what Ctrl-C waits for
EXACT_TOL = 1e-14  # of linear networks
DIVERGED = 1e3  # times the initial loss


class March(Spec):
    """Infinite width, solved on particles in one sweep through time (theory: exact as particles -> infinity).

    Linear networks choose exact cubature by themselves: one replicate, no sampling error.

    Args:
        particles: S, sample neurons of each hidden layer, of every replicate.
        replicates: independent scrambles; their spread is the standard error.
        seed: of the scrambles.
        feature_tol: variance, relative to the mean square, that may stay outside the basis of the features.
            By default 1e-4 min(1, gamma0^2): features move by O(gamma0).
        gradient_tol: the same for gradients; ten times `feature_tol` by default.
        kernels: "all" tracks gradient kernels and the NTK; "features" back-propagates the error signal itself,
            which needs fewer directions, and leaves gradient kernels out.
    """

    particles: int = Field(default=4096, ge=16)
    replicates: int = Field(default=4, ge=1)
    seed: int = Field(default=0, ge=0)
    feature_tol: float | None = Field(default=None, gt=0, lt=1)
    gradient_tol: float | None = Field(default=None, gt=0, lt=1)
    kernels: Literal["all", "features"] = "all"

    def run(
        self,
        network: Any,
        problem: Problem,
        training: GradientDescent,
        fields_at: Sequence[int],
        progress: Progress,
    ) -> Solution | Status:
        """Solve; see `kernelfield.solve`."""
        exact = network.nonlinearity.is_linear
        if not exact and self.particles < 4 * problem.points:
            raise ValueError(f"particles must be at least 4 P = {4 * problem.points}, got {self.particles}")
        capacity = 6 * problem.points + 32
        with jax.enable_x64(True):
            while True:
                run = _Run(self, network, problem, training, capacity)
                try:
                    return run.solution(run.march_to_end(fields_at, progress))
                except _CubatureTooSmall:
                    capacity *= 2

    def tolerances(self, network: Any) -> tuple[float, float]:
        """Feature and gradient tolerance for a network, defaults filled in."""
        exact = network.nonlinearity.is_linear
        feature_tol = self.feature_tol or (EXACT_TOL if exact else 1e-4 * min(1.0, network.gamma0**2))
        return feature_tol, self.gradient_tol or (feature_tol if exact else min(10 * feature_tol, 0.5))


class Record(NamedTuple):
    """One evaluation of the network: f (P,), and kernel factors of hidden layers 1..L (P, capacity each)."""

    f: Array
    features: tuple[Array, ...]
    gradients: tuple[Array, ...]


class Constants(NamedTuple):
    """F_x (P, k), y (P,), c = eta gamma0 / P, the last step T, and the loss above which a run has diverged."""

    data: Array
    y: Array
    rate: Array
    last: Array
    limit: Array


class Advance(NamedTuple):
    """The state of the march at step `t`, what the steps since `start` recorded, and the latest fields."""

    state: Any
    t: Array
    alive: Array
    records: Record
    fields: tuple[FieldTrace, ...]


def step(
    layers: Sequential, plain: bool, constants: Constants, state: Any, t: Array
) -> tuple[Any, Record, tuple]:
    """One step of training on one replicate: forward, error signal, backward, update (none at the last step).

    Plain gradients g do not carry the error signal Delta, which then enters the update; else they carry it.
    """
    state, f, trace = layers.forward(state, constants.data)
    Delta = constants.y - f
    chi, weight = (jnp.ones_like(Delta), Delta) if plain else (Delta, jnp.ones_like(Delta))
    state, _, trace = layers.backward(state, chi, trace)
    rate = jnp.where(t < constants.last, constants.rate, 0.0) * weight
    state = layers.update(state, trace, rate.astype(constants.data.dtype))
    weights = [each for each in trace if isinstance(each, WeightTrace)]
    record = Record(f, tuple(each.F for each in weights[1:]), tuple(each.G for each in weights[:-1]))
    return state, record, tuple(each for each in trace if isinstance(each, FieldTrace))


def advance(
    layers: Sequential, plain: bool, chunk: int, constants: Constants, state: Any, start: Array, stop: Array
) -> Advance:
    """March all replicates (leading axis of `state`) from step `start` to `stop` (at most `chunk` steps).

    Ends early, before a step, when a basis might not have room for it, and after a step that diverged.
    """
    one = functools.partial(step, layers, plain, constants)
    every = jax.vmap(one, in_axes=(0, None))
    _, record, fields = jax.eval_shape(every, state, start)
    blank = functools.partial(jax.tree.map, lambda leaf: jnp.zeros(leaf.shape, leaf.dtype))
    records = blank(jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((chunk, *leaf.shape), leaf.dtype), record))
    points = len(constants.y)

    def goes_on(now: Advance) -> Array:
        return (now.t < stop) & now.alive & room(now.state, points)

    def go(now: Advance) -> Advance:
        state, record, fields = every(now.state, now.t)
        loss = jnp.mean((constants.y - record.f) ** 2, axis=-1) / 2
        records = jax.tree.map(
            lambda kept, new: lax.dynamic_update_index_in_dim(kept, new, now.t - start, 0),
            now.records,
            record,
        )
        return Advance(state, now.t + 1, jnp.all(loss <= constants.limit), records, fields)

    return lax.while_loop(goes_on, go, Advance(state, start, jnp.array(True), records, blank(fields)))


@functools.lru_cache(maxsize=64)
def _compiled(layers: Sequential, plain: bool, chunk: int, signature: tuple) -> Callable[..., Advance]:
    """`advance`, compiled for arguments of the shapes and dtypes in `signature` (a flattened tree)."""
    structure, leaves = signature
    shapes = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves])
    function = jax.jit(functools.partial(advance, layers, plain, chunk), donate_argnums=1)
    return function.lower(*shapes).compile()


class _CubatureTooSmall(Exception):
    """A linear network needs more coordinates: the solve starts again with larger, equally exact cubature."""


class _Run:
    """One solve: the state on the device, its capacity, and what has been recorded."""

    def __init__(
        self, march: March, network: Any, problem: Problem, training: GradientDescent, capacity: int
    ) -> None:
        self.march, self.network, self.problem, self.training = march, network, problem, training
        self.exact = network.nonlinearity.is_linear
        self.replicates = 1 if self.exact else march.replicates
        self.feature_tol, self.gradient_tol = march.tolerances(network)
        self.dtype = jnp.float32 if self.feature_tol >= SINGLE_PRECISION_TOL else jnp.float64
        self.capacity = _rounded(capacity)
        self.particles = 2 * self.capacity + problem.points if self.exact else march.particles
        self.seconds = {"compile": 0.0, "run": 0.0}
        self.records: list[Record] = []
        self.fields: dict[tuple[int, int], dict[str, np.ndarray]] = {}
        self.state = self._initial_state()
        self.t = 0

    def march_to_end(self, fields_at: Sequence[int], progress: Progress) -> Status:
        """Advance until all steps are done, fetching records and enlarging bases on the way."""
        last, stride = self.training.steps, 1
        try:
            while self.t <= last:
                stop = min([self.t + stride, last + 1, *(t + 1 for t in fields_at if t >= self.t)])
                began = time.perf_counter()
                now = self._advance(stop)
                elapsed = time.perf_counter() - began
                if not now.alive:
                    return self._diverged(now)
                self._keep(now, fields_at)
                if self.t < stop:
                    self._enlarge()
                stride = max(1, min(self.chunk, int(stride * min(4.0, SECONDS_BETWEEN_FETCHES / elapsed))))
                progress(min(self.t, last), last)
        except KeyboardInterrupt:
            return Status("interrupted", f"stopped by the user after {max(self.t - 1, 0)} of {last} steps")
        except OutOfParticles as error:
            return Status(
                "out_of_particles", f"{error} at step {self.t}: use more particles or a larger feature_tol"
            )
        return Status()

    def _initial_state(self) -> Any:
        setups = [
            Setup(
                input_coordinates=self.problem.input_coordinates,
                gamma0=self.network.gamma0,
                points=cubature if self.exact else sobol,
                particles=self.particles,
                seed=np.random.SeedSequence(self.march.seed, spawn_key=(replicate,)),
                capacity=self.capacity,
                feature_tol=self.feature_tol,
                gradient_tol=self.gradient_tol,
                coupling=1.0,
                dtype=self.dtype,
            )
            for replicate in range(self.replicates)
        ]
        states = [setup.dealt(self.network.layers.init(setup, None)[0]) for setup in setups]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

    def _enlarge(self) -> None:
        """Make room for more directions: a larger initial state, with the present one copied into it."""
        if self.exact:
            raise _CubatureTooSmall
        self.capacity = _rounded(1.5 * self.capacity + self.problem.points)
        if self.capacity > self.particles:
            raise OutOfParticles(f"{self.capacity} directions do not fit {self.particles} particles")
        self.state = jax.tree.map(
            lambda new, old: new.at[tuple(slice(n) for n in old.shape)].set(old),
            self._initial_state(),
            self.state,
        )

    @property
    def chunk(self) -> int:
        """Steps whose records fit in RECORD_BYTES."""
        row = self.replicates * self.problem.points * 2 * self.network.depth * self.capacity
        return max(1, min(64, RECORD_BYTES // (row * np.dtype(self.dtype).itemsize)))

    def _advance(self, stop: int) -> Advance:
        y = jnp.asarray(self.problem.y)
        constants = Constants(
            data=jnp.asarray(self.problem.input_coordinates, self.dtype),
            y=y,
            rate=jnp.asarray(self.training.learning_rate * self.network.gamma0 / self.problem.points),
            last=jnp.asarray(self.training.steps),
            limit=DIVERGED * jnp.mean(y**2) / 2,
        )
        arguments = constants, self.state, jnp.asarray(self.t), jnp.asarray(stop)
        leaves, structure = jax.tree.flatten(arguments)
        signature = structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        began = time.perf_counter()
        function = _compiled(self.network.layers, self.march.kernels == "all", self.chunk, signature)
        compiled = time.perf_counter()
        now = jax.block_until_ready(function(*arguments))
        self.seconds["compile"] += compiled - began
        self.seconds["run"] += time.perf_counter() - compiled
        return now

    def _keep(self, now: Advance, fields_at: Sequence[int]) -> None:
        """Fetch what the steps since `self.t` recorded."""
        reached = int(now.t)
        if reached > self.t:
            self.records.append(jax.tree.map(lambda leaf: np.asarray(leaf[: reached - self.t]), now.records))
            if reached - 1 in fields_at:
                for layer, passed in enumerate(now.fields, start=1):
                    self.fields[layer, reached - 1] = self._samples(passed)
        self.t, self.state = reached, now.state

    def _samples(self, passed: FieldTrace) -> dict[str, np.ndarray]:
        """Fields as samples: particles as they are, or Gaussian combinations of a cubature's points."""
        kept = passed._asdict() if self.march.kernels == "all" else {"h": passed.h}
        samples = {name: np.asarray(rows) for name, rows in kept.items()}
        if not self.exact:
            return samples
        gaussian = np.random.default_rng(self.march.seed).standard_normal(
            (self.particles, self.march.particles)
        )
        return {name: rows @ gaussian / np.sqrt(self.particles) for name, rows in samples.items()}

    def _diverged(self, now: Advance) -> Status:
        """Keep the steps before the divergent one, and say which it was."""
        bad = int(now.t) - 1
        self._keep(now._replace(t=np.asarray(bad)), fields_at=())
        return Status(
            "diverged",
            f"the loss exceeded {DIVERGED:g} times its initial value at step {bad}: "
            f"try a learning_rate below {self.training.learning_rate:g}",
        )

    def solution(self, status: Status) -> Solution | Status:
        """What was recorded, as a Solution; the status alone if nothing was."""
        if not self.records:
            return status
        points = self.problem.points
        features = [
            _joined(list(chunks))
            for chunks in zip(*(record.features for record in self.records), strict=True)
        ]
        gradients = [
            _joined(list(chunks))
            for chunks in zip(*(record.gradients for record in self.records), strict=True)
        ]
        one = np.ones((1, 1, points, 1))
        return Solution(
            network=self.network,
            problem=self.problem,
            training=self.training,
            method=self.march,
            replicate_predictions=np.moveaxis(np.concatenate([record.f for record in self.records]), 0, 1),
            feature_factors=(self.problem.input_coordinates[None, None], *features),
            gradient_factors=(*gradients, one) if self.march.kernels == "all" else (),
            field_samples=self.fields,
            exact=self.exact,
            status=status,
            info={
                "particles": self.particles,
                "replicates": self.replicates,
                "feature_ranks": [factor.shape[-1] for factor in features],
                "gradient_ranks": [factor.shape[-1] for factor in gradients],
                "capacity": self.capacity,
                "feature_tol": self.feature_tol,
                "gradient_tol": self.gradient_tol,
                "precision": np.dtype(self.dtype).name,
                "seconds_compile": self.seconds["compile"],
                "seconds_run": self.seconds["run"],
            },
        )


def _rounded(capacity: float) -> int:
    """The next multiple of 32, so that similar problems share a compilation."""
    return 32 * int(np.ceil(capacity / 32))


def _joined(chunks: list[np.ndarray]) -> np.ndarray:
    """Factors of successive chunks (steps, R, P, capacity) as (R, steps, P, k), without the unused capacity."""
    used = 1 + max(int(np.max(np.flatnonzero(chunk.any(axis=(0, 1, 2))), initial=0)) for chunk in chunks)
    parts = [chunk[..., :used] for chunk in chunks]
    padded = [np.pad(part, [(0, 0)] * 3 + [(0, used - part.shape[-1])]) for part in parts]
    return np.moveaxis(np.concatenate(padded), 0, 1)
