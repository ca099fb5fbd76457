"""
Save, load, and take the arrays elsewhere
=========================================

A solution is one NetCDF file: arrays with named dimensions, settings, status and versions.
`load` restores it bit for bit, and xarray opens it without kernelfield.
"""

import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray

import kernelfield as kf
from kernelfield import plotting
from kernelfield.datasets import gaussian

problem = gaussian(points=4, dimensions=8, seed=1)
network = kf.MLP(depth=2, activation="erf", gamma0=1.5)
training = kf.GradientDescent(learning_rate=0.2, steps=40)
solution = kf.solve(network, problem, training, kf.March(particles=512), progress=False)

# %%
# Write it and read it back. The file appears whole or not at all.

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "run.nc"
solution.save(path)
again = kf.load(path)
print(
    "the same bits:",
    np.array_equal(again.replicate_predictions, solution.replicate_predictions),
)
print("settings:", again.network)
print("status:", again.status)

# %%
# The same file in xarray. Kernels are stored as factors: Phi[t, mu; s, nu] is the sum over
# ``feature_rank`` of F[t, mu] F[s, nu].

data = xarray.load_dataset(path, engine="h5netcdf")
print(data[["predictions", "Phi_factor_2", "G_factor_1"]])
print("versions:", data.attrs["kernelfield_version"], "with jax", data.attrs["jax_version"])
print("network:", json.loads(data.attrs["settings"])["network"])

# %%
# Multiply the factors at the last step, average over replicates, and it is the kernel of
# `Solution.feature_kernel`.

F = data["Phi_factor_2"].isel(time=-1)
kernel = xarray.dot(F, F.rename(sample="sample_prime"), dim="feature_rank_2").mean(
    "replicate"
)
print(
    "largest difference:", float(abs(kernel - solution.feature_kernel(layer=2, t=-1)).max())
)

# %%
# Named dimensions make tables and pictures short: every output over training, with the
# interval of its mean.

mean = data["predictions"].mean("replicate")
figure, (left, right) = plt.subplots(
    1, 2, figsize=(9, 4.4), width_ratios=[1.4, 1], layout="constrained"
)
for sample, colour in zip(data["sample"].values, plotting.SERIES, strict=False):
    low, high = (bound[:, sample] for bound in again.estimate("predictions").interval())
    left.plot(
        data["step"], mean.isel(sample=sample), color=colour, lw=2, label=f"point {sample}"
    )
    left.fill_between(data["step"], low, high, color=colour, alpha=0.25, lw=0)
    left.axhline(float(data["y"][sample]), color=colour, ls=":", lw=1)
left.set(
    xlabel="gradient-descent step",
    ylabel="network output f",
    title="outputs on their way to the targets",
)
left.legend(frameon=False, loc="center right")
left.spines[["top", "right"]].set_visible(False)
limit = float(abs(kernel).max())
image = plotting.kernel_matrix(
    right, kernel.values, limit, "final $\\Phi^2$, from the file", groups=(4,)
)
figure.colorbar(image, ax=right, shrink=0.8)
plt.show()
folder.cleanup()
