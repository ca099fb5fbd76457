"""
Activations become non-Gaussian
===============================

At initialization the preactivations of an infinitely wide layer are Gaussian. Feature
learning ends that: each neuron moves by an amount that depends on where it started. The
solution has the whole distribution, not its moments alone.
"""

import matplotlib.pyplot as plt
import numpy as np

import kernelfield as kf
from kernelfield import observables, plotting
from kernelfield.datasets import digits

# %%
# ``fields_at`` says at which steps samples of the fields are kept: the first and the last
# here. The finite networks are an independent check.

problem = digits(classes=(0, 1), points=8, seed=0)
network = kf.MLP(depth=2, activation="tanh", gamma0=3.0)
training = kf.GradientDescent(learning_rate=0.3, steps=40)


def solved(method):
    return kf.solve(network, problem, training, method, fields_at=(0, -1), progress=False)


infinite = solved(kf.March(particles=2048, kernels="features"))
finite = solved(kf.FiniteWidth(width=1024, seeds=4, kernels="none"))

# %%
# Excess kurtosis is zero for a Gaussian. Here it is for the first image, before and after
# training.

for layer in (1, 2):
    before, after = (observables.excess_kurtosis(infinite, layer, t=t) for t in (0, -1))
    print(f"layer {layer} before training: {before.mean[0]:+.3f} ± {before.se[0]:.3f}")
    print(f"layer {layer} after training:  {after.mean[0]:+.3f} ± {after.se[0]:.3f}")

# %%
# Lines are infinite width, filled histograms are trained networks of width 1024, dashes are
# the Gaussian with the same mean and variance as the line.


def gaussian(x, h):
    return np.exp(-((x - h.mean()) ** 2) / (2 * h.var())) / np.sqrt(2 * np.pi * h.var())


figure, axes = plt.subplots(2, 2, figsize=(10, 6.4), layout="constrained")
panels = [(layer, t) for layer in (1, 2) for t in (0, -1)]
for place, (layer, t) in zip(axes.flat, panels, strict=True):
    line = observables.activation_density(infinite, layer, sample=0, t=t, edges=30)
    bars = observables.activation_density(finite, layer, sample=0, t=t, edges=line.edges)
    bell = gaussian(line.centres, infinite.fields(layer, t)["h"][0])
    plotting.density_bars(
        place, bars.edges, bars.density, plotting.NEUTRAL, "trained networks"
    )
    plotting.density_line(place, line.edges, line.density, plotting.RICH, "infinite width")
    plotting.guide(place, line.centres, bell, "Gaussian, same variance")
    place.set_title(f"layer {layer}, {'before' if t == 0 else 'after'} training")
    place.set(xlabel=f"preactivation $h^{layer}$ of the first image", yticks=[])
    place.spines[["top", "right", "left"]].set_visible(False)
axes[0, 0].legend(frameon=False, fontsize=9)
plt.show()
