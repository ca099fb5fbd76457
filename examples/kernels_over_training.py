"""
Alignment and movement of kernels over training
===============================================

When does each layer learn? `observables` follows the feature kernels and the tangent kernel
through training: how they align with the targets, how far they move, how many directions
they use, and how fast each mode learns.
"""

import matplotlib.pyplot as plt

import kernelfield as kf
from kernelfield import observables, plotting
from kernelfield.datasets import digits

# %%
# ``kernels="all"``, the default, also tracks gradient kernels, which the tangent kernel
# (NTK) is made of.

problem = digits(classes=(4, 9), points=8, seed=0)
network = kf.MLP(depth=2, activation="tanh", gamma0=2.0)
training = kf.GradientDescent(learning_rate=0.3, steps=40)
solution = kf.solve(network, problem, training, kf.March(particles=512), progress=False)
steps = solution.steps()

# %%
# A number that is hard to see in a curve: how much of its final alignment did the tangent
# kernel have when the loss had fallen to half? Near one, features came first ("silent
# alignment"); near zero, the loss fell first.

silent = observables.silent_alignment(solution, "NTK", dropped=0.5)
step, share = silent.step, silent.share
print(f"the loss was halved at step {step.mean:.2f} ± {step.se:.2f}")
print(
    f"the tangent kernel had then gained {share.mean:.3f} ± {share.se:.3f} of its alignment"
)

# %%
# Each curve is a mean over replicates with its 95 % interval as a band.

figure, axes = plt.subplots(2, 2, figsize=(11, 7.2), sharex=True, layout="constrained")
kernels = [("Phi", 1, "$\\Phi^1$"), ("Phi", 2, "$\\Phi^2$"), ("NTK", None, "NTK")]
panels = (
    (axes[0, 0], observables.kernel_alignment, "alignment with the targets"),
    (axes[0, 1], observables.kernel_movement, "movement $|K(t) - K(0)| / |K(0)|$"),
    (axes[1, 0], observables.effective_rank, "effective rank"),
)
for place, measure, title in panels:
    for (kernel, layer, name), colour in zip(kernels, plotting.SERIES, strict=False):
        plotting.curve(place, steps, measure(solution, kernel, layer), colour, name)
    place.set_title(title)
axes[0, 0].legend(frameon=False)
plotting.spectrum(axes[1, 1], steps, observables.ntk_spectrum(solution))
axes[1, 1].set_title("eigenvalues of NTK / P: rates of learning")
for place in axes.flat:
    place.spines[["top", "right"]].set_visible(False)
    place.grid(alpha=0.25, lw=0.6)
for place in axes[1]:
    place.set_xlabel("gradient-descent step")
plt.show()
