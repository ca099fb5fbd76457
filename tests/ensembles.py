"""Ensembles of finite networks beside infinite width."""

import numpy as np

import kernelfield as kf


def check_approach(truth, solved, layers):
    """At N = 128 predictions and kernels are within twice the noise of the truth, and nearer than at N = 8."""
    distances = []
    for width in (8, 128):
        found, errors = solved(kf.FiniteWidth(width=width, seeds=24, kernels="features")), []
        for quantity in (("predictions",), *(("feature_kernel", layer) for layer in layers)):
            one, other = (each.estimate(*quantity) for each in (found, truth))
            errors.append(np.linalg.norm(one.mean - other.mean) / np.linalg.norm(other.mean))
            noise = np.sqrt(np.sum(one.se**2 + other.se**2)) / np.linalg.norm(other.mean)
            assert width == 8 or errors[-1] < 2 * noise, (errors, noise)
        distances.append(sum(errors))
    assert distances[1] < 0.7 * distances[0]
