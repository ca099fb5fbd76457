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

data, steps = digits(classes=(0, 1), points=12), 25
X, y = torch.tensor(data.X).float(), torch.tensor(data.y).float()


def make(width):
    body = nn.Linear(64, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()
    return nn.Sequential(*body, MuReadout(width, 1, bias=False, output_mult=0.25))


torch.manual_seed(0)
model = set_base_shapes(make(256), make(16), delta=make(32))
optimizer, loss = MuSGD(model.parameters(), lr=0.2), nn.MSELoss()

# %%
# `read` finds gamma0, the scales and the rates of the limit, and says what the limit leaves
# out. Call it before training: it measures the weights as they are.

found = read(model, optimizer, X, y, loss, steps=steps)
print(found)

# %%
# Your own loop, and `Recorder` watches. It trains output minus output at initialization.

recorder, f0 = Recorder(model, X), model(X).detach()
for step in range(steps + 1):
    recorder.record(step)
    optimizer.zero_grad()
    loss((model(X) - f0).squeeze(-1), y).backward()
    optimizer.step()

# %%
# How far is this network (dots) from its limit (line)? `report.write` makes a page of it.

report = kf.width_report(recorder.solution(found.run), corrections=False)
print(report)
plt.semilogy(report.infinite.loss, "k", report.own.loss, "r.")
plt.gca().set(xlabel="step", ylabel="loss")
plt.show()
