"""The march as a method: its settings, and what theories on particles share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import jax
import numpy as np
from pydantic import Field, field_validator

from kernelfield.common.progress import Report
from kernelfield.describe.architecture import Architecture
from kernelfield.describe.problem import Problem
from kernelfield.describe.rules import Hebbian
from kernelfield.describe.run import Run
from kernelfield.describe.training import SGD, Adam, GradientDescent, GradientFlow, Langevin, OnlineSGD
from kernelfield.engine.infinite_matrix import Feedback
from kernelfield.march.adam_step import AdamStep
from kernelfield.march.checkpoint import Checkpoint
from kernelfield.march.cost import check_memory
from kernelfield.march.layout import Layout
from kernelfield.march.noisy_step import NoisyStep
from kernelfield.march.particle_run import ParticleRun
from kernelfield.march.predictor import MarchPredictor
from kernelfield.march.step import Step
from kernelfield.solution.method import Method
from kernelfield.solution.solution import Solution
from kernelfield.solution.status import Status

SINGLE_PRECISION = 1e-4  # movement of the fields, relative to them, from which float32 is enough
LEAST_MOVEMENT = 1e-12  # from which double precision is
SINGLE_KERNEL, LARGEST_KERNEL = 1e15, 1e150  # mean squares of inputs whose squares overflow in single and in double
RECORDED = 500  # points times sites whose kernels are recorded unless somebody asks


class OnParticles(Method):
    """A theory of infinite width that is solved on particles, in one sweep through training time.

    All of them share the settings, which `March` describes; from `step` on is what they do differently.
    """

    particles: int = Field(default=4096, ge=16)
    replicates: int = Field(default=4, ge=1)
    seed: int = Field(default=0, ge=0)
    tol: float | None = Field(default=None, gt=0, lt=1)
    directions: int | None = Field(default=None, ge=1)
    precision: Literal["auto", "single", "double"] = "auto"

    kind: ClassVar[type[Step]] = Step
    feedback: ClassVar[Feedback] = Feedback()  # what sends gradients down, unless a learning rule says it
    is_finite: ClassVar[bool] = False  # whether particles are the neurons of networks of finite width
    predicts: ClassVar[bool] = False  # at new points, by a forward pass
    keeps_checkpoints: ClassVar[bool] = True

    @field_validator("particles")
    @classmethod
    def _balanced(cls, particles: int) -> int:
        if particles & (particles - 1):
            raise ValueError(f"particles must be a power of two (Sobol points, blocks of the tail), got {particles}")
        return particles

    def solve(self, run: Run, progress: Report, checkpoint: Checkpoint | None = None) -> Solution | Status:
        """Returns the Solution; see `kernelfield.solve`."""
        if checkpoint is not None and jax.process_count() > 1:
            raise ValueError("checkpoints are kept of one process, which may have several devices, not of several")
        particles = ParticleRun(run, checkpoint)
        check_memory(particles.layout)
        if checkpoint is not None:
            particles.layout.directions = checkpoint.open(run.fingerprint()) or particles.layout.directions
        return particles.solution(particles.march(progress))

    def seed_of(self, replicate: int) -> np.random.SeedSequence:
        """Returns the seed of a replicate."""
        return np.random.SeedSequence(self.seed, spawn_key=(replicate,))

    def records(self, problem: Problem) -> tuple[bool, bool]:
        """Returns whether feature kernels are recorded, and gradient kernels."""
        return True, True

    def step(self, run: Run) -> Step:
        """Returns one step of training, to be compiled."""
        momentum = isinstance(run.training, GradientFlow) or "momentum" in run.extras  # flow is along velocities
        network, problem = run.network, run.problem
        rule = getattr(run.training, "rule", None)
        decays = "weight_decay" in run.extras
        follows = rule is None, isinstance(rule, Hebbian)
        settings = network.layers, problem.loss, problem.outputs, momentum, decays, *follows
        if isinstance(run.training, Adam):
            return AdamStep(*settings, run.training.betas, run.training.eps)
        return NoisyStep(*settings) if isinstance(run.training, Langevin) else self.kind(*settings)

    def supports(self, run: Run) -> None:
        """Raises ValueError for a run that it cannot solve: also where features move by less than rounding."""
        super().supports(run)
        moves, kernel = run.movement, run.input_square
        if isinstance(self.gamma0(run.network), float) and 0 < moves < LEAST_MOVEMENT:
            limit = "StaticNTK() solves the limit in which they do not"
            raise ValueError(f"features would move by {moves:.0e} of their size, which is below rounding: {limit}")
        if not np.isfinite(kernel) or kernel > LARGEST_KERNEL:
            raise ValueError(f"X must be smaller: its mean square is {kernel:.0e}, the square of which overflows")

    def is_single(self, run: Run) -> bool:
        """Returns whether fields are float32, which is enough if they move by much more than its rounding."""
        if self.precision != "auto":
            return self.precision == "single"
        moves, kernel = run.movement, run.input_square
        return moves == 0 or (moves >= SINGLE_PRECISION and 1 / SINGLE_KERNEL < kernel < SINGLE_KERNEL)

    def gamma0(self, network: Architecture) -> Any:
        """Returns the number, or a formal variable."""
        return network.gamma0

    def values(self, network: Architecture, field: Any) -> np.ndarray:
        """Returns a recorded field on particles as numbers."""
        return np.asarray(field)

    def recorded(
        self, run: Run, predictions: np.ndarray, features: list, gradients: list
    ) -> tuple[np.ndarray, Sequence[Any], Sequence[Any]]:
        """Returns f, and the factors of Phi and G as `network_kernels` takes them, given what was recorded.

        Predictions are (R, rows, P, C), factors of the kernels of hidden layers 1..L are (R, rows, P, k).
        """
        return predictions, features, gradients


class March(OnParticles):
    """Infinite width, solved on particles in one sweep through time (theory: exact as particles -> infinity).

    Linear networks choose exact cubature by themselves: one replicate, no sampling error.

    Args:
        particles: S, sample neurons of each hidden layer, of every replicate; a power of two.
        replicates: independent scrambles; their spread is the standard error.
        seed: of the scrambles.
        tol: part of a field's mean square that a direction must have to be treated exactly; a fast pseudo-Gaussian
            matrix says what W(0) does to all others. What is learned of others on both sides is left out: 2e-3 by
            default, 8e-3 on batches (the noise of whose rows would fill the bases at less), and 1e-4 for networks whose
            particles have components (attention and gates, whose queries and keys learn from small differences).
        directions: the most directions of a field that are treated exactly; 24 to 48 by default, by the number of
            points, twice as many on batches of several outputs, four times as many with components. Those beyond are
            left to that matrix, and not learned: `info["learning_left_out"]` of the Solution is that part of what the
            last step learned, and a warning tells where it is above 2 %.
        precision: of fields, "single" or "double"; "auto" is single where features move by 1e-4 of their size or more,
            which is gamma0 times the size of the error signal for inputs of size 1: rounding of their change is the
            error (0.03 % there).
        skeleton: of Adam, how many columns and rows of learned matrices are known entry by entry, and the rank of the
            matrix that they stand for; "all" for the entries of all pairs of particles, at a cost of particles squared.
            (256, 80) by default, and "all" up to 1024 particles, and where particles have components.
        kernels: "all" records feature kernels, and gradient kernels and the NTK of a network with one output;
            "features" the first alone; "per_output" G and NTK of every output too; "none" records no kernels, at no
            cost. "auto" is "all" up to 500 points (times sites), and "none" beyond. Training does not depend on it.
    """

    kernels: Literal["auto", "all", "features", "none", "per_output"] = "auto"
    skeleton: tuple[int, int] | Literal["all"] | None = None

    predicts: ClassVar[bool] = True
    rules: ClassVar[tuple[type, ...]] = (GradientDescent, SGD, OnlineSGD, GradientFlow, Adam, Langevin)
    takes: ClassVar[frozenset[str]] = frozenset(
        {"losses", "outputs", "momentum", "weight_decay", "schedule", "rule", "mixing"}
    )

    def records(self, problem: Problem) -> tuple[bool, bool]:
        """Returns whether feature kernels are recorded, and gradient kernels."""
        kernels = self.kernels
        if kernels == "auto":
            kernels = "all" if problem.points <= RECORDED else "none"
        return kernels != "none", kernels == "per_output" or (kernels == "all" and problem.outputs == 1)

    def restored_predictor(
        self, run: Run, info: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> MarchPredictor | None:
        """Returns the predictor of a solved run; None of a file whose states are of bases that dropped directions."""
        if "directions" not in info:
            return None
        layout = Layout(run)
        layout.directions = info["directions"]
        setups = [layout.setup(int(number)) for number in arrays["replicates"]]
        return MarchPredictor.restored(layout.step, setups, layout.space, arrays)
