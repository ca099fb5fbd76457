"""
A convolutional network in PyTorch
==================================

muP needs no package: it is a scale and a learning rate for every tensor. Here they are
written by hand for convolutions, on images that have their channels first.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import kernelfield as kf
from kernelfield.datasets import digits
from kernelfield.torch import Recorder, describe

# %%
# Images of 4 x 4 pixels, and two convolutions.

data, steps, width = digits(classes=(3, 8), points=8, images=True, pool=2), 15, 128
X = torch.tensor(data.X).float().movedim(-1, 1)  # (P, 1, 4, 4)
y = torch.tensor(data.y).float()

torch.manual_seed(0)
first = nn.Conv2d(1, width, 3, padding=1, bias=False)
second = nn.Conv2d(width, width, 3, padding=1, bias=False)
last = nn.Linear(width, 1, bias=False)
pool = nn.AdaptiveAvgPool2d(1), nn.Flatten()
model = nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), *pool, last)

# %%
# Table 3 of muP. A window of 3 x 3 sums 9 numbers of an image, and 9 N of a hidden layer.

for layer, std in (first, 9**-0.5), (second, (9 * width) ** -0.5), (last, 1 / width):
    nn.init.normal_(layer.weight, std=std)
rates = (first, width / 9), (second, 1 / 9), (last, 1 / width)
groups = [{"params": layer.parameters(), "lr": 0.25 * rate} for layer, rate in rates]
optimizer, loss = torch.optim.SGD(groups), nn.MSELoss()
run = describe(model, optimizer, X, y, loss, steps=steps)

recorder, f0 = Recorder(model, X), model(X).detach()
for step in range(steps + 1):
    recorder.record(step)
    optimizer.zero_grad()
    loss((model(X) - f0).squeeze(-1), y).backward()
    optimizer.step()

# %%
# Predictions for every image: infinite width (lines), and this network (dots).

report = kf.width_report(recorder.solution(run), corrections=False)
print(report)
plt.plot(report.infinite.predictions, "k", report.own.predictions, "r.")
plt.gca().set(xlabel="step", ylabel="predictions")
plt.show()
