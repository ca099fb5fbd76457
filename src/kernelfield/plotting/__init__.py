"""Drawing on axes that the caller made. Nothing is computed here.

>>> from matplotlib.figure import Figure
>>> import numpy as np, kernelfield as kf
>>> from kernelfield import observables, plotting
>>> problem, training = kf.Problem(np.eye(2), [1.0, -1.0]), kf.GradientDescent(learning_rate=0.2, steps=9)
>>> solution = kf.solve(kf.MLP(depth=1, activation="linear"), problem, training)
>>> loss, alignment = Figure().subplots(1, 2)
>>> plotting.loss_curve(loss, solution, plotting.RICH, "infinite width")
>>> plotting.curve(alignment, np.arange(10), observables.kernel_alignment(solution, "Phi", 1), plotting.RICH)
"""

from kernelfield.plotting.curves import curve, dots, guide, line_and_dots, loss_curve, loss_dots, spectrum
from kernelfield.plotting.matrices import class_labels, kernel_matrix, kernel_matrix_by_target, two_time_matrix
from kernelfield.plotting.style import (
    KERNEL_COLOURS,
    LAZY,
    NEUTRAL,
    RICH,
    SERIES,
    TIME_COLOURS,
    heading,
    legend_above,
    new_figure,
    plain,
    shades,
    thin,
    write_figure,
)
from kernelfield.plotting.widths import (
    NEAREST,
    alignment_scale,
    alignments,
    density_bars,
    density_line,
    distance_against_width,
    floor,
    width_axis,
    width_guide,
)

__all__ = [
    "KERNEL_COLOURS", "LAZY", "NEAREST", "NEUTRAL", "RICH", "SERIES", "TIME_COLOURS", "alignment_scale",
    "alignments", "class_labels", "curve", "density_bars", "density_line", "distance_against_width", "dots",
    "floor", "guide", "heading", "kernel_matrix", "kernel_matrix_by_target", "legend_above", "line_and_dots",
    "loss_curve", "loss_dots", "new_figure", "plain", "shades", "spectrum", "thin", "two_time_matrix", "width_axis",
    "width_guide", "write_figure",
]  # fmt: skip
