"""The dictionary of parameterizations. The oracle of its numbers is a plain network in JAX that knows only them."""

import functools
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import kernelfield as kf
from kernelfield import parameterization as pz
from kernelfield.describe.training import SGD
from kernelfield.finite.network import FiniteNetwork
from kernelfield.layers import Activation, Bias, Conv, Dense, GlobalAveragePool, Readout, Residual, Sequential
from suites import keep_fast

FORMS = {
    "mean-field": pz.to_mean_field,
    "muP 3": pz.to_mup,
    "muP 8": lambda *given: pz.to_mup(*given, table=8),
    "muP 9": lambda *given: pz.to_mup(*given, table=9),
    "NTK": pz.to_ntk,
    "standard": pz.to_standard,
}
ALL_FORMS = pytest.mark.parametrize("form", FORMS)


# --- exponents

TABLES = (pz.MUP, pz.MUP_TABLE_8, pz.MUP_TABLE_9)


def test_mean_field_is_mup_in_all_its_tables_and_neither_is_the_ntk_nor_standard():
    for table in TABLES:
        assert pz.equivalent(pz.MEAN_FIELD, table)
    for other in (pz.NTK, pz.STANDARD, pz.STANDARD.slowed(1)):
        assert not pz.equivalent(pz.MEAN_FIELD, other)
    assert not pz.equivalent(pz.NTK, pz.STANDARD)


def test_gamma0_of_one_over_the_root_of_the_width_is_the_ntk():
    assert pz.equivalent(pz.mean_field(0.5), pz.NTK)
    assert pz.growth(pz.mean_field(0.3)) == pytest.approx(0.3)


def test_shifts_change_no_function_and_other_changes_do():
    rng = np.random.default_rng(0)
    for one in (*TABLES, pz.NTK, pz.STANDARD, pz.mean_field(0.2)):
        shifts = zip(one.kinds, rng.normal(size=4), strict=True)
        other = pz.Parameterization(*(each.shifted(theta) for each, theta in shifts))
        assert pz.equivalent(one, other) and pz.regime(one) == pz.regime(other)
        assert pz.growth(one) == pytest.approx(pz.growth(other))
        for part in "abc":
            moved = replace(one.hidden, **{part: getattr(one.hidden, part) + 0.1})
            assert not pz.equivalent(one, replace(one, hidden=moved))


def test_regimes_are_those_of_the_paper():
    for table in (pz.MEAN_FIELD, *TABLES):
        assert pz.growth(table) == 0 and pz.regime(table) == "feature learning"
    for lazy in (pz.NTK, pz.mean_field(0.1), pz.STANDARD.slowed(1)):
        assert pz.growth(lazy) > 0 and pz.regime(lazy) == "kernel"
    assert pz.regime(pz.NTK.slowed(0.1)) == pz.regime(pz.MUP.slowed(0.1)) == "trivial"
    for fast in (pz.NTK, pz.MUP, pz.STANDARD.slowed(1)):
        assert pz.regime(fast.slowed(-0.1)) == "unstable"
    assert pz.regime(pz.STANDARD) == "unstable"
    assert pz.regime(replace(pz.MUP, hidden=pz.Exponents(0, 0.4, 0))) == "unstable"
    assert pz.regime(replace(pz.MUP, bias=pz.Exponents(0, 1, -1))) == "feature learning"  # biases that start at zero


