"""Networks trained in PyTorch come closer to the limit that `describe` returns, as N^-1/2."""

import numpy as np
import pytest

pytest.importorskip("torch")
from own_networks import BODIES, GAMMA0, Y, make_network, train

import kernelfield as kf
from kernelfield.torch import Recorder, read

SEEDS, STEPS, WIDTHS = 4, 6, (128, 512)


@pytest.mark.thorough
@pytest.mark.parametrize("adam", [False, True], ids=["SGD", "Adam"])
@pytest.mark.parametrize("name", BODIES)
def test_the_distance_falls_as_one_over_the_root_of_the_width(name, adam):
    """Oracle: muP written by hand in PyTorch; of the limit, its error of N^-1/2 in f and in every feature kernel."""
    eta, distances, infinite = 0.05 if adam or name == "transformer" else 0.3, {}, None
    for width in WIDTHS:
        recorders = []
        for seed in range(SEEDS):
            model, optimizer = make_network(name, width, seed, adam, eta)
            if infinite is None:
                run = read(model, optimizer, BODIES[name][1], Y, steps=STEPS).run
                method = kf.March(particles=2048, kernels="features")
                infinite = kf.solve(run.network, run.problem, run.training, method, progress=False)
            recorders.append(Recorder(model, BODIES[name][1]))
            train(model, optimizer, BODIES[name][1], STEPS, recorders[-1])
        own = Recorder.join(recorders, run)
        report = kf.width_report(own, infinite, corrections=False, progress=False)
        distances[width] = report.distance.mean[-1], *(each.mean[-1] for each in report.kernel_distances.values())
    narrow, wide = (np.array(distances[width]) for width in WIDTHS)
    assert run.network.gamma0 == pytest.approx(GAMMA0)
    assert wide.max() < 0.12 and (wide < 0.85 * narrow).all()
    assert np.median(wide / narrow) < 0.65  # 1/2, and the noise of four networks of each width
