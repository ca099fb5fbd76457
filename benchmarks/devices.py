"""Several devices: scaling on virtual devices of the CPU, the traffic of a step, and the times of many GPUs on paper.

    python benchmarks/devices.py
    python benchmarks/devices.py --quick                                    # one and two devices, CIFAR-10 alone
    python benchmarks/devices.py --rate 50 --bandwidth 450 --latency 20     # what is assumed of GPUs

Virtual devices share the cores of the machine, so their seconds show what splitting costs, and no gain: `on one` has
the same particles on one device. Strong scaling keeps the number of particles, weak scaling that of each device. Sums
are the all-reduces of a step in the compiled program, with the bytes that they add up, and `others` are all other
collectives. A step that looks for new leading directions has more: `in a search` counts those of one turn of every
search together. `distance` is that of the predictions of all steps from those of one device, relative to their norm.

On paper, a step on n GPUs takes the time of its products, 1/n of those of one GPU, and that of its sums: the latency of
each, and 2 (n - 1) / n times their bytes over the bandwidth. Products are counted by `kernelfield.march.cost`, and sums
in a program for batches of 128 on two devices. Three hidden layers of tanh; a CNN pools twice. Searches, elementwise
functions and random access are left out, and a GPU is as fast with few particles as with many.
"""

from __future__ import annotations

import argparse
import math
import re
import time
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

import kernelfield as kf
from kernelfield.describe.run import Run
from kernelfield.march.cost import count
from kernelfield.march.devices import AXIS, Placement
from kernelfield.march.layout import Layout
from kernelfield.march.programs import advance, descend
from kernelfield.march.replicate import KEPT, Replicate

POINTS, WARM, STEPS = 100, 5, 25
BATCH, PIXELS, GPUS = 128, (32, 32, 3), (8, 64)
DATA = {"CIFAR-10": (50_000, 10), "ImageNet-32": (1_281_167, 1000)}  # points and classes
NETWORKS = {"MLP": kf.MLP(depth=3, activation="tanh"), "CNN": kf.CNN(depth=3, pool=2, activation="tanh")}
COLLECTIVE = re.compile(r" = (.*?) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(")


class Traffic(NamedTuple):
    """The collectives of a step, and those of one turn of every search for directions in it."""

    sums: int = 0
    size: int = 0  # bytes
    others: int = 0  # that are no sums
    searching: int = 0


