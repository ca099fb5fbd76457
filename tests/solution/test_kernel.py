"""Kernels that were kept at some steps. Oracle: the run that kept all of them."""

import numpy as np
import pytest

import kernelfield as kf


def test_a_single_kept_step_does_not_stand_for_all_steps(tmp_path):
    problem, training = kf.Problem(np.eye(3), [1.0, -1.0, 0.5]), kf.GradientDescent(learning_rate=0.2, steps=4)
    method = kf.March(particles=64, replicates=2)
    every, one = (
        kf.solve(kf.MLP(depth=1), problem, training, method, save_at=at, progress=False) for at in (None, [2])
    )
    one.save(tmp_path / "one.nc")
    for solution in (one, kf.load(tmp_path / "one.nc")):
        np.testing.assert_allclose(solution.feature_kernel(1, 2), every.feature_kernel(1, 2), atol=1e-4)
        with pytest.raises(ValueError, match="kernels of step 0 were not kept, only those of steps 2"):
            solution.feature_kernel(1, 0)
