"""
A convolutional network learns features
=======================================

Images keep their rows and columns, and the filters of a convolution are shared by all
places. At infinite width this is one infinite matrix for every place of the filter; the
network learns features all the same, and leaves its static tangent kernel behind.
"""

import matplotlib.pyplot as plt

import kernelfield as kf
from kernelfield import plotting
from kernelfield.datasets import digits

# %%
# Sites cost: every point is as many rows as it has sites. So pool images first, here to
# 4 x 4. Below are two convolutions of 3 x 3, with 2 x 2 pooling between them, and weights
# of the readout for every site that is left.

problem = digits(classes=(3, 8), points=6, seed=0, images=True, pool=2)
network = kf.CNN(depth=2, activation="tanh", gamma0=2.0, pool=2, readout="flatten")
training = kf.GradientDescent(learning_rate=3.0, steps=20)


def solved(method):
    return kf.solve(network, problem, training, method, progress=False)


march = kf.March(particles=1024, replicates=2, kernels="features")
infinite = solved(march)
finite = solved(kf.FiniteWidth(width=128, seeds=8, kernels="features"))
static = solved(kf.StaticNTK())

off = kf.compare(finite, infinite).row("predictions")
print(f"N = 128: {100 * off.error:.1f} % off, sampling noise {100 * off.noise:.1f} %")

# %%
# With sites, a feature kernel is the mean over them. The network starts almost blind to the
# classes, and ends with two blocks.

figure, axes = plt.subplots(
    1, 3, figsize=(12, 4), width_ratios=[1.7, 1, 1], layout="constrained"
)
plotting.loss_curve(axes[0], infinite, plotting.RICH, "infinite width")
plotting.loss_curve(axes[0], static, plotting.NEUTRAL, "static tangent kernel")
plotting.loss_dots(axes[0], finite, plotting.LAZY, "eight networks, N = 128")
axes[0].legend(frameon=False, loc="lower left")
axes[0].spines[["top", "right"]].set_visible(False)
kernels = [infinite.feature_kernel(layer=2, t=t) for t in (0, -1)]
for place, kernel, when in zip(axes[1:], kernels, ("before", "after"), strict=True):
    limit = abs(kernel).max()
    image = plotting.kernel_matrix(
        place, kernel, limit, f"$\\Phi^2$ {when} training", groups=(3, 3)
    )
    figure.colorbar(image, ax=place, shrink=0.8)
plotting.class_labels(axes[1], ['"3"', '"8"'], groups=(3, 3))
plt.show()
