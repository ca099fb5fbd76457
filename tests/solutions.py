"""Solutions that differ from others in one part."""

from dataclasses import replace

import numpy as np

import kernelfield as kf
from kernelfield.describe.run import Run
from kernelfield.solution.kernel import FactorKernel


def with_parts(solution, **parts):
    """The solution of a run with another network, problem, training or method."""
    return replace(solution, run=replace(solution.run, **parts))


def factors(solution, symbol):
    """Factors of a kernel of all layers."""
    return [solution.kernels[symbol, layer].factor for layer in solution.layers(symbol)]


def changed(solution, change, *symbols):
    """The solution with factors of some kernels, or of all, changed by a function."""
    return replace(
        solution,
        kernels={
            key: replace(kernel, factor=change(kernel.factor))
            if isinstance(kernel, FactorKernel) and (not symbols or key[0] in symbols)
            else kernel
            for key, kernel in solution.kernels.items()
        },
    )


def without(solution, *symbols):
    """The solution without some kernels."""
    return replace(solution, kernels={key: each for key, each in solution.kernels.items() if key[0] not in symbols})


def made(network, problem, training, method, predictions, features=(), gradients=(), **others):
    """A Solution with factors of Phi of layers 0..L, and of G of layers 1..L+1."""
    kernels = {
        ("Phi", layer): FactorKernel(np.array(each, float), exact=layer == 0) for layer, each in enumerate(features)
    }
    last = len(gradients)
    kernels |= {
        ("G", layer): FactorKernel(np.array(each, float), exact=layer == last)
        for layer, each in enumerate(gradients, start=1)
    }
    return kf.Solution(Run(network, problem, training, method), predictions, kernels, **others)


def changed_outputs(solution, outputs):
    """The solution whose gradient kernels have rows (sample, output)."""
    gradients = {key: replace(each, outputs=outputs) for key, each in solution.kernels.items() if key[0] == "G"}
    return replace(solution, kernels={**solution.kernels, **gradients})
