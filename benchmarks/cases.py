"""Problems that the benchmarks share: a network, a training set and a schedule each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn import datasets

import kernelfield as kf
from kernelfield.datasets import gaussian
from kernelfield.figures.common import teacher


@dataclass(frozen=True)
class Case:
    """What is solved. `tuned`: default settings were chosen while looking at this case."""

    name: str
    network: kf.MLP
    problem: kf.Problem
    training: kf.GradientDescent
    tuned: bool = True


def digits(points: int) -> kf.Problem:
    """The digits 0 and 1, y = +-1; X = data / 16 minus its scalar mean, over its standard deviation."""
    data: Any = datasets.load_digits(n_class=2, return_X_y=True)
    images, labels = data
    X = images[:points] / 16
    return kf.Problem((X - X.mean()) / X.std(), 2.0 * labels[:points] - 1)


def moons(points: int) -> kf.Problem:
    """Two interleaved half circles in the plane, y = +-1."""
    data: Any = datasets.make_moons(points, noise=0.1, random_state=0)
    X, labels = data
    return kf.Problem((X - X.mean(0)) / X.std(0), 2.0 * labels - 1)


def diabetes(points: int) -> kf.Problem:
    """Regression: ten standardised measurements, standardised disease progression."""
    data: Any = datasets.load_diabetes(return_X_y=True)
    X, y = data[0][:points], data[1][:points]
    return kf.Problem((X - X.mean(0)) / X.std(0), (y - y.mean()) / y.std())


def breast_cancer(points: int) -> kf.Problem:
    """Thirty standardised measurements, y = +-1."""
    data: Any = datasets.load_breast_cancer(return_X_y=True)
    chosen = np.random.default_rng(0).permutation(len(data[0]))[:points]
    X, labels = data[0][chosen], data[1][chosen]
    return kf.Problem((X - X.mean(0)) / X.std(0), 2.0 * labels - 1)


def _case(
    name: str,
    problem: kf.Problem,
    activation: str,
    depth: int,
    gamma0: float,
    learning_rate: float,
    steps: int,
    tuned: bool = True,
) -> Case:
    network = kf.MLP(depth=depth, activation=activation, gamma0=gamma0)
    return Case(name, network, problem, kf.GradientDescent(learning_rate=learning_rate, steps=steps), tuned)


def accuracy_cases() -> list[Case]:
    """Digits at several networks, and three problems that no setting was tuned on."""
    return [
        _case("digits-tanh3", digits(20), "tanh", 3, 1.0, 0.15, 40),
        _case("digits-relu2-rich", digits(20), "relu", 2, 2.0, 0.12, 40),
        _case("digits-relu3", digits(20), "relu", 3, 1.0, 0.15, 40),
        _case("digits-erf4", digits(20), "erf", 4, 1.0, 0.1, 40),
        _case("digits-gelu1-rich", digits(20), "gelu", 1, 3.0, 0.12, 40),
        _case("moons-tanh2", moons(20), "tanh", 2, 1.0, 0.4, 60, tuned=False),
        _case("diabetes-erf2", diabetes(20), "erf", 2, 1.5, 0.3, 60, tuned=False),
        _case("cancer-softplus2", breast_cancer(30), "softplus", 2, 1.0, 0.2, 50, tuned=False),
    ]


def coverage_cases() -> list[Case]:
    """Small enough to be solved fifty times."""
    return [
        _case("gaussian-tanh3", gaussian(5, 20, seed=1), "tanh", 3, 1.0, 0.3, 40),
        _case("gaussian-relu2-rich", gaussian(5, 20, seed=1), "relu", 2, 2.0, 0.2, 40),
        _case("digits-erf2", digits(10), "erf", 2, 1.0, 0.2, 40, tuned=False),
        _case("digits-P20-tanh3", digits(20), "tanh", 3, 1.0, 0.15, 40, tuned=False),
        _case("digits-P100-relu2", digits(100), "relu", 2, 1.0, 0.15, 40, tuned=False),
    ]


def equal_error_cases() -> list[Case]:
    """Where the march is timed against ensembles of finite networks: three problems of the paper, and three others."""
    return [
        _case("paper-tanh3-P10", digits(10), "tanh", 3, 1.0, 0.1, 100),
        _case("paper-relu1-P25", teacher(25, 40), "relu", 1, 1.0, 0.2, 200),
        _case("paper-linear5-P20", teacher(20, 40), "linear", 5, 1.5, 0.1, 100),
        _case("gaussian-P5-tanh3", gaussian(5, 20, seed=1), "tanh", 3, 1.0, 0.3, 40),
        _case("digits-P20-tanh3", digits(20), "tanh", 3, 1.0, 0.15, 40),
        _case("digits-P50-relu2", digits(50), "relu", 2, 1.0, 0.15, 40),
    ]
