"""Sweeps over grids: every combination of several values of several settings, on many processes, into one dataset.

    data = kf.sweep_grid(network, problem, training, {"gamma0": [0.1, 1.0, 3.0], "depth": [2, 3]}, "sweep.zarr")
    data.final_loss.sel(gamma0=1.0)                  # xarray, with a dimension for each setting

or `kernelfield sweep CONFIG.toml --grid gamma0=0.1,1,3 --grid depth=2,3 -o sweep.zarr` on the command line. Needs
`pip install "kernelfield[cluster]"`.
"""

from kernelfield.sweeps.axes import Axis, Grid, make_grid, parse_grid
from kernelfield.sweeps.driver import run, sweep_grid
from kernelfield.sweeps.look import failures, records, table
from kernelfield.sweeps.store import SweepError, read

__all__ = [
    "Axis",
    "Grid",
    "SweepError",
    "failures",
    "make_grid",
    "parse_grid",
    "read",
    "records",
    "run",
    "sweep_grid",
    "table",
]
