"""
A transformer in PyTorch
========================

Which sequences of tokens begin and end alike? As a transformer grows wider, its heads keep
their dimension, here 4, and grow in number.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import kernelfield as kf
from kernelfield.torch import Recorder, describe

ids = torch.tensor([[0, 1, 0], [1, 2, 1], [0, 2, 1], [2, 1, 0]])
y, steps, N = torch.tensor([1.0, 1.0, -1.0, -1.0]), 15, 128


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(3, N)
        self.attention = nn.MultiheadAttention(N, N // 4, bias=False, batch_first=True)
        self.hidden, self.last = nn.Linear(N, N, bias=False), nn.Linear(N, 1, bias=False)
        nn.init.normal_(self.last.weight, std=1 / N)

    def forward(self, ids):
        h = self.embed(ids)
        h = h + self.attention(h, h, h, need_weights=False)[0]
        return self.last(torch.relu(self.hidden(h))[:, -1])


# %%
# Adam in muP: the rate of matrices that sum over the width is 1 / N of that of the others.

torch.manual_seed(0)
model = Transformer()
matrices = *model.attention.parameters(), model.hidden.weight, model.last.weight
groups = [{"params": matrices, "lr": 0.3 / N}, {"params": model.embed.parameters()}]
optimizer, loss = torch.optim.Adam(groups, lr=0.02), nn.MSELoss()
run = describe(model, optimizer, ids, y, loss, steps=steps)

recorder, f0 = Recorder(model, ids), model(ids).detach()
for step in range(steps + 1):
    recorder.record(step)
    optimizer.zero_grad()
    loss((model(ids) - f0).squeeze(-1), y).backward()
    optimizer.step()

# %%
# Predictions for every sequence: infinite width (lines), and this network (dots).

infinite = kf.solve(run.network, run.problem, run.training, kf.March(particles=512))
own = recorder.solution(run)
print(kf.width_report(own, infinite, corrections=False))
plt.plot(infinite.predictions, "k", own.predictions, "r.")
plt.gca().set(xlabel="step", ylabel="predictions")
plt.show()
