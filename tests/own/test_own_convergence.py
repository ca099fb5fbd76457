"""Networks trained in PyTorch come closer to the limit that `describe` returns, as N^-1/2."""

import numpy as np
import pytest

pytest.importorskip("torch")
from own_networks import BODIES, GAMMA0, measure, solve_limit

SEEDS, WIDTHS = 32, (128, 512)


@pytest.mark.thorough
@pytest.mark.parametrize("adam", [False, True], ids=["SGD", "Adam"])
@pytest.mark.parametrize("name", BODIES)
def test_the_distance_falls_as_one_over_the_root_of_the_width(name, adam):
    """Oracle: muP written by hand in PyTorch; of the limit, its error of N^-1/2 in f and in every feature kernel."""
    run, infinite = solve_limit(name, adam, particles=1024)
    assert run.network.gamma0 == pytest.approx(GAMMA0)
    found = [measure(name, adam, width, SEEDS, run, infinite) for width in WIDTHS]
    narrow, wide = (np.array([float(distance.mean) for distance in each.values()]) for each in found)
    assert wide.max() < 0.15 and (wide < 0.9 * narrow).all()  # of one number, the ratio is 0.5 within 19 %
    assert np.median(wide / narrow) < 0.65
