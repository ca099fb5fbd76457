"""
A network in PyTorch and its limit
==================================

The package `mup` keeps hyperparameters good as a network grows wider. What does the network
converge to as it does, and how far from that is the width that you train?
"""

import matplotlib.pyplot as plt
import torch
from mup import MuReadout, MuSGD, set_base_shapes
from torch import nn

import kernelfield as kf
from kernelfield.datasets import digits
from kernelfield.torch import Recorder, read

# %%
# Two classes of digits, a network as people write it, and the optimizer of `mup`.

data = digits(classes=(0, 1), points=12)
X, y = (torch.tensor(values, dtype=torch.float32) for values in (data.X, data.y))
steps, width, seeds = 25, 256, 3


def make(width):
    last = MuReadout(width, 1, bias=False, output_mult=0.25)
    hidden = nn.Linear(width, width)
    return nn.Sequential(nn.Linear(64, width), nn.Tanh(), hidden, nn.Tanh(), last)


# %%
# `read` finds gamma0, the scales and the rates of its limit; `Recorder` watches the loop,
# which trains output minus output at initialization, as the theory does.

recorders = []
for seed in range(seeds):
    torch.manual_seed(seed)
    model = set_base_shapes(make(width), make(16), delta=make(32))
    optimizer, loss, f0 = MuSGD(model.parameters(), lr=0.2), nn.MSELoss(), model(X).detach()
    if seed == 0:
        found = read(model, optimizer, X, y, loss, steps=steps)
        print(found)
    recorder = Recorder(model, X)
    for step in range(steps):
        recorder.record(step)
        optimizer.zero_grad()
        loss((model(X) - f0).squeeze(-1), y).backward()
        optimizer.step()
    recorder.record(steps)
    recorders.append(recorder)

# %%
# The limit, and how far this width is from it. `report.write("report.html")` makes a page.

own = Recorder.join(recorders, found.run)
method = kf.March(particles=2048, kernels="features")
infinite = kf.solve(found.run.network, found.run.problem, found.run.training, method)
report = kf.width_report(own, infinite, corrections=False)
print(report)

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.semilogy(infinite.loss, color="black", label="infinite width")
axes.semilogy(own.estimate("loss").replicates.T, ".", color="tab:red")
axes.semilogy([], [], ".", color="tab:red", label=f"networks of width {width}")
axes.set(xlabel="step", ylabel="loss")
axes.legend(frameon=False)
plt.show()
