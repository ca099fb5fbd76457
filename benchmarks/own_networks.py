"""Networks in PyTorch, and muP written by hand for them: table 3 of arXiv:2203.03466."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional

GAMMA0, ETA = 1.0, 0.3  # of all networks here
RNG = np.random.default_rng(7)
VECTORS, IMAGES = RNG.standard_normal((4, 6)), RNG.standard_normal((4, 2, 4, 4))
SEQUENCES, TOKENS = RNG.standard_normal((4, 3, 6)), RNG.integers(0, 5, (4, 3))
Y = np.array([1.0, -1.0, 1.0, -1.0])


class Scaled(nn.Module):
    """The body of a network, its output times 1 / gamma0."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x) / GAMMA0


def mlp(N):
    return nn.Sequential(nn.Linear(6, N), nn.Tanh(), nn.Linear(N, N), nn.Tanh(), nn.Linear(N, 1, bias=False))


def cnn(N):
    return nn.Sequential(
        nn.Conv2d(2, N, 3, padding=1, bias=False),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(N, N, 3, padding=1),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(N, 1, bias=False),
    )


class Residual(nn.Module):
    def __init__(self, N):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, N, bias=False), nn.LayerNorm(N), nn.Linear(N, 1, bias=False)
        self.blocks = nn.ModuleList(nn.Linear(N, N, bias=False) for _ in range(2))

    def forward(self, x):
        h = self.first(x)
        for block in self.blocks:
            h = h + 0.5 * block(torch.tanh(h))
        return self.last(torch.tanh(self.norm(h)))


class Transformer(nn.Module):
    def __init__(self, N):
        super().__init__()
        self.embed, self.position = nn.Embedding(5, N), nn.Parameter(torch.zeros(3, N))
        self.norm, self.attention = nn.LayerNorm(N), nn.MultiheadAttention(N, N // 2, batch_first=True)
        self.hidden, self.last = nn.Linear(N, N), nn.Linear(N, 1, bias=False)

    def forward(self, ids):
        h = self.embed(ids) + self.position
        z = self.norm(h)
        h = h + self.attention(z, z, z, need_weights=False)[0]
        h = h + self.hidden(F.gelu(h))
        return self.last(h.mean(dim=1))


BODIES = {
    "mlp": (mlp, VECTORS),
    "cnn": (cnn, IMAGES),
    "residual": (Residual, VECTORS),
    "transformer": (Transformer, TOKENS),
}


def make_network(name, N, seed=0, adam=False, eta=ETA):
    """Returns a network with Gaussian weights in muP, and its optimizer.

    Tokens and positions are 5 and 3 inputs of size sqrt(8): by Adam their rate is that of 8 inputs over sqrt(8) / 8.
    """
    torch.manual_seed(1000 * N + seed)
    body = BODIES[name][0](N)
    model, groups = Scaled(body).double(), []
    sizes = {"SGD": eta * GAMMA0**2, "Adam": eta * GAMMA0}
    for tensor_name, tensor in model.named_parameters():
        is_embedding = "embed" in tensor_name or "position" in tensor_name
        is_vector, outputs = tensor.ndim == 1, len(tensor)
        inputs = 1 if is_vector or is_embedding else tensor[0].numel()
        is_output = outputs == 1
        if is_embedding:
            nn.init.normal_(tensor, std=math.sqrt(0.5))
        elif is_output:
            nn.init.normal_(tensor, std=1 / N)
        elif not is_vector:
            nn.init.normal_(tensor, std=1 / math.sqrt(inputs))
        elif "norm" not in tensor_name:
            nn.init.zeros_(tensor)
        if adam:
            rate = sizes["Adam"] / (N if is_output else math.sqrt(8) if is_embedding else inputs)
        else:
            rate = sizes["SGD"] * (1 / N if is_output else N / inputs)
        groups.append({"params": [tensor], "lr": rate})
    return model, torch.optim.Adam(groups, eps=1e-12) if adam else torch.optim.SGD(groups, lr=1.0)


def train(model, optimizer, X, steps, recorder=None, y=Y):
    """Trains on (f - f0 - y)^2 / 2, recorded at every step."""
    X, y = torch.as_tensor(X), torch.as_tensor(y)
    X = X if X.dtype == torch.int64 else X.double()
    f0 = model(X).detach()
    for step in range(steps):
        if recorder is not None:
            recorder.record(step)
        optimizer.zero_grad()
        (((model(X) - f0).squeeze(-1) - y) ** 2 / 2).mean().backward()
        optimizer.step()
    if recorder is not None:
        recorder.record(steps)
