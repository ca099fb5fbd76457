"""A process that was forked after a solve says why it cannot compute."""

import multiprocessing
import sys

import numpy as np
import pytest

import kernelfield as kf


def final_loss(gamma0):
    problem, training = kf.Problem(np.eye(3), [1.0, -1.0, 1.0]), kf.GradientDescent(learning_rate=0.3, steps=2)
    return kf.solve(kf.MLP(depth=1, activation="linear", gamma0=gamma0), problem, training).loss[-1]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning", "ignore:This process:DeprecationWarning")
def test_a_forked_process_is_refused_in_a_sentence():
    final_loss(1.0)
    with (
        multiprocessing.get_context("fork").Pool(1) as pool,
        pytest.raises(RuntimeError, match=r"forked after JAX had started.*get_context\(.spawn.\)"),
    ):
        pool.apply_async(final_loss, (1.0,)).get(timeout=60)
