"""
A transformer in PyTorch
========================

A block of attention and its multilayer perceptron, on token ids. As the width grows the
dimension of a head stays, and the number of heads grows.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

import kernelfield as kf
from kernelfield.torch import Recorder, read

# %%
# Which sequences begin and end alike?

ids = torch.tensor([[0, 1, 0], [1, 2, 1], [0, 2, 1], [2, 1, 0]])
y, steps, width = torch.tensor([1.0, 1.0, -1.0, -1.0]), 15, 128


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(3, width)
        self.position = nn.Parameter(torch.randn(3, width))
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(
            width, width // 4, bias=False, batch_first=True
        )
        self.hidden, self.last = (
            nn.Linear(width, width, bias=False),
            nn.Linear(width, 1, bias=False),
        )

    def forward(self, ids):
        h = self.embed(ids) + self.position
        z = self.norm(h)
        h = h + self.attention(z, z, z, need_weights=False)[0]
        h = h + self.hidden(torch.nn.functional.gelu(h))
        return self.last(h.mean(dim=1)) * width**-0.5


# %%
# Rates of Adam in muP: what grows with the width on its input side has 1 / N.

torch.manual_seed(0)
model = Transformer()
large = [
    w
    for name, w in model.named_parameters()
    if w.shape[-1] == width and w.ndim == 2 and len(w) >= width
]
small = [w for w in model.parameters() if all(w is not other for other in large)]
optimizer = torch.optim.Adam(
    [{"params": large, "lr": 0.3 / width}, {"params": small, "lr": 0.02}]
)
run = read(model, optimizer, ids, y, "mse", steps=steps).run
recorder, f0 = Recorder(model, ids), model(ids).detach()
for step in range(steps + 1):
    recorder.record(step)
    optimizer.zero_grad()
    (((model(ids) - f0).squeeze(-1) - y) ** 2 / 2).mean().backward()
    optimizer.step()

# %%
# Its limit.

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
