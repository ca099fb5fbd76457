"""
A recurrent network, written from layers
========================================

A layer object that is used twice shares its weights. So a recurrent network, unrolled, is a
list of layers: read the input once, then apply one matrix again and again.
"""

import matplotlib.pyplot as plt
import numpy as np

import kernelfield as kf
from kernelfield import observables, plotting
from kernelfield.datasets import gaussian
from kernelfield.layers import Activation, Dense, Readout

# %%
# ``again`` is one matrix with three uses; training moves it by the gradients of all three.
# Solved at infinite width; by trained networks, an independent check; and by a control
# without responses, in which the matrix and its transpose are unrelated.

problem = gaussian(points=4, dimensions=8, seed=1)
training = kf.GradientDescent(learning_rate=0.3, steps=30)
again, tanh = Dense(), Activation("tanh")
network = kf.Network(layers=[Dense(), tanh, *3 * [again, tanh], Readout()], gamma0=1.0)


def solved(method):
    return kf.solve(network, problem, training, method, save_at=[-1], progress=False)


infinite = solved(kf.March(particles=1024, kernels="features"))
control = solved(kf.GradientIndependence(particles=512))
networks = {
    N: solved(kf.FiniteWidth(width=N, seeds=16, kernels="features")) for N in (64, 256)
}

# %%
# Left: the loss. Right: how well the hidden state after each use of the matrix is aligned
# with the targets, once trained. Bars are 95 % intervals of the mean over networks.

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.4), layout="constrained")


def draw(plot, solution, *style):
    uses = [observables.kernel_alignment(solution, "Phi", 1 + n, t=-1) for n in range(4)]
    after = kf.Estimate(np.stack([each.replicates for each in uses], axis=1))
    plot(left, solution.steps(), solution.estimate("loss"), *style)
    plot(right, np.arange(4), after, *style)


draw(plotting.curve, infinite, plotting.RICH, "infinite width")
draw(plotting.curve, control, plotting.RICH, "without responses", "--")
for N, colour in zip(networks, plotting.SERIES[2:], strict=False):
    draw(plotting.dots, networks[N], colour, f"16 networks, N = {N}")
    off = kf.compare(networks[N], infinite).row("predictions")
    print(f"N = {N}: {100 * off.error:.1f} % off, sampling noise {100 * off.noise:.1f} %")
left.set(xlabel="gradient-descent step", title="loss", yscale="log")
right.set(xlabel="uses of the matrix", title="alignment with targets", xticks=range(4))
right.legend(frameon=False)
plt.show()
