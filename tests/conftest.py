"""Warnings are errors. The library computes in double precision where it needs to, with x64 left off
globally, as users have it; a test that calls JAX itself uses the `x64` fixture."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # of this run alone, for all of its processes
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="kernelfield-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # each core has a worker of its own
os.environ.setdefault("OMP_NUM_THREADS", "1")
if "XLA_FLAGS" not in os.environ:  # most of the time goes into compilation
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    sooner = os.environ["XLA_FLAGS"] + " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    trial = [sys.executable, "-c", "import jax; jax.devices()"]  # a version of JAX that lacks a flag ends the process
    if not subprocess.run(trial, env={**os.environ, "XLA_FLAGS": sooner}, capture_output=True).returncode:
        os.environ["XLA_FLAGS"] = sooner

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


@pytest.fixture(scope="session")
def several_outputs():
    """A march of three outputs by cross-entropy, on mini-batches, with gradients of every output; one test point."""
    X = np.random.default_rng(1).standard_normal((5, 4))
    problem = kf.Problem(X, [0, 1, 2, 1, 0], weights=[1, 1, 1, 1, 0], loss="cross_entropy")
    training = kf.SGD(learning_rate=0.3, batch_size=2, epochs=3, momentum=0.5, schedule="cosine")
    method = kf.March(particles=128, replicates=2, kernels="per_output")
    return kf.solve(kf.MLP(depth=2, activation="tanh"), problem, training, method, progress=False)


@pytest.fixture(scope="module")
def browser():
    """A browser without a window."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra 'test')")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()
