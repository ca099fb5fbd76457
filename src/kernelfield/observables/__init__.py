"""What a Solution says about learning: losses, alignments, spectra, distributions, each with its error bar.

Every function measures each replicate (an independent scramble, or a network's seed) and returns an `Estimate`:
its `mean`, standard error `se`, and `interval(0.95)` are over replicates, and zero where a solution is exact.

Kernels are named as in the theory: "Phi" with a layer 0..L, "G" with a layer 1..L+1, and "NTK" without. Times `t` are
a step, or several (slice, list), by default all whose kernels were kept (`save_at` of `kernelfield.solve`); several
times make the first axis of the result. Points are "train" (those with a weight in the loss; the default), "test"
(those of weight zero, see `kernelfield.Problem`) or "all".
"""

from kernelfield.observables.averages import time_average
from kernelfield.observables.distributions import Density, Field, activation_density, excess_kurtosis, field_samples
from kernelfield.observables.groups import Points
from kernelfield.observables.inputs import gradient_outer_product, input_shares
from kernelfield.observables.kernels import (
    centred_alignment,
    cosine_alignment,
    effective_rank,
    gradient_alignment,
    kernel_alignment,
    kernel_movement,
    ntk_spectrum,
    two_time_kernel,
)
from kernelfield.observables.losses import SilentAlignment, accuracy, loss, silent_alignment
from kernelfield.solution.kernel import Symbol

__all__ = [
    "Density",
    "Field",
    "Points",
    "SilentAlignment",
    "Symbol",
    "accuracy",
    "activation_density",
    "centred_alignment",
    "cosine_alignment",
    "effective_rank",
    "excess_kurtosis",
    "field_samples",
    "gradient_alignment",
    "gradient_outer_product",
    "input_shares",
    "kernel_alignment",
    "kernel_movement",
    "loss",
    "ntk_spectrum",
    "silent_alignment",
    "time_average",
    "two_time_kernel",
]
