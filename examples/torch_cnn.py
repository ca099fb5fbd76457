"""
A convolutional network in PyTorch
==================================

Images have their channels first, as in PyTorch. muP is written by hand: the readout has a
multiplier, and every tensor its learning rate.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import kernelfield as kf
from kernelfield.datasets import digits
from kernelfield.torch import Recorder, read

# %%
# Images of 4 x 4 pixels, and two convolutions.

data = digits(classes=(3, 8), points=8, images=True, pool=2)
X = torch.tensor(data.X, dtype=torch.float32).movedim(-1, 1)  # (P, 1, 4, 4)
y, steps, width = torch.tensor(data.y, dtype=torch.float32), 15, 128


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.last = nn.Linear(width, 1, bias=False)
        for tensor in self.parameters():
            nn.init.normal_(tensor, std=tensor[0].numel() ** -0.5)

    def forward(self, x):
        h = torch.tanh(self.second(torch.tanh(self.first(x))))
        return self.last(h.mean(dim=(2, 3))) * width**-0.5


# %%
# Learning rates of table 3 of muP: N / fan_in, N / fan_in and 1, here times 0.5.

torch.manual_seed(0)
model = Network()
rates = 0.5 * width / 9, 0.5 / 9, 0.5
groups = [{"params": [w], "lr": r} for w, r in zip(model.parameters(), rates, strict=True)]
optimizer = torch.optim.SGD(groups)
run = read(model, optimizer, X, y, "mse", steps=steps).run
recorder, f0 = Recorder(model, X), model(X).detach()
for step in range(steps + 1):
    recorder.record(step)
    optimizer.zero_grad()
    (((model(X) - f0).squeeze(-1) - y) ** 2 / 2).mean().backward()
    optimizer.step()

# %%
# One network beside its limit.

own = recorder.solution(run)
infinite = kf.solve(
    run.network, run.problem, run.training, kf.March(particles=1024, kernels="features")
)
print(kf.width_report(own, infinite, corrections=False))
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.plot(infinite.predictions, color="black")
axes.plot(own.predictions, ".", color="tab:red")
axes.set(
    xlabel="step", ylabel="predictions", title=f"lines: infinite width, dots: width {width}"
)
plt.show()