def traffic(replicate: Replicate, function: Any) -> Traffic:
    """The traffic of a step in a compiled program, whose loop has the steps; loops and branches in it are searches."""
    program: Any = next(program for key, program in replicate.programs.items() if key[0] is function)
    found = Traffic()
    for line in program.as_text().splitlines():
        if not (collective := COLLECTIVE.search(line)):
            continue
        arrays = re.findall(r"[a-z](\d+)\[([\d,]*)\]", collective[1])
        size = sum(int(bits) // 8 * math.prod(map(int, filter(None, shape.split(",")))) for bits, shape in arrays)
        if re.search(r'op_name="[^"]*?/while/body/[^"]*\b(while|cond)\b', line):
            found = found._replace(searching=found.searching + 1)
        else:
            found = found._replace(sums=found.sums + 1, size=found.size + size)
        found = found._replace(others=found.others + (collective[2] != "all-reduce"))
    return found


def split(layout: Layout, devices: int) -> Replicate:
    """A replicate on the first of the devices."""
    return Replicate(layout, 0, Placement(Mesh(np.array(jax.devices()[:devices]), (AXIS,)), layout.particles))


def solved(devices: int, particles: int) -> tuple[float, np.ndarray, Traffic]:
    """Milliseconds of a step, predictions (steps, P, 1) and traffic."""
    X = np.random.default_rng(0).standard_normal((POINTS, 30))
    problem, training = kf.Problem(X, np.sign(X[:, 0] * X[:, 1])), kf.GradientDescent(learning_rate=0.2, steps=STEPS)
    method = kf.March(particles=particles, replicates=1, kernels="none")
    replicate = split(Layout(Run(kf.MLP(depth=2, activation="tanh"), problem, training, method)), devices)
    replicate.march(WARM)  # it compiles
    began = time.perf_counter()
    replicate.march(STEPS + 1)
    spent = 1e3 * (time.perf_counter() - began) / (STEPS + 1 - WARM)
    return spent, np.concatenate(replicate.outputs), traffic(replicate, advance)


def on_paper(data: str, network: str, particles: int) -> tuple[float, float, Traffic]:
    """Operations of a step and of passing all points, and the traffic of a step."""
    points, classes = DATA[data]
    X = np.random.default_rng(0).standard_normal((2 * BATCH, *(PIXELS if network == "CNN" else [math.prod(PIXELS)])))
    problem = kf.Problem(X, np.eye(classes)[np.arange(len(X)) % classes])
    training = kf.SGD(learning_rate=0.1, batch_size=BATCH, epochs=1)
    layout = Layout(Run(NETWORKS[network], problem, training, kf.March(particles=128, replicates=1, kernels="none")))
    layout.axes, layout.data, layout.outside = np.eye(X.shape[-1]), X / math.sqrt(X.shape[-1]), 0  # as many points span
    replicate = split(layout, 2)
    replicate.march(0)  # it passes the first batch, and learns nothing
    work = count(layout)
    again = work.passed if points * layout.sites * particles * 4 > KEPT else 0  # through the initial network
    step, whole = (2.0 * particles * each for each in (work.products + again, work.passed * points / BATCH))
    return step, whole, traffic(replicate, descend)


def main() -> None:
    """Print two markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--particles", type=int, default=16384, help="of a replicate on GPUs")
    parser.add_argument("--rate", type=float, default=50.0, help="TFLOP/s of a GPU")
    parser.add_argument("--bandwidth", type=float, default=450.0, help="GB/s of a GPU to the others")
    parser.add_argument("--latency", type=float, default=20.0, help="microseconds of a sum")
    given = parser.parse_args()
    counts, own = ((1, 2), 128) if given.quick else ((1, 2, 4, 8), 512)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", counts[-1])
    cases = [("strong", n, own * counts[-1]) for n in counts] + [("weak", n, own * n) for n in counts]
    runs = {key: solved(*key) for key in sorted({(m, S) for _, n, S in cases for m in (1, n)})}
    print(f"{counts[-1]} virtual devices, P = {POINTS}, tanh L = 2:\n")
    print("| scaling | devices | particles | ms a step | on one | sums | KB | others | in a search | distance |")
    print("|---" * 10 + "|")
    for scaling, n, S in cases:
        (spent, f, sent), (alone, one, _) = runs[n, S], runs[1, S]
        distance = np.linalg.norm(f - one) / np.linalg.norm(one)
        sums = f"{sent.sums} | {sent.size / 1e3:.0f} | {sent.others} | {sent.searching}"
        print(f"| {scaling} | {n} | {S} | {spent:.1f} | {alone:.1f} | {sums} | {distance:.0e} |", flush=True)
    print(
        f"\nOn paper, {given.particles} particles, GPUs of {given.rate:g} TFLOP/s and {given.bandwidth:g} GB/s, ",
        end="",
    )
    print(f"{given.latency:g} us a sum; every GPU has all inputs:\n")
    times = " | ".join(f"ms on {n} | efficiency % | epoch on {n}, s" for n in GPUS)
    print(f"| data | network | inputs GB | TFLOP a step | sums | MB | ms on 1 | {times} |\n" + "|---" * 13 + "|")
    for data, network in [(data, network) for data in list(DATA)[: 1 if given.quick else None] for network in NETWORKS]:
        step, whole, sent = on_paper(data, network, given.particles)
        points, rate = DATA[data][0], 1e12 * given.rate
        cells = [points * math.prod(PIXELS) * 4 / 1e9, step / 1e12, sent.sums, sent.size / 1e6, 1e3 * step / rate]
        for n in GPUS:
            sending = sent.sums * given.latency * 1e-6 + 2 * (n - 1) / n * sent.size / (1e9 * given.bandwidth)
            seconds = step / rate / n + sending
            epoch = math.ceil(points / BATCH) * seconds + whole / rate / n
            cells += [1e3 * seconds, 100 * step / rate / n / seconds, epoch]
        shown = " | ".join(f"{cell:.2g}" if cell < 10 else f"{cell:.0f}" for cell in cells)
        print(f"| {data} | {network} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