@pytest.mark.thorough
def test_features_of_networks_move_as_their_exponents_say():
    """One step at two widths: the hidden layer moves by N^-r, r = 0 and 1/2."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(8) / math.sqrt(8), 1.0

    def moved(exponents, width, seed):
        draw = np.random.default_rng(seed).standard_normal
        shapes = {"input": (width, 8), "hidden": (width, width), "output": (width,)}
        each = {kind: getattr(exponents, kind) for kind in shapes}
        m, rate = ({k: width ** -getattr(e, part) for k, e in each.items()} for part in "ac")
        U, W, v = (width ** -each[kind].b * draw(shape) for kind, shape in shapes.items())
        h1 = m["input"] * U @ x
        h2 = m["hidden"] * W @ np.tanh(h1)
        d2 = y * m["output"] * v * (1 - np.tanh(h2) ** 2)
        d1 = m["hidden"] * (W.T @ d2) * (1 - np.tanh(h1) ** 2)
        U = U + rate["input"] * m["input"] * np.outer(d1, x)
        W = W + rate["hidden"] * m["hidden"] * np.outer(d2, np.tanh(h1))
        return np.sqrt(np.mean((m["hidden"] * W @ np.tanh(m["input"] * U @ x) - h2) ** 2))

    for exponents in (*TABLES, pz.MEAN_FIELD, pz.mean_field(0.25), pz.NTK, pz.STANDARD.slowed(1)):
        small, large = (np.mean([moved(exponents, width, seed) for seed in range(8)]) for width in (64, 1024))
        assert math.log(small / large) / math.log(1024 / 64) == pytest.approx(pz.growth(exponents), abs=0.06)


# --- plain networks


@functools.partial(jax.jit, static_argnames="kinds")
def plain(values, kinds, columns, momentum, data, updates):
    """f (T + 1, ...) of a fully connected tanh network: before every update, and after the last one.

    Columns are multipliers, learning rates and weight decays of all tensors. Updates are the points (T, B), their
    weights in the loss (T, B), and factors of the learning rate (T,).
    """
    (X, y), (multipliers, rates, decays) = data, columns

    def output(values):
        x, made = X, False
        for kind, multiplier, value in zip(kinds, multipliers, values, strict=True):
            if kind == "bias":
                x = x + multiplier * value
            else:
                x, made = multiplier * ((jnp.tanh(x) if made else x) @ value.T), True
        return x

    def loss(values, rows, weights):
        return weights @ ((output(values) - f0 - y)[rows] ** 2).reshape(len(rows), -1).sum(axis=1) / 2

    def step(state, update):
        (values, velocity), (rows, weights, factor) = state, update
        slopes = jax.grad(loss)(values, rows, weights)
        velocity = [momentum * v + slope for v, slope in zip(velocity, slopes, strict=True)]
        every = zip(values, velocity, rates, decays, strict=True)
        values = [(1 - factor * rate * decay) * W - factor * rate * v for W, v, rate, decay in every]
        return (values, velocity), output(values) - f0

    f0 = output(values)
    _, found = jax.lax.scan(step, (values, [jnp.zeros_like(each) for each in values]), updates)
    return jnp.concatenate([(f0 - f0)[None], found])


def trained(numbers, values, problem, updates):
    """f (seeds, T + 1, ...) of plain networks; values have an axis of seeds."""
    columns = [
        jnp.array([getattr(row, name) for row in numbers]) for name in ("multiplier", "learning_rate", "weight_decay")
    ]
    kinds, data = tuple(row.kind for row in numbers), (jnp.asarray(problem.X), jnp.asarray(problem.y))
    each = [
        plain([value[n] for value in values], kinds, columns, numbers.momentum, data, updates)
        for n in range(len(values[0]))
    ]
    return np.array(each)


def standard_normals(network, problem, width, seeds, scales):
    """What FiniteWidth draws, as N(0, 1): its weights at initialization, divided by the scales that they start with."""
    shape = network.inputs(problem).shape[1:]
    finite = FiniteNetwork(network.layers, shape, width, problem.loss, problem.outputs)
    leaves = jax.tree.leaves(jax.vmap(finite.init)(jnp.arange(seeds, dtype=jnp.uint32)))
    leaves[-1] = leaves[-1].reshape(seeds, *problem.y.shape[1:], -1)
    return [leaf / scale for leaf, scale in zip(leaves, scales, strict=True)]


def full(problem, count, schedule=None):
    """Updates on all points."""
    rows, weights = (np.tile(each, (count, 1)) for each in (np.arange(problem.points), problem.weights))
    return rows, weights, np.ones(count) if schedule is None else np.array(schedule)


DEPTH, WIDTH = 3, 64
PROBLEM = kf.Problem(np.random.default_rng(1).standard_normal((5, 7)), [1.0, -1.0, 1.0, -0.5, 0.3], [1, 2, 1, 1, 1])
TWO = kf.Problem(PROBLEM.X, np.random.default_rng(2).standard_normal((5, 2)))
TRAINING = kf.GradientDescent(learning_rate=0.4, steps=15)
SCALES, BIAS = [1.2, 0.8, 1.1, 0.7], 0.3
NETWORK = kf.MLP(depth=DEPTH, gamma0=1.5, weight_scales=SCALES, bias_scale=BIAS)


def drawn_with(network):
    """Scales of initialization of all tensors of an MLP, bottom to top."""
    scales = network.weight_scales or [1.0] * (network.depth + 1)
    if network.scales_multiply == "weight":
        scales = [1.0] * len(scales)
    biases = [] if network.bias_scale is None else [network.bias_scale]
    return [*(each for scale in scales[:-1] for each in (scale, *biases)), scales[-1]]


def trained_plainly(numbers, network, problem, updates, seeds=1):
    """Plain networks that start from the same standard normal numbers as those of FiniteWidth."""
    Z = standard_normals(network, problem, numbers.width, seeds, drawn_with(network))
    return trained(numbers, [row.std * each for row, each in zip(numbers, Z, strict=True)], problem, updates)


CASES = {
    "scales and biases": (NETWORK, PROBLEM, TRAINING, None),
    "one hidden layer": (kf.MLP(depth=1, gamma0=2.0), PROBLEM, TRAINING, None),
    "two outputs": (NETWORK, TWO, TRAINING, None),
    "everything": (
        NETWORK.model_copy(update={"scales_multiply": "weight", "widths": [2.0, 0.5, 1.0]}),
        TWO,
        kf.GradientDescent(
            learning_rate=0.2, steps=15, momentum=0.6, weight_decay=0.1, schedule=(ramp := [*np.linspace(1.5, 0.1, 15)])
        ),
        ramp,
    ),
}


def exact(network, problem, training, seeds=1):
    method = kf.FiniteWidth(width=WIDTH, seeds=seeds, kernels="none", precision="float64")
    return kf.solve(network, problem, training, method, progress=False).replicate_predictions


@pytest.mark.parametrize("case", keep_fast(CASES, "one hidden layer"))
def test_a_plain_network_with_these_numbers_is_the_finite_network_of_the_theory(case, x64):
    network, problem, training, schedule = CASES[case]
    expected = exact(network, problem, training)
    assert np.abs(expected[:, -1]).max() > 0.1
    for form, to in FORMS.items():
        numbers = to(network, problem, training, WIDTH)
        found = trained_plainly(numbers, network, problem, full(problem, training.steps, schedule))
        np.testing.assert_allclose(found, expected, atol=1e-9, err_msg=form)


@pytest.mark.thorough
def test_mini_batches_take_the_same_numbers(x64):
    training = SGD(learning_rate=0.3, batch_size=2, epochs=4, momentum=0.5, weight_decay=0.1)
    batches = training.batches(PROBLEM)
    assert batches is not None
    updates = (*batches, np.ones(len(batches.rows)))
    found = trained_plainly(pz.to_mup(NETWORK, PROBLEM, training, WIDTH), NETWORK, PROBLEM, updates)
    each = training.updates_per_step(PROBLEM)
    np.testing.assert_allclose(found[:, ::each], exact(NETWORK, PROBLEM, training), atol=1e-9)


@pytest.mark.thorough
def test_every_seed_is_the_same_network(x64):
    numbers, updates = pz.to_mup(NETWORK, PROBLEM, TRAINING, WIDTH), full(PROBLEM, TRAINING.steps)
    expected = exact(NETWORK, PROBLEM, TRAINING, seeds=3)
    found = trained_plainly(numbers, NETWORK, PROBLEM, updates, seeds=3)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert np.ptp(found[:, -1], axis=0).max() > 1e-3


WRONG = {
    "one rate for all": lambda row: replace(row, learning_rate=1.5**2 * 0.4),
    "fast readout": lambda row: replace(row, learning_rate=row.learning_rate * WIDTH) if row.name == "w" else row,
    "no scale": lambda row: replace(row, std=row.std / 0.8) if row.name == "W1" else row,
    "still biases": lambda row: replace(row, learning_rate=0.0) if row.kind == "bias" else row,
}


@pytest.mark.parametrize("wrong", keep_fast(WRONG, "one rate for all"))
def test_wrong_numbers_make_another_network(wrong, x64):
    numbers = pz.to_mup(NETWORK, PROBLEM, TRAINING, WIDTH)
    numbers = replace(numbers, rows=tuple(map(WRONG[wrong], numbers)))
    found = trained_plainly(numbers, NETWORK, PROBLEM, full(PROBLEM, TRAINING.steps))
    assert np.abs(found - exact(NETWORK, PROBLEM, TRAINING))[:, -1].max() > 1e-2


@pytest.fixture(scope="module")
def infinite():
    return kf.solve(
        NETWORK, PROBLEM, TRAINING, kf.March(particles=2048, replicates=4, kernels="features"), progress=False
    )


def off(infinite, numbers, seeds=16):
    """Differences of the mean over plain networks from infinite width, in standard errors of both, at two steps."""
    rng, values = np.random.default_rng(0), []
    for row in numbers:
        shape = (row.fan_out,) if row.kind == "bias" else (row.fan_out, row.fan_in)
        values.append(jnp.asarray(row.std * rng.standard_normal((seeds, *shape))))
    problem = kf.Problem(PROBLEM.X, PROBLEM.y[:, None], PROBLEM.weights)  # f has an axis of one output
    found = trained(numbers, values, problem, full(problem, TRAINING.steps))[..., 0][:, [5, -1]]
    theory = infinite.replicate_predictions[:, [5, -1]]
    errors = [np.std(each, axis=0, ddof=1) / math.sqrt(len(each)) for each in (found, theory)]
    return np.abs(found.mean(axis=0) - theory.mean(axis=0)) / np.hypot(*errors)


@pytest.mark.thorough
def test_networks_with_these_numbers_land_on_the_infinite_width_limit(infinite, x64):
    allowed = stats.t.ppf(1 - 0.01 / 20, df=15)  # ten differences, both sides
    numbers = pz.to_mup(NETWORK, PROBLEM, TRAINING, width=256)
    assert off(infinite, numbers).max() < allowed
    slow = replace(numbers, rows=tuple(replace(row, learning_rate=row.learning_rate / 1.5**2) for row in numbers))
    assert off(infinite, slow).max() > 3 * allowed


# --- tables


def test_rows_have_the_values_of_the_tables():
    network, width, dimensions = kf.MLP(depth=2, gamma0=2.0, bias_scale=0.5), 100, 7
    rates = {"input": 100 / dimensions, "hidden": 1, "output": 1 / 100, "bias": 100}
    for row in pz.to_mup(network, PROBLEM, TRAINING, width):
        assert row.learning_rate == pytest.approx(0.4 * 2.0**2 * rates[row.kind])
        assert row.multiplier == (0.5 if row.kind == "output" else 1)
    eighth, ninth = (pz.to_mup(network, PROBLEM, TRAINING, width, table=table) for table in (8, 9))
    assert (eighth["w"].std, eighth["w"].multiplier) == pytest.approx((1, 1 / 200))
    assert eighth["w"].learning_rate == pytest.approx(1.6 * 100)
    assert [row.learning_rate for row in ninth] == pytest.approx([1.6] * 5)
    assert ninth["b1"].multiplier == pytest.approx(10) and ninth["w"].multiplier == pytest.approx(0.05)
    for row in pz.to_standard(network, PROBLEM, TRAINING, width):
        assert row.multiplier == 1
    assert {row.learning_rate for row in pz.to_ntk(network, PROBLEM, TRAINING, width)} == {0.4 * 4 * 100}


ADAM = kf.AdamW(learning_rate=0.4, steps=15, eps=1e-3, weight_decay=0.1)


def test_rows_of_adam_have_the_values_of_the_tables():
    """Against arXiv:2203.03466, tables 3, 8 and 9, columns of Adam, by their powers of the width; and those of eps."""
    network, N, D = kf.MLP(depth=2, gamma0=2.0, bias_scale=0.5), 100, 7
    rates = {
        3: {"input": 1 / D, "bias": 1, "hidden": 1 / N, "output": 1 / N},
        8: {"input": 1 / D, "bias": 1, "hidden": 1 / N, "output": 1},
        9: {"input": (D * N) ** -0.5, "bias": N**-0.5, "hidden": 1 / N, "output": N**-0.5},
    }
    eps = {
        3: {"input": 1 / N, "bias": 1 / N, "hidden": 1 / N, "output": 1},
        8: dict.fromkeys(rates[8], 1 / N),
        9: rates[9],
    }
    for table in (3, 8, 9):
        numbers, of_sgd = (pz.to_mup(network, PROBLEM, rule, N, table=table) for rule in (ADAM, TRAINING))
        for row, other in zip(numbers, of_sgd, strict=True):
            assert row.learning_rate == pytest.approx(0.4 * 2.0 * rates[table][row.kind])
            assert row.eps == pytest.approx(1e-3 / 2.0 * eps[table][row.kind])
            assert row.learning_rate * row.weight_decay == pytest.approx(0.04)
            assert (row.std, row.multiplier) == pytest.approx((other.std, other.multiplier))
    for row in pz.to_mean_field(network, PROBLEM, ADAM, N):
        root = {"input": D, "hidden": N}.get(row.kind, 1) ** 0.5
        assert row.learning_rate == pytest.approx(0.8 / root) and row.eps == pytest.approx(1e-3 / (2 * N * root))
    assert all(row.multiplier == 1 for row in pz.to_standard(network, PROBLEM, ADAM, N))


def test_forms_of_adam_are_one_function():
    """Multiplier times std, multiplier times rate, and multiplier over eps are the same in all forms."""
    for rule in (ADAM, kf.SignDescent(learning_rate=0.4, steps=15)):
        every = [[*to(NETWORK, PROBLEM, rule, WIDTH)] for to in FORMS.values()]
        for rows in zip(*every, strict=True):
            m = np.array([row.multiplier for row in rows])
            products = np.array([m * [getattr(row, n) for row in rows] for n in ("std", "learning_rate")])
            ratios = np.array([row.eps for row in rows]) / m
            for values in (*products, ratios):
                np.testing.assert_allclose(values, values[0], rtol=1e-12)


@ALL_FORMS
def test_rows_scale_with_width_as_the_exponents_say(form):
    exponents = {"muP 3": pz.MUP, "muP 8": pz.MUP_TABLE_8, "muP 9": pz.MUP_TABLE_9}.get(form, pz.MEAN_FIELD)
    small, large = (FORMS[form](NETWORK, PROBLEM, TRAINING, width) for width in (64, 128))
    for one, two in zip(small, large, strict=True):
        given = getattr(exponents, one.kind)
        powers = [-math.log2(getattr(two, n) / getattr(one, n)) for n in ("multiplier", "std", "learning_rate")]
        found = pz.Exponents(*powers)
        assert (found.size, found.speed) == pytest.approx((given.size, given.speed))
        if form != "standard":
            assert powers == pytest.approx([given.a, given.b, given.c])


def test_a_table_names_every_tensor_and_has_weight_decay_if_there_is_any():
    numbers = pz.to_mup(NETWORK, PROBLEM, TRAINING, WIDTH)
    assert [row.name for row in numbers] == ["W0", "b1", "W1", "b2", "W2", "b3", "w"]
    lines = str(numbers).splitlines()
    assert len(lines) == 2 + len(numbers.rows) and "decay" not in lines[1]
    decayed = TRAINING.model_copy(update={"weight_decay": 0.1, "momentum": 0.9})
    lines = str(pz.to_mup(NETWORK, PROBLEM, decayed, WIDTH)).splitlines()
    assert lines[0] == "muP (table 3), width 64, momentum 0.9" and lines[1].endswith("weight decay")


def test_a_table_of_adam_has_eps():
    for rule, decay in ((ADAM, True), (kf.SignDescent(learning_rate=0.4, steps=15), False)):
        numbers = pz.to_mup(NETWORK, PROBLEM, rule, WIDTH)
        first, names, *rows = str(numbers).splitlines()
        assert first == "muP (table 3), width 64, Adam with betas {:g} and {:g}".format(*rule.betas)
        assert names.endswith("weight decay  eps" if decay else "learning rate  eps")
        assert float(rows[0].split()[-1]) == pytest.approx(numbers["W0"].eps, rel=1e-5)


# --- other networks

TANH, AGAIN = Activation("tanh"), Dense()
IMAGES = kf.Problem(np.random.default_rng(3).standard_normal((3, 4, 4, 2)), [1.0, -1.0, 1.0])
VECTORS = kf.Problem(PROBLEM.X[:3], [1.0, -1.0, 1.0])
OTHERS = {
    "ResNet": (kf.ResNet(depth=2), VECTORS),
    "CNN": (kf.CNN(depth=2, gamma0=0.7), IMAGES),
    "flattened CNN": (kf.CNN(depth=2, gamma0=0.7, readout="flatten", pool=2), IMAGES),
    "convolutional ResNet": (kf.ResNet(depth=2, kernel=3), IMAGES),
    "shared": (kf.Network(layers=[Dense(), TANH, AGAIN, TANH, AGAIN, TANH, Readout()]), VECTORS),
    "composed": (
        kf.Network(
            layers=[
                Conv(3, stride=2, scale=1.3, multiplies="weight"),
                Bias(0.2),
                Residual(Sequential([TANH, Conv(1, scale=0.6), Bias()]), 0.5),
                TANH,
                Dense(width=2.0),
                TANH,
                Dense(),
                TANH,
                Readout(scale=0.8, multiplies="weight"),
            ],
            gamma0=1.4,
        ),
        IMAGES,
    ),
    "pooled": (kf.Network(layers=[Conv(2), TANH, GlobalAveragePool(), Dense(), TANH, Readout(scale=2.0)]), IMAGES),
}


@pytest.mark.parametrize("name", keep_fast(OTHERS, "composed"))
def test_numbers_of_every_architecture_make_the_finite_network(name, x64):
    """The forward pass is that of the library, with the multipliers of each form in place of its own."""
    (network, problem), width = OTHERS[name], 16
    native = pz.to_mean_field(network, problem, TRAINING, width)
    finite = FiniteNetwork(network.layers, network.inputs(problem).shape[1:], width, problem.loss, problem.outputs)
    drawn, tree = jax.tree.flatten(finite.init(jnp.asarray(0, jnp.uint32)))
    X, y, weights = (jnp.asarray(each) for each in (problem.X, problem.y, problem.weights))
    method = kf.FiniteWidth(width=width, seeds=1, kernels="none", precision="float64")
    training = TRAINING.model_copy(update={"steps": 5})
    expected = kf.solve(network, problem, training, method, progress=False).replicate_predictions[0]

    @jax.jit
    def step(values, ratios, rates, f0):
        def loss(values):
            params = tree.unflatten([ratio * value for ratio, value in zip(ratios, values, strict=True)])
            f = finite.apply(params, X)[0][:, 0] / network.gamma0
            return weights @ (f - f0 - y) ** 2 / 2, f

        slopes, f = jax.grad(loss, has_aux=True)(values)
        return [value - rate * slope for value, rate, slope in zip(values, rates, slopes, strict=True)], f

    for form in FORMS:
        rows = FORMS[form](network, problem, TRAINING, width)
        ratios = [row.multiplier / one.multiplier for row, one in zip(rows, native, strict=True)]
        rates, found = [row.learning_rate for row in rows], []
        values = [Z * (row.std / one.std if one.std else 0) for Z, row, one in zip(drawn, rows, native, strict=True)]
        _, f0 = step(values, ratios, rates, jnp.zeros(len(y)))
        for _ in range(6):
            values, f = step(values, ratios, rates, f0)
            found.append(f - f0)
        np.testing.assert_allclose(found, expected, atol=1e-9, err_msg=form)


@pytest.mark.parametrize("name", keep_fast(sorted({*OTHERS} - {"shared"}), "ResNet"))
def test_rows_of_every_architecture_have_its_shapes_scales_and_multipliers(name, x64):
    """With weights of one, what leaves a tensor is its multiplier times the sum of what enters."""
    (network, problem), width, passed = OTHERS[name], 24, []
    finite = FiniteNetwork(network.layers, network.inputs(problem).shape[1:], width, problem.loss, problem.outputs)

    def tape(kind, values):
        passed.append((kind, values))
        return values

    values, tree = jax.tree.flatten(finite.init(jnp.asarray(0, jnp.uint32)))
    rows = pz.to_mean_field(network, problem, TRAINING, width).rows
    for row, value in zip(rows, values, strict=True):
        assert value.size == (row.fan_out if row.kind == "bias" else row.fan_in * row.fan_out)
        assert np.std(value) == pytest.approx(row.std, rel=4 / math.sqrt(2 * value.size))
    ones = tree.unflatten([jnp.ones_like(value) for value in values])
    network.layers.finite_apply(ones, jnp.asarray(problem.X), tape)
    entered, left = ([values for kind, values in passed if kind == which] for which in ("in", "out"))
    weights = [row for row in rows if row.kind != "bias"]
    for row, enters, leaves in zip(weights, entered, left, strict=True):
        sums = enters.reshape(len(enters), -1).sum(axis=1)
        if row.kind == "output":
            np.testing.assert_allclose(leaves[:, 0] / network.gamma0, row.multiplier * sums, rtol=1e-9)
        elif leaves.ndim == 2:
            np.testing.assert_allclose(leaves[:, 0], row.multiplier * sums, rtol=1e-9)


def test_multipliers_of_convolutions_are_those_of_their_forward_pass(x64):
    """With weights of one and a field of ones, all of a window is a sum of fan_in ones."""
    first, second = Conv(3, padding="circular", scale=0.7, multiplies="weight"), Conv(2, padding="circular", width=2.0)
    layers = [first, Activation("linear"), second, TANH, Dense(), TANH, Readout()]
    network, problem, left = kf.Network(layers=layers), kf.Problem(np.ones((2, 4, 4, 3)), [1.0, -1.0]), []
    finite = FiniteNetwork(network.layers, (4, 4, 3), 10, problem.loss, problem.outputs)
    ones = jax.tree.map(jnp.ones_like, finite.init(jnp.asarray(0, jnp.uint32)))

    def tape(kind, values):
        left.extend([values] if kind == "out" else [])
        return values

    network.layers.finite_apply(ones, jnp.asarray(problem.X), tape)
    rows = pz.to_mean_field(network, problem, TRAINING, 10)
    assert [(row.fan_in, row.fan_out) for row in rows][:3] == [(27, 10), (40, 20), (320, 10)]
    np.testing.assert_allclose(left[0], rows["W0"].multiplier * 27, rtol=1e-12)
    np.testing.assert_allclose(left[1], rows["W1"].multiplier * 40 * left[0][0, 0, 0, 0], rtol=1e-12)


# --- back to gamma0


@ALL_FORMS
def test_numbers_go_back_to_the_network_they_came_from(form):
    training = TRAINING.model_copy(update={"weight_decay": 0.3})
    network = NETWORK.model_copy(update={"widths": [2.0, 0.5, 1.0]})
    found = pz.from_numbers(FORMS[form](network, PROBLEM, training, 128))
    assert (found.gamma0, found.learning_rate, found.weight_decay) == pytest.approx((1.5, 0.4, 0.3))
    assert found.weight_scales == pytest.approx(SCALES) and found.bias_scales == pytest.approx([BIAS] * DEPTH)
    assert found.input_scale == pytest.approx(1.0)
    shallow = pz.from_numbers(FORMS[form](kf.MLP(depth=1, gamma0=0.3), PROBLEM, TRAINING, 128))
    assert (shallow.gamma0, shallow.learning_rate, *shallow.weight_scales) == pytest.approx((0.3, 0.4, 1, 1))


@ALL_FORMS
def test_numbers_of_adam_go_back_too(form):
    network = NETWORK.model_copy(update={"widths": [2.0, 0.5, 1.0]})
    found = pz.from_numbers(FORMS[form](network, PROBLEM, ADAM, 128))
    assert (found.gamma0, found.learning_rate, found.weight_decay) == pytest.approx((1.5, 0.4, 0.1))
    assert found.weight_scales == pytest.approx(SCALES) and found.bias_scales == pytest.approx([BIAS] * DEPTH)
    assert (found.input_scale, found.eps) == pytest.approx((1.0, 1e-3))


@ALL_FORMS
@pytest.mark.parametrize("training", [TRAINING, ADAM], ids=["SGD", "Adam"])
def test_tensors_may_have_rates_of_their_own(form, training):
    layers = [
        Dense(scale=0.7, relative_rate=2.0),
        Bias(0.3, relative_rate=0.5),
        TANH,
        Dense(),
        TANH,
        Dense(relative_rate=0.3, scale=1.3),
        Bias(0.1, relative_rate=0.1),
        TANH,
        Readout(scale=1.2),
    ]
    found = pz.from_numbers(FORMS[form](kf.Network(layers=layers, gamma0=1.5), PROBLEM, training, 64), own_rates=True)
    assert (found.gamma0, found.learning_rate, found.input_scale) == pytest.approx((1.5, 0.4, 1.0))
    assert list(found.relative_rates.values()) == pytest.approx([2, 0.5, 1, 0.3, 0.1, 1])
    assert list(found.scales.values()) == pytest.approx([0.7, 0.3, 1, 1.3, 0.1, 1.2])


# --- how it grows


@pytest.mark.parametrize("training", [TRAINING, ADAM], ids=["SGD", "Adam"])
def test_forms_of_one_limit_do_not_drift(training):
    for write in FORMS.values():
        found = pz.drift([write(NETWORK, PROBLEM, training, width) for width in (32, 128, 512)])
        assert found.departing == [] and found.widths == (32, 128, 512)
        assert "learns features" in found.sentence


def test_a_forgotten_multiplier_is_named_with_its_power():
    def without(width):
        rows = [replace(row, multiplier=1.0) for row in pz.to_mup(NETWORK, PROBLEM, TRAINING, width, table=8)]
        return pz.Numbers("mine", width, tuple(rows))

    found = pz.drift([without(width) for width in (32, 128)])
    assert found.sentence == "as the width N grows, w starts N too large and learns N^2 too fast"
    assert "w       output  1" in str(found)


@pytest.mark.parametrize(
    "training, expected",
    [
        (TRAINING, "w starts N^0.5 too large and learns N too fast, W0 learns N^-1 too slowly, b1 learns"),
        (ADAM, "w starts N^0.5 too large and learns N too fast, W1 learns N too fast, W2 learns N too fast"),
    ],
    ids=["SGD", "Adam"],
)
def test_standard_parameterization_departs_with_known_powers(training, expected):
    found = pz.drift(pz.to_standard(NETWORK, PROBLEM, training, 64))
    assert found.sentence.startswith(f"as the width N grows, {expected}")


def package_mup(width, base, rate, multiplier, std, dimensions, biases=False):
    """What the package mup makes of a network with two hidden layers: MuReadout, and rates of MuSGD."""
    grown = width / base
    rows = [
        pz.Row("W0", "input", dimensions, width, std[0] / math.sqrt(dimensions), 1.0, rate * grown),
        pz.Row("b1", "bias", 1, width, 0.0, 1.0, rate * grown),
        pz.Row("W1", "hidden", width, width, std[1] / math.sqrt(width), 1.0, rate),
        pz.Row("w", "output", width, 1, std[2] / math.sqrt(base), multiplier / grown, rate * grown),
    ]
    return pz.Numbers("package mup", width, tuple(row for row in rows if biases or row.kind != "bias"))


@pytest.mark.parametrize("width", [16, 64, 512])
def test_the_package_mup_has_the_gamma0_of_its_base_width_at_every_width(width):
    found = pz.from_mup(learning_rate=0.1, base_width=16, output_multiplier=2.0)
    assert found.gamma0 == pytest.approx(1 / 8) and found.learning_rate == pytest.approx(6.4)
    every = pz.from_numbers(package_mup(width, 16, 0.1, 2.0, (1.0, 0.9, 0.6), dimensions=7))
    assert (every.gamma0, every.learning_rate) == pytest.approx((found.gamma0, found.learning_rate))
    assert every.weight_scales == pytest.approx((math.sqrt(16 / 7), 0.9, 0.6))
    assert every.input_scale == pytest.approx(math.sqrt(7 / 16))


def test_a_network_of_the_package_mup_is_that_of_its_gamma0(x64):
    """Trained by the rules of the package, against FiniteWidth of what `from_numbers` says, tensor by tensor."""
    numbers = package_mup(64, 16, 0.1, 2.0, (1.0, 0.9, 0.6), dimensions=7)
    found = pz.from_numbers(numbers)
    network = kf.MLP(depth=2, gamma0=found.gamma0, weight_scales=list(found.weight_scales))
    problem = kf.Problem(found.input_scale * PROBLEM.X, PROBLEM.y, PROBLEM.weights)
    training = kf.GradientDescent(learning_rate=found.learning_rate, steps=8)
    method = kf.FiniteWidth(width=64, seeds=1, kernels="none", precision="float64")
    expected = kf.solve(network, problem, training, method, progress=False).replicate_predictions[0]
    Z = standard_normals(network, problem, 64, 1, drawn_with(network))
    plain = trained(numbers, [row.std * each for row, each in zip(numbers, Z, strict=True)], PROBLEM, full(PROBLEM, 8))
    np.testing.assert_allclose(plain[0], expected, atol=1e-9)
    assert np.abs(expected[-1]).max() > 0.1


@pytest.mark.parametrize("table", [3, 8, 9])
def test_a_printed_table_needs_no_base_width(table):
    numbers = pz.to_mup(kf.MLP(depth=2, gamma0=0.7), PROBLEM, TRAINING, 100, table=table)
    extra = {3: 1, 8: 100, 9: 10}[table]  # the factors that the tables have
    found = pz.from_mup(numbers["W1"].learning_rate, output_multiplier=numbers["w"].multiplier * extra)
    assert (found.gamma0, found.learning_rate) == pytest.approx((0.7, 0.4))


# --- errors


def test_what_cannot_be_is_said():
    with pytest.raises(ValueError, match="GradientFlow has no learning rate of single steps: give GradientDescent"):
        pz.to_mup(NETWORK, PROBLEM, kf.GradientFlow(time=1.0), 8)
    langevin = kf.Langevin(learning_rate=0.1, steps=5, weight_decay=0.5, temperature=0.5)
    with pytest.raises(ValueError, match="Langevin adds noise to weights, which these numbers do not have: give"):
        pz.to_mean_field(NETWORK, PROBLEM, langevin, 8)
    aligned = TRAINING.model_copy(update={"rule": kf.FeedbackAlignment()})
    with pytest.raises(ValueError, match="training along gradients, not by FeedbackAlignment: give rule=None"):
        pz.to_standard(NETWORK, PROBLEM, aligned, 8)
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        pz.to_ntk(NETWORK, PROBLEM, TRAINING, 0)
    with pytest.raises(ValueError, match="table must be 3, 8 or 9, got 4"):
        pz.to_mup(NETWORK, PROBLEM, TRAINING, 8, table=4)  # type: ignore[arg-type]
    for wrong in ({"learning_rate": 0.0}, {"base_width": -1}, {"output_multiplier": math.inf}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be above 0, got"):
            pz.from_mup(**{"learning_rate": 0.1, **wrong})
    with pytest.raises(ValueError, match=r"the learning rate of b1 must be 6.4, as that of W1 has it, got 0.4"):
        pz.from_numbers(package_mup(64, 16, 0.1, 2.0, (1, 1, 1), 7, biases=True))
    rows = pz.to_mup(NETWORK, PROBLEM, TRAINING, 8).rows
    with pytest.raises(ValueError, match="numbers must be of two different widths or more, got"):
        pz.drift([pz.to_mup(NETWORK, PROBLEM, TRAINING, 8)] * 2)
    with pytest.raises(ValueError, match="numbers must be of the same tensors at all widths"):
        pz.drift([pz.to_mup(NETWORK, PROBLEM, TRAINING, 8), package_mup(64, 16, 0.1, 2.0, (1, 1, 1), 7)])
    with pytest.raises(ValueError, match="relative_rate must be above 0, got 0"):
        Dense(relative_rate=0)
    with pytest.raises(ValueError, match="one input and one output, got 0, 1"):
        pz.from_numbers(pz.Numbers("mine", 8, rows[1:]))
    with pytest.raises(ValueError, match="learning rate times weight decay must be the same for all tensors"):
        pz.from_numbers(pz.Numbers("mine", 8, (replace(rows[0], weight_decay=0.1), *rows[1:])))


def test_a_layer_of_another_kind_is_refused(monkeypatch):
    class Weight(Bias):
        """A layer with parameters that this module does not know."""

    layers = Sequential([Dense(), TANH, Readout()])
    network = kf.Network(layers=layers)
    monkeypatch.setattr("kernelfield.parameterization.numbers.NeuronWeights", type("Nothing", (), {}))
    with pytest.raises(ValueError, match="numbers are known for Dense, Conv, Bias, Gain and Readout, got Weight"):
        pz.to_mup(kf.Network(layers=[Dense(), Weight(0.1), TANH, Readout()]), PROBLEM, TRAINING, 8)
    assert len(pz.to_mup(network, PROBLEM, TRAINING, 8).rows) == 2
