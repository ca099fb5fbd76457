"""
Where does each approximation hold?
===================================

The static tangent kernel, leading order in ``gamma0`` and gradient independence are cheaper
stories about the same network. A sweep over ``gamma0`` shows how far each of them can be
trusted on a given problem.
"""

import matplotlib.pyplot as plt

import kernelfield as kf
from kernelfield import plotting
from kernelfield.datasets import gaussian

# %%
# `sweep_gamma` yields a point for every ``gamma0`` as soon as it is solved, with all
# methods compared with the reference. The full theory is the reference.

problem = gaussian(points=3, dimensions=6, seed=0)
network = kf.MLP(depth=2, activation="tanh")
training = kf.GradientDescent(learning_rate=0.2, steps=20)
settings = {"particles": 512, "replicates": 4}
methods = {
    "full theory": kf.March(**settings),
    "gradient independence": kf.GradientIndependence(**settings),
    "leading order": kf.Perturbation(**settings),
    "static NTK": kf.StaticNTK(),
}
gammas = (0.1, 0.4, 1.5)
sweep = kf.sweep_gamma(network, problem, training, methods, gammas, ["full theory"])
points = list(sweep)

# %%
# The comparisons hold predictions and every kernel. A table of the tangent kernel, over all
# of training:

names = [name for name in methods if name != "full theory"]


def rows(name, quantity):
    return [point.comparisons["full theory", name].row(quantity) for point in points]


print("gamma0".rjust(24), *(f"{gamma0:>12g}" for gamma0 in gammas))
for name in names:
    found = [(100 * row.error, 100 * row.error_se) for row in rows(name, "NTK")]
    print(name.rjust(24), *(f"{error:5.1f} ± {se:3.1f} %" for error, se in found))

# %%
# The dashed line is the error to expect from sampling alone, if the two truly agree: below
# it nothing can be said, except with more particles.

figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.6), sharex=True, layout="constrained")
titles = {"predictions": "predictions", "NTK": "tangent kernel"}
for place, (quantity, title) in zip(axes, titles.items(), strict=True):
    for name, colour in zip(names, plotting.SERIES, strict=False):
        found = rows(name, quantity)
        errors, bars = (
            [getattr(row, key) for row in found] for key in ("error", "error_se")
        )
        style = {"color": colour, "marker": "o", "mfc": "white", "lw": 2, "capsize": 2.5}
        place.errorbar(gammas, errors, bars, label=name, **style)
    noise = [row.noise for row in rows("gradient independence", quantity)]
    plotting.guide(place, gammas, noise, "sampling noise")
    place.set(
        xscale="log", yscale="log", xlabel="feature learning $\\gamma_0$", title=title
    )
    place.set_xticks(gammas, [f"{gamma0:g}" for gamma0 in gammas])
    place.set_xticks([], minor=True)
    place.spines[["top", "right"]].set_visible(False)
    place.grid(alpha=0.25, lw=0.6)
axes[0].set_ylabel("relative error, all of training")
axes[1].legend(frameon=False)
plt.show()
