"""Warnings are errors. The library computes in double precision where it needs to, with x64 left off
globally, as users have it; a test that calls JAX itself uses the `x64` fixture."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import numpy as np
import pytest

import kernelfield as kf


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error")


@pytest.fixture
def x64():
    """Double precision for what a test computes with JAX itself."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True)
def own_compilation_cache(monkeypatch, tmp_path_factory):
    """The command line keeps compiled programs in a folder of the tests, not of the user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def small_problem():
    rng = np.random.default_rng(0)
    return kf.Problem(rng.standard_normal((4, 6)), [1.0, -1.0, 1.0, -1.0])


@pytest.fixture(scope="session")
def small_solution(small_problem):
    """A small solved march, with all kernels and fields."""
    network = kf.MLP(depth=2, activation="tanh", gamma0=1.0)
    training = kf.GradientDescent(learning_rate=0.2, steps=5)
    method = kf.March(particles=128, replicates=2)
    return kf.solve(network, small_problem, training, method, progress=False)
