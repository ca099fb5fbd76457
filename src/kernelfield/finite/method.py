"""Finite networks: width N, trained by automatic differentiation, many seeds at once.

They are the independent witness of the theory. Gradients come from `jax.vjp`, kernels from averages over neurons;
nothing here is shared with the march but the description of the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import numpy as np
from pydantic import Field

from kernelfield.common.progress import Report
from kernelfield.describe.run import Run
from kernelfield.describe.training import SGD, GradientDescent, GradientFlow, OnlineSGD
from kernelfield.finite.ensemble import Ensemble, finite_network
from kernelfield.finite.network import Kernels
from kernelfield.finite.predictor import FinitePredictor
from kernelfield.solution.method import Method
from kernelfield.solution.solution import Solution
from kernelfield.solution.status import Status


class FiniteWidth(Method):
    """Networks of width N, several seeds (theory: an error of O(N^-1/2) each, and of O(1/N) in their mean).

    The replicates of the Solution are the seeds, so that standard errors are those of the mean over seeds. They do not
    contain the distance O(1/N) of that mean from infinite width.

    f is reported minus its value f0 at initialization, also under weight decay: at infinite width f0 is zero. Weight
    decay acts on all weights, biases and readout included. Mini-batches (`kernelfield.SGD`) are the same for all
    seeds; an update touches their points alone, and predictions and kernels of all points are recorded between epochs.

    With C outputs, the fields z and g are those of the error signal, sum_c Delta_c z_c and sum_c Delta_c g_c.

    Args:
        width: N, neurons of each hidden layer.
        seeds: number of networks, each with its own random initialization.
        seed: seed of the first network; the others follow it, one by one.
        kernels: "all" records feature and gradient kernels of all times, "features" leaves gradient kernels
            and the NTK out, "none" records predictions (and fields) alone. With several outputs "all" is "features";
            "per_output" records gradient kernels of every output too, with rows (sample, output), P C of them.
        precision: precision of the weights; "float64" for gamma0 below about 1e-3, where f is a small difference.

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
            return ensemble.solution(ensemble.train(progress))

    def restored_predictor(
        self, run: Run, info: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> FinitePredictor:
        """Returns the predictor that a stored run kept."""
        return FinitePredictor.restored(finite_network(run), run.network.gamma0, self.precision, arrays)
