"""
How far is my width from infinite width?
========================================

With muP, widening a network at fixed hyperparameters brings it closer to one limit, and
`solve` computes that limit. Then the distance of a given width from it is a number, and so
is the width needed to come closer.
"""

import matplotlib.pyplot as plt
import numpy as np

import kernelfield as kf
from kernelfield import plotting
from kernelfield.datasets import digits

# %%
# The limit, and networks of three widths trained by automatic differentiation, eight of
# each.

problem = digits(classes=(3, 8), points=8, seed=0)
network = kf.MLP(depth=2, activation="tanh", gamma0=1.0)
training = kf.GradientDescent(learning_rate=0.3, steps=40)


def solved(method):
    return kf.solve(network, problem, training, method, progress=False)


infinite = solved(kf.March(particles=2048, kernels="features"))
widths = (32, 128, 512)
networks = [
    solved(kf.FiniteWidth(width=width, seeds=8, kernels="features")) for width in widths
]

# %%
# Every network is off by its own draw of the initial weights, O(N^-1/2). The mean over R
# networks has R^-1/2 of that left, and what all networks of this width have in common,
# O(1/N). Here are both, for the predictions at all steps.


def distance(predictions):
    """Root mean square distance from infinite width, in units of the predictions."""
    off = predictions - infinite.predictions
    return np.sqrt(np.mean(off**2, axis=(-2, -1)) / np.mean(infinite.predictions**2))


each = [distance(solution.replicate_predictions) for solution in networks]
single = np.stack(each, axis=1)  # (seeds, widths)
ensemble = np.array([[distance(solution.predictions) for solution in networks]])
own_error = np.linalg.norm(infinite.predictions_se) / np.linalg.norm(infinite.predictions)

# %%
# A line of slope -1/2 through the widths answers the question of the title, and says which
# width would do.

constant = np.exp(np.mean(np.log(single.mean(axis=0) * np.sqrt(widths))))
for width, off in zip(widths, single.mean(axis=0), strict=True):
    print(f"one network of width {width:4d}: {100 * off:.1f} % off")
print(f"one network would be 1 % off at a width of about {(constant / 0.01) ** 2:.0f}")

# %%
# `compare` does the same for predictions and kernels of two solutions, with error bars:
# here eight networks of the largest width, as a mean, against infinite width. An error no
# larger than ``noise`` is no sign of a difference.

comparison = kf.compare(networks[-1], infinite)
for row in comparison.rows:
    if row.times == "all":
        off, noise = 100 * row.error, 100 * row.noise
        print(f"{row.name:>12}: {off:.2f} % off, noise {noise:.2f} %")

# %%
# The grey band is the standard error of the infinite-width solution itself: more
# ``particles`` lower it.

figure, axes = plt.subplots(figsize=(7, 4.6), layout="constrained")
plotting.distance_against_width(
    axes, widths, kf.Estimate(single), plotting.RICH, "o", "one network"
)
plotting.distance_against_width(
    axes, widths, kf.Estimate(ensemble), plotting.LAZY, "s", "mean of eight", style=":"
)
plotting.width_guide(axes, widths, 1.5 * single.mean(axis=0)[0], -0.5, r"$N^{-1/2}$")
plotting.floor(axes, own_error, "standard error at infinite width")
axes.set(
    ylabel="distance of predictions from infinite width",
    title="tanh, two hidden layers, digits 3 and 8",
)
axes.legend(frameon=False)
axes.spines[["top", "right"]].set_visible(False)
plt.show()
