"""
Does feature learning help on images it has not seen?
=====================================================

Points of weight zero do not train: they ride along, and predictions for them are the
network's answers on a test set. So the infinitely wide network has a training curve and a
test curve, at every strength of feature learning.
"""

import matplotlib.pyplot as plt
import numpy as np

import kernelfield as kf
from kernelfield import observables, plotting
from kernelfield.datasets import digits

# %%
# Every other image trains, the rest test. The images are ordered by class, so that both
# have some of each.

images = digits(classes=(3, 8), points=16, seed=0)
trains = np.arange(images.points) % 2 == 0
problem = kf.Problem(images.X, images.y, weights=trains)
training = kf.GradientDescent(learning_rate=0.3, steps=40)
method = kf.March(particles=512, kernels="features")
gammas = (0.1, 1.0)


def solved(gamma0):
    network = kf.MLP(depth=2, activation="tanh", gamma0=gamma0)
    return kf.solve(network, problem, training, method, progress=False)


solutions = {gamma0: solved(gamma0) for gamma0 in gammas}

# %%
# Loss and share of right answers on the test images, after training.

for gamma0, solution in solutions.items():
    loss = observables.loss(solution, "test")
    right = observables.accuracy(solution, "test")
    print(f"gamma0 = {gamma0:g}: test loss {loss.mean[-1]:.4f} ± {loss.se[-1]:.4f}")
    print(f"gamma0 = {gamma0:g}: {100 * right.mean[-1]:.0f} % right")

# %%
# Dashed: training loss. Solid: test loss. The bands are 95 % intervals.

figure, axes = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
colours = dict(zip(gammas, (plotting.LAZY, plotting.RICH), strict=True))
for gamma0, solution in solutions.items():
    steps, colour, name = solution.steps(), colours[gamma0], f"$\\gamma_0$ = {gamma0:g}"
    plotting.curve(axes, steps, observables.loss(solution, "test"), colour, f"{name}, test")
    train = observables.loss(solution, "train")
    plotting.curve(axes, steps, train, colour, f"{name}, training", style="--")
axes.set(
    xlabel="gradient-descent step", ylabel="loss", yscale="log", xlim=(0, training.steps)
)
axes.set_title("Digits 3 and 8: 8 images to learn from, 8 to be tested on")
axes.legend(frameon=False, ncols=2)
axes.spines[["top", "right"]].set_visible(False)
plt.show()
