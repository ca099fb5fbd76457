"""Which site sees which: against a convolution of SciPy, and down as the transpose of up."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import correlate

from kernelfield.engine.wiring import gather, wire_all, wire_windows

KINDS = [
    (sites, kernel, stride, padding)
    for (sites, kernel), stride, padding in itertools.product(
        [((6,), (3,)), ((5,), (2,)), ((3,), (4,)), ((4, 5), (3, 3)), ((3, 4), (1, 2))], (1, 2), ("zero", "circular")
    )
]


@pytest.mark.parametrize("sites, kernel, stride, padding", KINDS)
def test_a_window_is_that_of_a_convolution(sites, kernel, stride, padding):
    rng = np.random.default_rng(0)
    x, filter = rng.standard_normal(sites), rng.standard_normal(kernel)
    wiring = wire_windows(sites, kernel, stride, padding)
    seen = np.append(x.ravel(), 0.0)[wiring.up] @ filter.ravel()
    # SciPy's window is centred on window // 2, ours on (window - 1) // 2
    origin = [-1 if window % 2 == 0 else 0 for window in kernel]
    modes = {"zero": "constant", "circular": "grid-wrap"}
    full = correlate(x, filter, mode=modes[padding], origin=origin)
    expected = full[tuple(slice(None, None, stride) for _ in sites)]
    np.testing.assert_allclose(seen.reshape(wiring.above), expected, atol=1e-12)


@pytest.mark.parametrize("wiring", [*(wire_windows(*kind) for kind in KINDS), wire_all((2, 3))])
def test_down_is_the_transpose_of_up(wiring):
    above, below = (int(np.prod(sites)) for sites in (wiring.above, wiring.below))
    for place in range(wiring.places):
        up, down = np.zeros((above, below + 1)), np.zeros((below, above + 1))
        up[np.arange(above), wiring.up[:, place]] = 1
        down[np.arange(below), wiring.down[:, place]] = 1
        np.testing.assert_array_equal(up[:, :below], down[:, :above].T)


@pytest.mark.usefixtures("x64")
def test_rows_hold_what_every_site_sees():
    x = np.random.default_rng(0).standard_normal((2, 4, 3))
    wiring = wire_windows((4,), (3,), 1, "zero")
    rows = np.asarray(gather(jnp.asarray(x), wiring.up)).reshape(2, 4, 3, 3) * np.sqrt(3)
    np.testing.assert_allclose(rows[:, 0], np.stack([np.zeros((2, 3)), x[:, 0], x[:, 1]], axis=1), atol=1e-6)
    np.testing.assert_allclose(rows[:, 2], x[:, 1:4], atol=1e-6)
