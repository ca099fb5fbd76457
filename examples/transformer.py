"""
A transformer that looks up a token
===================================

A sequence holds two letters and a question: which letter comes first, or which is second?
A transformer of one block learns to look at the right place. Solved at infinite width,
where it has infinitely many heads, beside networks of finite width.
"""

import itertools

import matplotlib.pyplot as plt
import numpy as np

import kernelfield as kf
from kernelfield import plotting

# %%
# Token ids 0 and 1 are the letters, ids 2 and 3 the questions. The answer is +1 for one
# letter and -1 for the other. ``readout="last"`` reads it off the last position, which has
# to fetch the letter from one of the others.

ids = np.array(list(itertools.product((0, 1), (0, 1), (2, 3))))
answers = np.where(ids[:, 2] == 2, ids[:, 0], ids[:, 1])
problem = kf.Problem(ids, 2 * answers - 1, vocabulary=4)
network = kf.Transformer(depth=1, head_dim=1, readout="last", gamma0=1.0)
training = kf.GradientDescent(learning_rate=0.1, steps=30)


def solved(method):
    return kf.solve(network, problem, training, method, save_at=[0, -1], progress=False)


infinite = solved(kf.March(particles=512, kernels="features"))
networks = solved(kf.FiniteWidth(width=128, seeds=8, kernels="none"))
off = kf.compare(networks, infinite).row("predictions")
print(f"N = 128: {100 * off.error:.1f} % off, sampling noise {100 * off.noise:.1f} %")

# %%
# Left: the loss. Right: the feature kernel that enters the readout, before training and
# after it. Sequences are in the order of their answers: at the end, only those matter.

figure = plt.figure(figsize=(9.5, 4), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[1, 1.25])
curves, panels = left.subplots(), right.subplots(1, 2)
plotting.loss_curve(curves, infinite, plotting.RICH, "infinite width")
plotting.loss_dots(curves, networks, plotting.LAZY, "8 networks, N = 128")
curves.legend(frameon=False)
last = network.hidden_layers
kernels = [infinite.feature_kernel(last, t) for t in (0, -1)]
limit = max(abs(kernel).max() for kernel in kernels)
for axes, kernel, title in zip(panels, kernels, ("before", "after"), strict=True):
    image = plotting.kernel_matrix_by_target(axes, kernel, limit, title, problem)
plotting.class_labels(panels[0], ["+1", "\N{MINUS SIGN}1"], groups=(4, 4))
right.colorbar(image, ax=panels, label=f"feature kernel $\\Phi^{last}$", shrink=0.75)
plt.show()
