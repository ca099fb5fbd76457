"""What is drawn is what was given: positions of lines, bands, bars and images."""

import numpy as np
import pytest
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from kernelfield import plotting
from kernelfield.solution.estimate import Estimate

X = np.arange(5)
VALUES = Estimate(np.array([[1.0, 2.0, 3.0, 4.0, 5.0], [3.0, 2.0, 5.0, 4.0, 7.0]]))


@pytest.fixture
def axes():
    return Figure().subplots()


def test_a_curve_is_the_mean_and_its_band_the_interval(axes):
    plotting.curve(axes, X, VALUES, "red", "label", level=0.9)
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), np.column_stack([X, VALUES.mean]))
    low, high = VALUES.interval(0.9)
    corners = axes.collections[0].get_paths()[0].vertices
    for bound in (low, high):
        assert all((np.abs(corners - point).sum(axis=1) < 1e-9).any() for point in np.column_stack([X, bound]))


def test_a_single_replicate_has_no_band_and_no_bars(axes):
    single = Estimate(VALUES.replicates[:1])
    plotting.curve(axes, X, single, "red")
    plotting.dots(axes, X, single, "red")
    assert not axes.collections[0].get_paths() or np.isnan(axes.collections[0].get_paths()[0].vertices).all()
    lengths = [np.ptp(segment[:, 1]) for segment in axes.collections[1].get_segments()]
    assert lengths == [0] * len(X)


def test_dots_are_spread_over_all_places(axes):
    plotting.dots(axes, X, VALUES, "red", count=3)
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), np.column_stack([X, VALUES.mean])[::2])
    ends = np.array([segment[:, 1] for segment in axes.collections[0].get_segments()]).T
    np.testing.assert_allclose(ends, [bound[::2] for bound in VALUES.interval()])


def test_losses_are_curves_and_dots_on_a_logarithmic_axis(small_solution, axes):
    plotting.loss_curve(axes, small_solution, "red", "line")
    plotting.loss_dots(axes, small_solution, "blue", "dots", count=2)
    line, dots = axes.lines[:2]
    np.testing.assert_array_equal(line.get_ydata(), small_solution.loss)
    np.testing.assert_array_equal(dots.get_ydata(), small_solution.loss[[0, -1]])
    assert axes.get_yscale() == "log" and axes.get_xlim() == (0, small_solution.steps_done)


def test_a_spectrum_shows_the_largest_eigenvalues(axes):
    values = Estimate(np.arange(2 * 5 * 4, 0, -1.0).reshape(2, 5, 4))
    plotting.spectrum(axes, X, values, most=3)
    np.testing.assert_array_equal([line.get_ydata() for line in axes.lines], values.mean.T[:3])
    assert axes.get_yscale() == "log"


def test_an_exact_spectrum_has_bands_of_no_width(axes):
    plotting.spectrum(axes, X, Estimate(np.ones((1, 5, 2)), exact=True))
    bands = [path.vertices for band in axes.collections for path in band.get_paths()]
    assert len(bands) == 2 and all(len(band) and (band[:, 1] == 1).all() for band in bands)


def test_densities_lie_on_their_bins_and_all_of_them_is_seen(axes):
    edges = np.array([-1.0, 0.0, 2.0])
    wide = Estimate(np.array([[0.2, 0.4]]), exact=True)
    narrow = Estimate(np.array([[0.8, 0.1]]), exact=True)
    plotting.density_bars(axes, edges, wide, "red")
    plotting.density_line(axes, edges, narrow, "blue")
    stairs = axes.patches[0].get_data()
    np.testing.assert_array_equal(stairs.values, wide.mean)
    np.testing.assert_array_equal(stairs.edges, edges)
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[-0.5, 0.8], [1.0, 0.1]])
    bottom, top = axes.get_ylim()
    assert bottom == 0 and top > 0.8 and axes.get_xlim() == (-1, 2)


@pytest.mark.parametrize(("logarithmic", "norm"), [(False, Normalize), (True, LogNorm)])
def test_a_two_time_matrix_has_the_scale_that_was_asked_for(axes, logarithmic, norm):
    kernel = np.arange(1.0, 10).reshape(3, 3)
    image = plotting.two_time_matrix(axes, kernel, (1.0, 20.0), "title", logarithmic)
    assert type(image.norm) is norm and image.get_clim() == (1, 20) and image.origin == "lower"
    np.testing.assert_array_equal(image.get_array(), kernel)


def test_widths_are_ticks_on_a_logarithmic_axis(axes):
    plotting.width_axis(axes, [2, 64, 2000])
    assert axes.get_xscale() == "log" and axes.get_xticks().tolist() == [2, 64, 2000]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "64", "2000"]


def test_every_primitive_is_exported():
    for module in ("curves", "matrices", "style", "widths"):
        made = vars(getattr(plotting, module))
        names = [
            key for key, each in made.items() if getattr(each, "__module__", "") == f"kernelfield.plotting.{module}"
        ]
        assert {name for name in names if not name.startswith("_")} <= set(plotting.__all__)
