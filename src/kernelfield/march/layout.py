"""How a run is laid out on particles: how many, in which coordinates, at what precision, with how many directions."""

from __future__ import annotations

import functools
import math
import os
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from kernelfield.describe.problem import OUTSIDE
from kernelfield.describe.rules import DirectFeedbackAlignment, FeedbackAlignment
from kernelfield.describe.run import Run
from kernelfield.describe.training import Adam, Batches, GradientFlow, Langevin
from kernelfield.engine.directions import IN_USE
from kernelfield.engine.infinite_matrix import Feedback
from kernelfield.engine.points import cubature, independent, padded_sobol
from kernelfield.layers import Setup, Space
from kernelfield.layers.base import uses
from kernelfield.march.devices import multiple, placement
from kernelfield.march.recorder import Recorder
from kernelfield.march.step import Constants

if TYPE_CHECKING:
    from kernelfield.march.method import OnParticles

DIRECTIONS = {16: 24, 64: 32, 10**9: 48}  # rows that train together, up to -> the most directions of a field
OF_OUTPUTS, OF_COMPONENTS = 2, 4  # times as many on batches of several outputs, and where particles have components
TOL, TOL_OF_BATCHES, TOL_OF_COMPONENTS = 2e-3, 8e-3, 1e-4  # noise of the rows of one batch would fill a basis at 2e-3
EXACT_TOL = 1e-26  # of linear networks, whose fields are known on all of their directions
BLOCK = 64  # particles of a block of the tail
SKELETON, ALL_PAIRS = (256, 80), 1024  # columns and rows, and rank; particles up to which all pairs are known
RECORD_TOL, RECORD_DIRECTIONS = 1e-5, 512  # of the bases for kernels
SMOOTH, KINKED = 10, 30  # directions a point and site that fields of such activations take in these bases
FINITE_SMOOTH, FINITE_KINKED = 16, 40  # the same of networks of finite width, which know them all
NOISY = 32  # the same where weights move at random, and bases forget
DIVERGED = 1e3  # times the initial loss


