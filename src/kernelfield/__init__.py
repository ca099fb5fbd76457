"""Train infinitely wide neural networks that learn features.

    import kernelfield as kf

    problem = kf.Problem(X, y)                                   # X (P, D), y (P,) or (P, C), and a loss
    network = kf.MLP(depth=3, activation="tanh", gamma0=1.0)     # gamma0: feature-learning strength
    training = kf.GradientDescent(learning_rate=0.2, steps=100)

    solution = kf.solve(network, problem, training)              # infinite width
    finite = kf.solve(network, problem, training, method=kf.FiniteWidth(width=1024, seeds=8))

    solution.predictions, solution.predictions_se                # (steps + 1, P)
    solution.feature_kernel(layer=3, t=-1)                       # (P, P)

Describe (Problem, MLP, GradientDescent), solve (solve, with a method), look (Solution).
"""

from importlib import import_module
from typing import TYPE_CHECKING

from kernelfield import parameterization as parameterization
from kernelfield.describe.architecture import Network
from kernelfield.describe.networks import CNN, MLP, ResNet, Transformer
from kernelfield.describe.problem import Problem
from kernelfield.describe.rules import DirectFeedbackAlignment, FeedbackAlignment, Hebbian
from kernelfield.describe.training import (
    SGD,
    Adam,
    AdamW,
    GradientDescent,
    GradientFlow,
    Langevin,
    OnlineSGD,
    SignDescent,
)
from kernelfield.files.storage import load
from kernelfield.finite.corrections import Corrections, finite_width_corrections
from kernelfield.finite.method import FiniteWidth
from kernelfield.march.estimate import Cost, estimate
from kernelfield.march.method import March
from kernelfield.observables.compare import compare
from kernelfield.solution.estimate import Estimate
from kernelfield.solution.solution import Solution
from kernelfield.solution.status import Interrupted, SolveError, Status
from kernelfield.solve import solve
from kernelfield.theories.alternating import AlternatingMonteCarlo
from kernelfield.theories.bayesian_posterior import BayesianPosterior
from kernelfield.theories.deep_linear import DeepLinear
from kernelfield.theories.gradient_independence import GradientIndependence
from kernelfield.theories.perturbation import Perturbation
from kernelfield.theories.static_ntk import StaticNTK

_MODULES = {  # of the names that are imported on first use, because scikit-learn, pandas and bokeh are slow to import
    "AdaptedKernel": "estimators.adapted_kernel",
    "InfiniteWidthClassifier": "estimators.estimators",
    "InfiniteWidthRegressor": "estimators.estimators",
    "sweep_gamma": "sweeps.gammas",
    "sweep_grid": "sweeps.driver",
    "width_report": "report.width",
}
_ROOMS = ("datasets", "estimators", "recording", "sweeps", "torch")

__all__ = [
    "CNN",
    "MLP",
    "SGD",
    "Adam",
    "AdamW",
    "AdaptedKernel",
    "AlternatingMonteCarlo",
    "BayesianPosterior",
    "Corrections",
    "Cost",
    "DeepLinear",
    "DirectFeedbackAlignment",
    "Estimate",
    "FeedbackAlignment",
    "FiniteWidth",
    "GradientDescent",
    "GradientFlow",
    "GradientIndependence",
    "Hebbian",
    "InfiniteWidthClassifier",
    "InfiniteWidthRegressor",
    "Interrupted",
    "Langevin",
    "March",
    "Network",
    "OnlineSGD",
    "Perturbation",
    "Problem",
    "ResNet",
    "SignDescent",
    "Solution",
    "SolveError",
    "StaticNTK",
    "Status",
    "Transformer",
    "compare",
    "estimate",
    "finite_width_corrections",
    "load",
    "solve",
    "sweep_gamma",
    "sweep_grid",
    "width_report",
]

if TYPE_CHECKING:
    from kernelfield.estimators.adapted_kernel import AdaptedKernel
    from kernelfield.estimators.estimators import InfiniteWidthClassifier, InfiniteWidthRegressor
    from kernelfield.report.width import width_report
    from kernelfield.sweeps.driver import sweep_grid
    from kernelfield.sweeps.gammas import sweep_gamma
else:

    def __getattr__(name):
        if name in _MODULES:
            return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        if name in _ROOMS:
            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_ROOMS} - {"TYPE_CHECKING", "import_module"})
