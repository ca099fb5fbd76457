"""Networks in PyTorch at growing widths, and how far they are from the limits that `describe` finds for them.

    python benchmarks/own_networks.py
    python benchmarks/own_networks.py --kinds mlp cnn --widths 128 512 --seeds 8 4

muP is written by hand for them: table 3 of arXiv:2203.03466. Distances are relative, in percent, after 6 steps, and
means over seeds: of predictions f, and of the feature kernel of the last hidden layer. They should fall as N^-0.5. In
brackets stand standard errors; that of the limit itself is the last column.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

import kernelfield as kf
from kernelfield.describe.run import Run
from kernelfield.recording import Recording
from kernelfield.torch import Recorder, read

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
        h = h + self.hidden(nn.functional.gelu(h))
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


# --- their distance from the limit

STEPS = 6


def choose_rate(name: str, adam: bool) -> float:
    """Returns the learning rate eta at which a network learns in 6 steps."""
    return 0.05 if adam or name == "transformer" else 0.3


def solve_limit(name: str, adam: bool, width: int = 128, **settings: Any) -> tuple[Run, kf.Solution]:
    """Returns the run that is read from one network of a width, and its solution at infinite width."""
    model, optimizer = make_network(name, width, 0, adam, choose_rate(name, adam))
    run = read(model, optimizer, BODIES[name][1], Y, steps=STEPS).run
    method = kf.March(kernels="features", **settings)
    return run, kf.solve(run.network, run.problem, run.training, method, progress=False)


def measure(name: str, adam: bool, width: int, seeds: int, run: Run, infinite: kf.Solution) -> dict[str, kf.Estimate]:
    """Returns the distance of every network of a width at the end: in f, and in the feature kernel of every layer."""
    recordings = []  # without their networks
    for seed in range(seeds):
        model, optimizer = make_network(name, width, seed, adam, choose_rate(name, adam))
        recorder = Recorder(model, BODIES[name][1])
        train(model, optimizer, BODIES[name][1], STEPS, recorder)
        recordings.append(recorder.recording)
    own = Recording.join(recordings, run)
    report = kf.width_report(own, infinite, corrections=False, progress=False)
    found = {"f": report.distance} | {f"Phi{layer}": each for layer, each in report.kernel_distances.items()}
    return {key: kf.Estimate(each.replicates[:, -1]) for key, each in found.items()}


def fit_power(widths: Sequence[int], distances: Sequence[kf.Estimate]) -> tuple[float, float]:
    """Returns the power of N with which distances change, and its standard error."""
    x = np.log(widths) - np.mean(np.log(widths))
    means = np.array([float(each.mean) for each in distances])
    errors = np.array([float(each.se) for each in distances])
    weights = x / np.sum(x**2)
    return float(weights @ np.log(means)), float(np.linalg.norm(weights * errors / means))


def estimate_noise(infinite: kf.Solution, key: str) -> float:
    """Returns the standard error of the limit at the end, relative: of f, or of the feature kernel of a layer."""
    if key == "f":
        estimate = kf.Estimate(infinite.replicate_predictions[:, -1])
    else:
        estimate = infinite.kernel_estimate("Phi", int(key.removeprefix("Phi")), STEPS)
    return float(np.linalg.norm(estimate.se) / np.linalg.norm(estimate.mean))


def tabulate(name: str, adam: bool, widths: Sequence[int], seeds: Sequence[int], **settings: Any) -> list[str]:
    """Returns the rows of the table of one network and one optimizer: f, and the last feature kernel."""
    run, infinite = solve_limit(name, adam, **settings)
    found = [measure(name, adam, width, count, run, infinite) for width, count in zip(widths, seeds, strict=True)]
    rows = []
    for key in ("f", f"Phi{run.network.hidden_layers}"):
        distances = [each[key] for each in found]
        power, error = fit_power(widths, distances)
        cells = [f"{100 * float(each.mean):.1f} ({100 * float(each.se):.1f})" for each in distances]
        limit = f"({100 * estimate_noise(infinite, key):.1f})"
        cells = [name, "Adam" if adam else "SGD", key, *cells, f"{power:.2f} ({error:.2f})", limit]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=BODIES, default=list(BODIES))
    parser.add_argument("--optimizers", nargs="+", choices=("SGD", "Adam"), default=["SGD", "Adam"])
    parser.add_argument("--widths", nargs="+", type=int, default=[128, 512, 2048])
    parser.add_argument("--seeds", nargs="+", type=int, default=[24, 12, 6], help="networks of each width")
    parser.add_argument("--particles", type=int, default=2048)
    parser.add_argument("--replicates", type=int, default=4)
    given = parser.parse_args()
    widths = [f"N = {width}" for width in given.widths]
    headings = ["network", "optimizer", "of", *widths, "power of N", "limit"]
    print(f"| {' | '.join(headings)} |\n|{'---|' * len(headings)}", flush=True)
    settings = {"particles": given.particles, "replicates": given.replicates, "skeleton": "all"}
    for name in given.kinds:
        for optimizer in given.optimizers:
            for row in tabulate(name, optimizer == "Adam", given.widths, given.seeds, **settings):
                print(row, flush=True)


if __name__ == "__main__":
    main()