class Layout:
    """The layout of a run by a method on particles."""

    def __init__(self, run: Run) -> None:
        self.run, self.settings = run, cast("OnParticles", run.method)
        self.network, self.problem, self.training = run.network, run.problem, run.training
        if isinstance(run.training, Adam):  # learns by entries of the inputs
            X = self.network.every_input(self.problem)
            self.axes, self.outside = np.eye(X.shape[-1]), 0
            self.data = X / np.sqrt(X.shape[-1])
        else:
            self.axes, self.data, self.outside = self.network.coordinates(self.problem)
        self.step = self.settings.step(run)
        self.finite = self.settings.is_finite
        self.rule = getattr(run.training, "rule", None)
        self.noisy = isinstance(run.training, Langevin)
        follows = self.rule is None and not isinstance(run.training, (Langevin, Adam))  # gradients, without noise
        self.exact = self.network.is_linear and not self.finite and follows
        self.complete = self.exact or self.finite or self.noisy  # whether fields are known on all of their directions
        self.count = 1 if self.exact else self.settings.replicates
        rows = self.rows * self.sites
        if self.finite or self.noisy:
            usual = 16 + rows * (NOISY if self.noisy else FINITE_SMOOTH if self.smooth else FINITE_KINKED)
        elif self.exact:
            usual = 16 + 8 * rows
        else:
            several = self.on_batches and self.problem.outputs > 1
            more = OF_COMPONENTS if self.has_components else OF_OUTPUTS if several else 1
            usual = more * next(most for few, most in DIRECTIONS.items() if rows <= few)
        self.directions = self.settings.directions or usual

    @property
    def sites(self) -> int:
        """The number of sites of an input."""
        return math.prod(self.data.shape[1:-1])

    @property
    def has_components(self) -> bool:
        """Whether some particles have components, which learn from small parts of their fields."""
        return any(getattr(layer, "components", 1) > 1 for layer in uses(self.network.layers))

    @property
    def tol(self) -> float:
        """The part of a field's mean square that a leading direction must have."""
        usual = TOL_OF_COMPONENTS if self.has_components else TOL_OF_BATCHES if self.on_batches else TOL
        return EXACT_TOL if self.exact else self.settings.tol or usual

    @property
    def smooth(self) -> bool:
        """Whether all activations are smooth."""
        return all(phi.smooth for phi in self.network.nonlinearities)

    @functools.cached_property
    def rows(self) -> int:
        """The number of points that train together; without tails that of all points, as all must be known."""
        if self.finite or self.noisy:
            return self.problem.points
        return int(getattr(self.training, "batch_size", None) or np.count_nonzero(self.problem.weights))

    @property
    def on_batches(self) -> bool:
        """Whether every update is on a part of the points."""
        return bool(self.rows < np.count_nonzero((self.problem.stream or self.problem).weights))

    @property
    def batched(self) -> bool:
        """Whether updates are on batches, which may be of all points."""
        return self.schedule()[1] is not None

    @property
    def kernels_at(self) -> tuple[int, ...]:
        """The steps whose kernels are recorded."""
        return self.run.kernel_steps if any(self.settings.records(self.problem)) else ()

    @property
    def states_at(self) -> list[int]:
        """The steps whose states are kept to predict from; the last one learns nothing, and its state stays."""
        return [t for t in self.run.fields_at if t < self.run.steps] if self.settings.predicts else []

    @property
    def skeleton(self) -> tuple[int, int] | None:
        """The columns and rows that are known of matrices that learn by entries, and the rank; None for all."""
        chosen = getattr(self.settings, "skeleton", None)
        if chosen == "all" or (chosen is None and (self.has_components or self.settings.particles <= ALL_PAIRS)):
            return None
        return chosen or SKELETON

    @property
    def feedback(self) -> Feedback:
        """What sends gradients down."""
        if self.rule is None:
            return self.settings.feedback
        return Feedback(self.rule.alignment if isinstance(self.rule, FeedbackAlignment) else 0.0, learns=False)

    @property
    def particles(self) -> int:
        """S: as the settings say, or as many as the coordinates of a linear network need."""
        if not self.exact:
            return self.settings.particles
        setup = self.setup(0, particles=1)
        self.step.layers.init(setup, self.space)
        outside = min(self.axes.shape[1] - len(self.axes), OUTSIDE)
        return multiple(max(population.dimensions(outside) for population in setup.populations))

    @property
    def space(self) -> Space:
        """The space of the data."""
        return Space(None, self.data.shape[1:-1], self.data.shape[-1], outside=self.outside)

    @property
    def side_by_side(self) -> int:
        """The number of replicates that march at once: one on several devices, where their sums would wait."""
        return 1 if placement(self.particles).is_split else min(self.count, os.cpu_count() or 1)

    @property
    def dtype(self) -> Any:
        """The type of fields on particles."""
        single = not self.exact and self.settings.is_single(self.run)
        return jnp.float32 if single else jnp.float64

    @property
    def initial_bytes(self) -> int:
        """The size of the initial features of all points that train."""
        points = (self.problem.stream or self.problem).points
        return points * self.sites * self.particles * np.dtype(self.dtype).itemsize

    def setup(self, replicate: int, particles: int | None = None) -> Setup:
        """Returns how a replicate lays out the network, by default on all particles."""
        particles = particles or self.particles
        return Setup(
            gamma0=self.settings.gamma0(self.network),
            points=cubature if self.exact else independent if self.finite else padded_sobol,
            particles=particles,
            seed=self.settings.seed_of(replicate),
            rows=self.rows,
            capacity=self.directions,
            block=None if self.complete else min(BLOCK, particles),
            tol=self.tol,
            is_finite=self.finite,
            feedback=self.feedback,
            direct=isinstance(self.rule, DirectFeedbackAlignment),
            dtype=self.dtype,
            outputs=self.problem.outputs,
            momentum=self.step.momentum,
            noisy=self.noisy,
            by_entries=isinstance(self.training, Adam),
            skeleton=self.skeleton,
            orders=self.step.orders,
        )

    @property
    def recorder(self) -> Recorder:
        """The recorder of the kernels that are kept."""
        features, gradients = self.settings.records(self.problem)
        needed = (SMOOTH if self.smooth else KINKED) * self.problem.points * self.problem.outputs * self.sites
        room = IN_USE * math.ceil(1 + needed / IN_USE)
        most = self.particles if self.exact else min(RECORD_DIRECTIONS, room, self.particles)
        return Recorder(
            self.step.layers,
            self.problem.outputs,
            features,
            gradients,
            gradients and not self.network.factorizes and self.step.orders == 1,
            most if self.kernels_at else 0,
            min(RECORD_TOL, self.tol) if self.complete else RECORD_TOL,
            self.noisy,
        )

    def schedule(self) -> tuple[np.ndarray, Batches | None, int]:
        """Returns rates (T,) and batches of all updates, and their number between two rows; none for gradient flow.

        The batches are None if every update takes all points.
        """
        training, problem = self.training, self.problem
        if isinstance(training, GradientFlow):
            return np.zeros(0), None, 1
        return training.rates(problem), training.batches(problem), training.updates_per_step(problem)

    def constants(self) -> tuple[Constants, Constants]:
        """Returns the constants of the points that are observed, and of those that train."""
        data, fresh = np.split(self.data, [self.problem.points])
        put = jax.device_put  # jnp.asarray would compile a program for every shape
        observed = Constants(
            data=put(data.astype(self.dtype)),
            y=put(self.problem.targets),
            weights=put(self.problem.weights),
            gamma0=put(self.settings.gamma0(self.network)),
            momentum=put(getattr(self.training, "momentum", 0.0)),
            weight_decay=put(getattr(self.training, "weight_decay", 0.0)),
            temperature=put(self.training.temperature) if isinstance(self.training, Langevin) else None,
            limit=put(DIVERGED * self.problem.initial_loss or np.inf),  # rounding is not divergence
        )
        if (stream := self.problem.stream) is None:
            return observed, observed
        return observed, observed._replace(data=put(fresh.astype(self.dtype)), y=put(stream.targets))
