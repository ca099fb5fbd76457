"""Finite networks: against explicit formulas, exact identities at finite width, and the infinite limit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernelfield as kf
from explicit import DEEP, PROBLEM, TRAINING, explicit, solved
from kernelfield.describe.run import Run
from kernelfield.finite.network import FiniteNetwork
from kernelfield.solution.factors import compressed


def test_first_kernels_and_first_step_match_explicit_formulas():
    width, X, y = 6, PROBLEM.X, PROBLEM.y
    solution = solved(width=width, seeds=1, seed=4, precision="float64")
    with jax.enable_x64(True):
        drawn = DEEP.layers.finite_init(jax.random.key(4), (3,), width)[0]
    W0, W1, w = (np.asarray(values) for values in drawn if values is not None)
    now = explicit((W0, W1, w), X)
    fields = solution.fields(1, 0)
    np.testing.assert_allclose(fields["h"], now["h1"], atol=1e-12)
    np.testing.assert_allclose(fields["z"], now["z1"], atol=1e-12)
    np.testing.assert_allclose(fields["g"], now["g1"], atol=1e-12)
    np.testing.assert_allclose(solution.fields(2, 0)["z"], np.tile(w, (4, 1)), atol=1e-12)
    for layer, h, g in ((1, now["h1"], now["g1"]), (2, now["h2"], now["g2"])):
        np.testing.assert_allclose(solution.feature_kernel(layer, 0), np.tanh(h) @ np.tanh(h).T / width, atol=1e-12)
        np.testing.assert_allclose(solution.gradient_kernel(layer, 0), g @ g.T / width, atol=1e-12)
    rate = TRAINING.learning_rate * DEEP.gamma0 / len(y)
    moved = (
        W0 + rate * (now["g1"] * y[:, None]).T @ X / np.sqrt(3),
        W1 + rate * (now["g2"] * y[:, None]).T @ np.tanh(now["h1"]) / np.sqrt(width),
        w + rate * y @ np.tanh(now["h2"]),
    )
    f = (explicit(moved, X)["out"] - now["out"]) / DEEP.gamma0
    np.testing.assert_allclose(solution.predictions[:2], [np.zeros(4), f], atol=1e-12)


def test_increments_of_f_are_exact_at_finite_width():
    """Theory, section 7, item 8."""
    network = kf.MLP(depth=3, activation="softplus", gamma0=1.5)
    solution = solved(network, width=8, seeds=1, fields_at=range(4), precision="float64")
    phi, dphi = network.nonlinearity.phi, network.nonlinearity.dphi
    with jax.enable_x64(True):
        for t in range(3):
            learned = sum(
                solution.gradient_kernel(layer + 1, t)
                * (PROBLEM.input_kernel if layer == 0 else solution.feature_kernel(layer, t + 1, t))
                for layer in range(4)
            )
            increment = network.gamma0 * 0.3 / 4 * (learned @ solution.errors[t])
            for layer in (1, 2, 3):
                old, new = solution.fields(layer, t), solution.fields(layer, t + 1)["h"]
                curved = phi(new) - phi(old["h"]) - dphi(old["h"]) * (new - old["h"])
                increment += np.mean(old["z"] * curved, axis=1)
            moved = network.gamma0 * (solution.predictions[t + 1] - solution.predictions[t])
            np.testing.assert_allclose(increment, moved, atol=1e-12)


@pytest.mark.parametrize("width", [5, 200])
def test_compressed_factors_reproduce_the_kernel(width):
    decay, rng = np.exp(-np.arange(60) / 4), np.random.default_rng(0)
    rows = (rng.standard_normal((2, 60, 60)) * decay) @ rng.standard_normal((60, width))
    rows = rows.reshape(2, 12, 5, width).astype(np.float32)
    factors = compressed(rows, 1e-7)
    assert factors.shape[-1] <= min(width, 40)
    for factor, each in zip(factors.reshape(2, 60, -1), rows.reshape(2, 60, width), strict=True):
        kernel = each @ each.T / width
        np.testing.assert_allclose(factor @ factor.T, kernel, atol=1e-5 * np.trace(kernel) / 60)


def test_kernels_of_all_times_agree_with_the_recorded_fields():
    solution = solved(width=8, seeds=2)
    h, g = (solution.field_samples[2, 3][name] for name in "hg")
    phi = np.tanh(h)
    Phi, G = (rows @ rows.transpose(0, 2, 1) / 8 for rows in (phi, g))
    np.testing.assert_allclose(solution.estimate("feature_kernel", 2).replicates, Phi, atol=1e-5)
    np.testing.assert_allclose(solution.estimate("gradient_kernel", 2).replicates, G, atol=1e-5)


def test_seeds_are_independent_reproducible_and_do_not_depend_on_company():
    many, again = solved(width=8, seeds=2, seed=5), solved(width=8, seeds=2, seed=5)
    alone = solved(width=8, seeds=1, seed=6)
    assert np.array_equal(many.replicate_predictions, again.replicate_predictions)
    np.testing.assert_allclose(many.replicate_predictions[1], alone.replicate_predictions[0], atol=1e-5)
    assert np.ptp(many.replicate_predictions[:, -1], axis=0).min() > 1e-3


def test_batches_of_seeds_do_not_change_the_result(monkeypatch):
    whole = solved(width=8, seeds=4)
    monkeypatch.setattr("kernelfield.finite.method.BATCH_BYTES", 2 * 30_000)
    parts = solved(width=8, seeds=4)
    assert parts.replicate_predictions.shape == (4, 4, 4)
    np.testing.assert_allclose(parts.replicate_predictions, whole.replicate_predictions, atol=1e-5)
    np.testing.assert_allclose(parts.ntk(), whole.ntk(), atol=1e-4)
    assert parts.fields(1)["g"].shape == (4, 4 * 8)


def test_one_seed_has_no_standard_error():
    assert np.isnan(solved(width=8, seeds=1).predictions_se).all()


def test_zero_targets_do_not_move_anything():
    solution = solved(problem=kf.Problem(PROBLEM.X, np.zeros(4)), width=8, seeds=2)
    assert not solution.replicate_predictions.any()


def test_divergence_keeps_the_steps_before_it():
    linear, training = (
        kf.MLP(depth=2, activation="linear"),
        kf.GradientDescent(learning_rate=30.0, steps=40),
    )
    with pytest.raises(kf.SolveError, match=r"diverged: .* at step \d+: try a learning_rate below 30") as raised:
        solved(linear, training=training, width=8, seeds=2)
    solution = raised.value.solution
    assert solution is not None
    assert 1 <= len(solution.loss) < 41
    losses = 0.5 * np.mean((solution.problem.y - solution.replicate_predictions) ** 2, axis=-1)
    assert np.all(losses <= 1e3 * losses[:, :1])


def test_interruption_keeps_the_steps_before_it():
    def stop(done: int, total: int) -> None:
        if done >= 5:
            raise KeyboardInterrupt

    training = kf.GradientDescent(learning_rate=0.1, steps=200)
    method = kf.FiniteWidth(width=8, seeds=2)
    solution = method.solve(Run(DEEP, PROBLEM, training, method, fields_at=(0, 200)), stop)
    assert isinstance(solution, kf.Solution)
    assert solution.status.code == "interrupted"
    assert 1 <= solution.steps_done < 200


def test_two_layer_linear_recursion_is_approached_as_width_grows():
    """Theory, section 7, item 1: y an eigenvector of the input kernel."""
    gamma0, rate, steps = 1.0, 0.4, 20
    values, vectors = np.linalg.eigh(PROBLEM.input_kernel)
    la, v = values[-1], vectors[:, -1]
    problem, training = (
        kf.Problem(PROBLEM.X, 2 * v),
        kf.GradientDescent(learning_rate=rate, steps=steps),
    )
    a, b, f, c = 1.0, 1.0, [], rate / 4
    for _ in range(steps + 1):
        f.append(np.sqrt(la) * (a**2 - b**2) / (2 * gamma0))
        a, b = (
            a * (1 + gamma0 * c * np.sqrt(la) * (2 - f[-1])),
            b * (1 - gamma0 * c * np.sqrt(la) * (2 - f[-1])),
        )
    for width in (64, 512):
        network = kf.MLP(depth=1, activation="linear", gamma0=gamma0)
        solution = solved(network, problem, training, width=width, seeds=16, kernels="none")
        along = solution.replicate_predictions @ v
        error, se = np.abs(along.mean(0) - f), along.std(0, ddof=1) / 4
        assert np.all(error <= 5 * se + 5 / width)
        assert se.max() < 3 / np.sqrt(16 * width)


# --- several outputs

TWO = kf.Problem(PROBLEM.X, np.random.default_rng(4).standard_normal((4, 2)), weights=[1, 2, 0, 1])


def weights_of_two(network=DEEP, inputs=(3,), width=6, seed=4):
    with jax.enable_x64(True):
        return FiniteNetwork(network.layers, inputs, width, TWO.loss, 2).init(jnp.asarray(seed, jnp.uint32))


def test_an_axis_of_one_output_changes_nothing():
    one = solved(width=8, seeds=2, precision="float64")
    column = kf.Problem(PROBLEM.X, PROBLEM.y[:, None])
    other = solved(problem=column, width=8, seeds=2, precision="float64", kernels="per_output")
    np.testing.assert_array_equal(other.replicate_predictions[..., 0], one.replicate_predictions)
    for layer in (1, 2, 3):
        np.testing.assert_array_equal(other.gradient_kernel(layer), one.gradient_kernel(layer))


def test_per_output_is_all_for_one_output():
    one, other = (solved(width=8, seeds=2, kernels=kernels) for kernels in ("all", "per_output"))
    np.testing.assert_array_equal(one.ntk(), other.ntk())


def test_outputs_have_readouts_of_their_own():
    w = np.asarray(jax.tree.leaves(weights_of_two(kf.MLP(depth=1), width=4000))[-1])
    assert w.shape == (2, 4000)
    assert np.abs(np.corrcoef(w)[0, 1]) < 5 / np.sqrt(4000)
    np.testing.assert_allclose(np.std(w, axis=1), 1, atol=5 / np.sqrt(8000))


def test_gradients_of_every_output_match_explicit_formulas():
    """Rows (sample, output); fields are those of the error signal."""
    solution = solved(problem=TWO, width=6, seeds=1, seed=4, precision="float64", kernels="per_output")
    W0, W1, w = (np.asarray(values) for values in jax.tree.leaves(weights_of_two()))
    each = [explicit((W0, W1, row[None]), TWO.X) for row in w]
    for layer, name in ((1, "g1"), (2, "g2")):
        g = np.stack([now[name] for now in each], axis=1).reshape(8, 6)
        F = np.asarray(solution.kernel("G", layer).factor)[0, 0]
        np.testing.assert_allclose(F @ F.T, g @ g.T / 6, atol=1e-12)
        toward = np.einsum("pc,pcn->pn", TWO.y, g.reshape(4, 2, 6))
        np.testing.assert_allclose(solution.fields(layer, 0)["g"], toward, atol=1e-12)
    readout = np.asarray(solution.kernel("G", 3).factor)[0, 0]
    np.testing.assert_array_equal(readout @ readout.T, np.tile(np.eye(2), (4, 4)))
    np.testing.assert_allclose(solution.fields(2, 0)["z"], TWO.y @ w, atol=1e-12)


def test_fields_of_several_outputs_follow_the_error_signal():
    """On the last row too, where f0 counts: z of the last hidden layer is Delta w, with w of that row."""
    problem = kf.Problem(TWO.X, TWO.y, TWO.weights)
    solution = solved(problem=problem, width=6, seeds=1, seed=4, precision="float64", fields_at=range(4))
    *_, w = (np.asarray(values) for values in jax.tree.leaves(weights_of_two()))
    for t in range(4):
        np.testing.assert_allclose(solution.fields(2, t)["z"], solution.errors[t] @ w, atol=1e-12)
        pull = problem.weights[:, None] * solution.errors[t]
        w = w + 0.3 * DEEP.gamma0 * pull.T @ np.tanh(solution.fields(2, t)["h"])


def test_all_kernels_of_several_outputs_are_those_of_features():
    solution = solved(problem=TWO, width=8, seeds=2)
    assert not solution.keeps("G") and not solution.keeps("NTK")
    assert solution.feature_kernel(2).shape == (4, 4)
    with pytest.raises(ValueError, match="gradient kernels were not tracked in this run"):
        solution.gradient_kernel(1)


@pytest.mark.thorough
def test_the_tangent_kernel_of_every_output_is_that_of_all_weights():
    """With sites, where it is recorded; oracle: the Jacobian of all outputs."""
    rng = np.random.default_rng(0)
    problem = kf.Problem(rng.standard_normal((3, 4, 2)), rng.standard_normal((3, 2)))
    network = kf.CNN(depth=1, kernel=3, activation="tanh")
    settings = {"width": 6, "seeds": 1, "seed": 4, "precision": "float64"}
    found = solved(network, problem, **settings, kernels="per_output").kernel("NTK").values
    with jax.enable_x64(True):
        params, X = weights_of_two(network, (4, 2)), jnp.asarray(problem.X)
        slopes = jax.jacrev(lambda values: network.layers.finite_apply(values, X, lambda kind, x: x))(params)
        flat = np.concatenate([np.asarray(each).reshape(6, -1) for each in jax.tree.leaves(slopes)], axis=1)
    assert found.shape == (1, 4, 6, 6)
    np.testing.assert_allclose(found[0, 0], 6 * flat @ flat.T, atol=1e-12)
    assert not solved(network, problem, **settings).keeps("NTK")


@pytest.mark.parametrize(
    ("kernels", "quantity", "message"),
    [
        ("none", "feature_kernel", "feature kernels were not tracked in this run"),
        ("none", "ntk", "tangent kernels were not tracked in this run"),
        ("none", "gradient_kernel", "gradient kernels were not tracked in this run"),
        ("features", "gradient_kernel", "gradient kernels were not tracked in this run"),
    ],
)
def test_kernels_that_were_not_tracked_say_so(kernels, quantity, message):
    solution = solved(width=8, seeds=2, kernels=kernels)
    arguments = () if quantity == "ntk" else (1,)
    with pytest.raises(ValueError, match=message):
        solution.estimate(quantity, *arguments)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "width is required"),
        ({"width": 0}, "width must be greater than or equal to 1, got 0"),
        ({"width": 8, "seeds": 0}, "seeds must be"),
        ({"width": 8, "seed": -1}, "seed must be"),
        ({"width": 8, "kernels": "some"}, "kernels must be"),
        ({"width": 8, "precision": "float16"}, "precision must be"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        kf.FiniteWidth(**settings)
