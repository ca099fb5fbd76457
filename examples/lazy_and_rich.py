"""
Lazy against rich: what feature learning changes
================================================

Two networks with the same start learn to tell handwritten zeros from ones. They differ in
one number, ``gamma0``. Both fit the data; only one of them changes how it sees the images.
Solved at infinite width.
"""

import matplotlib.pyplot as plt

import kernelfield as kf
from kernelfield import observables, plotting
from kernelfield.datasets import digits

# %%
# Describe what is learned and how, then solve for a small and for a large ``gamma0``. One
# step advances training time by ``learning_rate`` at every ``gamma0``, so that both runs
# can be compared step by step.

problem = digits(classes=(0, 1), points=12, seed=0)
training = kf.GradientDescent(learning_rate=0.3, steps=40)
method = kf.March(particles=1024, kernels="features")


def solved(gamma0):
    network = kf.MLP(depth=2, activation="tanh", gamma0=gamma0)
    return kf.solve(network, problem, training, method, progress=False)


solutions = {"lazy": solved(0.1), "rich": solved(2.0)}

# %%
# How far did training move the kernel of the last hidden layer, and how well is it aligned
# with the targets afterwards? `observables` gives every number with its standard error over
# replicates.

for name, solution in solutions.items():
    moved = observables.kernel_movement(solution, "Phi", layer=2, t=-1)
    aligned = observables.kernel_alignment(solution, "Phi", layer=2, t=-1)
    print(f"{name}: kernel moved by   {moved.mean:.4f} ± {moved.se:.4f}")
    print(f"{name}: kernel aligned to {aligned.mean:.4f} ± {aligned.se:.4f}")

# %%
# The lazy kernel after training is the one from initialization. The rich kernel has split
# into two blocks: all zeros look alike to this network, all ones look alike, and the two
# are opposite.

figure = plt.figure(figsize=(9, 6.4), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=[1, 1.05])
curves, panels = above.subplots(), below.subplots(1, 3)
colours = {"lazy": plotting.LAZY, "rich": plotting.RICH}
for name, solution in solutions.items():
    label = f"{name}, $\\gamma_0$ = {solution.network.gamma0:g}"
    plotting.loss_curve(curves, solution, colours[name], label)
curves.legend(frameon=False)
curves.spines[["top", "right"]].set_visible(False)

kernels = {
    "before training": solutions["rich"].feature_kernel(layer=2, t=0),
    "after lazy training": solutions["lazy"].feature_kernel(layer=2, t=-1),
    "after rich training": solutions["rich"].feature_kernel(layer=2, t=-1),
}
limit = max(abs(kernel).max() for kernel in kernels.values())
for place, (title, kernel) in zip(panels, kernels.items(), strict=True):
    image = plotting.kernel_matrix(place, kernel, limit, title, groups=(6, 6))
plotting.class_labels(panels[0], ['"0"', '"1"'], groups=(6, 6))
below.colorbar(image, ax=panels, label="feature kernel $\\Phi^2$", shrink=0.9)
plt.show()
