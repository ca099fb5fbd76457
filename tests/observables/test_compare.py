"""Two Solutions side by side. Oracles: numbers computed by hand, and means, norms, standard errors and leave-one-out
estimates of the whole arrays that the public methods of a Solution return."""

import importlib
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

import kernelfield as kf
import solutions
from kernelfield.observables.compare import compare
from solutions import changed, with_parts, without

METHODS = {"predictions": "predictions", "Phi": "feature_kernel", "G": "gradient_kernel", "NTK": "ntk"}


def made(predictions, features=(), gradients=(), exact=False, points=1, learning_rate=0.1):
    """A Solution that holds given replicates."""
    steps = max(1, np.shape(predictions)[1] - 1)
    network, problem = kf.MLP(depth=max(1, len(features) - 1)), kf.Problem(np.eye(points), np.ones(points))
    training = kf.GradientDescent(learning_rate=learning_rate, steps=steps)
    f = np.array(predictions, dtype=float)
    return solutions.made(network, problem, training, kf.March(), f, features, gradients, exact=exact)


def drawn(seed, replicates=3, rows=5, points=3, exact=False, **apart):
    """A Solution of depth 2 whose replicates scatter about a truth that all seeds share."""
    truth, rng = np.random.default_rng(0), np.random.default_rng(seed)

    def scattered(*shape):
        return truth.standard_normal(shape) + 0.3 * rng.standard_normal((replicates, *shape))

    predictions = scattered(rows, points) * (np.arange(rows) > 0)[:, None]
    features = [np.eye(points)[None, None] / np.sqrt(points), scattered(rows, points, 4), scattered(rows, points, 6)]
    gradients = [scattered(rows, points, 2), scattered(rows, points, 3), np.ones((1, 1, points, 1))]
    return made(predictions, features, gradients, exact, points, **apart)


def dense(solution, row, rows):
    """Replicates (R, entries) of what a row compares: the whole array at once."""
    times = [rows - 1] if row.times == "final" else list(range(rows))
    if row.quantity == "predictions":
        values = solution.estimate("predictions").replicates[:, times]
    else:
        layer = () if row.layer is None else (row.layer,)
        values = solution.estimate(METHODS[row.quantity], *layer, times, times).replicates
    return values.reshape(len(values), -1)


def distance(a, b):
    a, b = a.mean(axis=0), b.mean(axis=0)
    return np.linalg.norm(a - b) / np.linalg.norm(b), a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


def left_out_variance(measure, values):
    each = [measure(np.delete(values, i, axis=0)) for i in range(len(values))]
    return (len(values) - 1) * np.mean((np.array(each) - np.mean(each, axis=0)) ** 2, axis=0)


def squared_se(values):
    return np.sum(values.var(axis=0, ddof=1)) / len(values)


def names(comparison):
    return [row.name for row in comparison.rows if row.times == "all"]


# --- numbers computed by hand


def test_a_case_computed_by_hand():
    x, one = [[[[1.0]]]], [[[[1.0]]]]
    solution = made([[[0.0], [3.0]]], [x, [[[[1.0]], [[2.0]]]]], [[[[[2.0]], [[2.0]]]], one], exact=True)
    reference = made([[[0.0], [2.0]]], [x, [[[[1.0]], [[1.0]]]]], [[[[[1.0]], [[1.0]]]], one], exact=True)
    found = compare(solution, reference)
    assert found.row("predictions").error == pytest.approx(0.5)
    # Phi: [[1, 2], [2, 4]] against ones; G: 4 against 1; NTK = G + Phi: [[5, 6], [6, 8]] against 2
    assert found.row("Phi", layer=1).error == pytest.approx(math.sqrt(11) / 2)
    assert found.row("Phi", layer=1).alignment == pytest.approx(9 / (5 * 2))
    assert found.row("Phi", layer=1, times="final").error == pytest.approx(3)
    assert found.row("G", layer=1).error == pytest.approx(3)
    assert found.row("NTK").error == pytest.approx(math.sqrt(9 + 16 + 16 + 36) / 4)
    assert found.row("NTK", times="final").error == pytest.approx(3)
    assert names(found) == ["predictions", "Phi 1", "G 1", "NTK"] and len(found.rows) == 8


def test_a_kernel_ten_percent_larger_is_ten_percent_off_and_aligned():
    reference = drawn(1)
    found = compare(changed(reference, lambda factor: np.sqrt(1.1) * factor, "Phi"), reference)
    for times in ("all", "final"):
        row = found.row("Phi", layer=2, times=times)
        assert row.error == pytest.approx(0.1) and row.alignment == pytest.approx(1)
    assert found.row("G", layer=2).error == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(("exact", "rounding"), [(True, 1e-14), (False, 1e-7)])
def test_a_solution_agrees_with_itself(exact, rounding):
    solution = drawn(1, replicates=1 if exact else 4, exact=exact)
    for row in compare(solution, solution).rows:
        assert row.error == pytest.approx(0, abs=rounding) and row.alignment == pytest.approx(1, abs=1e-14)


def test_errors_below_the_square_root_of_rounding_are_resolved():
    reference = drawn(1, replicates=1, exact=True)
    solution = changed(reference, lambda factor: (1 + 1e-12) * factor, "Phi")
    assert compare(solution, reference).row("Phi", layer=1).error == pytest.approx(2e-12, rel=1e-3)


# --- the same from whole arrays


@pytest.mark.parametrize("block", [1, 300, 2**22])
def test_blocks_give_the_dense_formula(monkeypatch, block):
    monkeypatch.setattr(importlib.import_module("kernelfield.observables.compare"), "BLOCK_NUMBERS", block)
    solution, reference = drawn(1), drawn(2, replicates=4)
    found = compare(solution, reference)
    assert len(found.rows) == 12
    for row in found.rows:
        whole = distance(dense(solution, row, 5), dense(reference, row, 5))
        assert (row.error, row.alignment) == pytest.approx(whole, rel=1e-10)


def test_standard_errors_are_the_brute_force_jackknife_and_noise_is_that_of_all_entries():
    solution, reference = drawn(1), drawn(2, replicates=4)
    for row in compare(solution, reference).rows:
        a, b = dense(solution, row, 5), dense(reference, row, 5)
        variance = left_out_variance(lambda a, b=b: distance(a, b), a)
        variance += left_out_variance(lambda b, a=a: distance(a, b), b)
        assert (row.error_se, row.alignment_se) == pytest.approx(np.sqrt(variance), rel=1e-8)
        noise = np.sqrt(squared_se(a) + squared_se(b)) / np.linalg.norm(b.mean(axis=0))
        assert row.noise == pytest.approx(noise, rel=1e-10)


@pytest.mark.parametrize("exact_side", [0, 1])
def test_an_exact_side_adds_no_error(exact_side):
    sides = [drawn(1, replicates=4), drawn(2, replicates=4)]
    sides[exact_side] = replace(sides[exact_side], exact=True)
    for row in compare(*sides).rows:
        a, b = (dense(side, row, 5) for side in sides)
        sampled = [b, a][exact_side]
        variance = left_out_variance(lambda some, b=b, a=a: distance(*((a, some), (some, b))[exact_side]), sampled)
        assert (row.error_se, row.alignment_se) == pytest.approx(np.sqrt(variance), rel=1e-8)
        assert row.noise == pytest.approx(np.sqrt(squared_se(sampled)) / np.linalg.norm(b.mean(axis=0)), rel=1e-10)


def test_standard_errors_are_zero_between_exact_solutions_and_unknown_for_a_single_replicate():
    sampled, exact, single = drawn(1), drawn(2, replicates=1, exact=True), drawn(3, replicates=1)
    for row in compare(exact, drawn(4, replicates=1, exact=True)).rows:
        assert row.error > 0.01 and row.error_se == row.noise == row.alignment_se == 0
    for pair in ((single, sampled), (sampled, single), (exact, single)):
        for row in compare(*pair).rows:
            assert np.isfinite([row.error, row.alignment]).all()
            assert np.isnan([row.error_se, row.noise, row.alignment_se]).all()


# --- statistics over many independent sets of replicates


def many(truth, count=400, replicates=8, scatter=0.5):
    """Rows of predictions of `count` independent pairs, about `truth` and about (1, 2, 2)."""
    rng = np.random.default_rng(0)

    def sampled(centre):
        values = np.array(centre) + scatter * rng.standard_normal((replicates, 1, 3))
        return made(np.concatenate([np.zeros_like(values), values], axis=1), points=3)

    return [compare(sampled(truth), sampled([1.0, 2.0, 2.0])).row("predictions") for _ in range(count)]


def test_standard_errors_are_the_spread_over_independent_sets():
    rows = many(truth=[2.0, 2.0, 0.0])
    for name in ("error", "alignment"):
        spread = np.std([getattr(row, name) for row in rows], ddof=1)
        squares = np.array([getattr(row, f"{name}_se") ** 2 for row in rows])
        claimed = np.sqrt(squares.mean())
        uncertain = np.hypot(1 / np.sqrt(2 * len(rows)), squares.std() / squares.mean() / np.sqrt(4 * len(rows)))
        assert claimed / spread == pytest.approx(1, abs=4 * uncertain), name


def test_noise_is_the_error_found_where_both_agree():
    rows = many(truth=[1.0, 2.0, 2.0])
    ratio = np.array([row.error**2 / row.noise**2 for row in rows])
    relative = np.array([row.error**2 for row in rows]).mean() / np.array([row.noise**2 for row in rows]).mean()
    assert relative == pytest.approx(1, abs=4 * ratio.std() / np.sqrt(len(rows)))


def test_two_marches_of_other_scrambles_differ_by_their_noise(small_problem, small_solution):
    method = kf.March(particles=128, replicates=2, seed=7)
    other = kf.solve(small_solution.network, small_problem, small_solution.training, method, progress=False)
    rows = compare(other, small_solution).rows
    assert len(rows) == 12 and all(0 < row.error < 3 * row.noise for row in rows)


# --- what is compared


def test_kernels_that_one_side_lacks_are_left_out():
    full = drawn(1)
    features = without(drawn(2), "G")
    nothing = without(features, "Phi")
    assert names(compare(full, full)) == ["predictions", "Phi 1", "Phi 2", "G 1", "G 2", "NTK"]
    for pair in ((full, features), (features, full)):
        assert names(compare(*pair)) == ["predictions", "Phi 1", "Phi 2"]
    for pair in ((full, nothing), (nothing, features)):
        assert names(compare(*pair)) == ["predictions"]
    assert names(compare(full, without(full, "Phi"))) == ["predictions", "G 1", "G 2"]


def test_a_run_that_ended_early_is_compared_on_the_rows_that_both_have():
    whole, early = drawn(1), drawn(2, rows=3)
    early = with_parts(early, training=whole.training)
    for pair in ((whole, early), (early, whole)):
        for row in compare(*pair).rows:
            expected = distance(*(dense(side, row, 3) for side in pair))
            assert (row.error, row.alignment) == pytest.approx(expected, rel=1e-10)


def test_what_is_zero_has_no_relative_error():
    zero, some = made(np.zeros((2, 3, 1))), made(np.ones((2, 3, 1)))
    against_zero, of_zero = compare(some, zero).row("predictions"), compare(zero, some).row("predictions")
    assert np.isnan([against_zero.error, against_zero.error_se, against_zero.noise, against_zero.alignment]).all()
    assert of_zero.error == pytest.approx(1) and np.isnan(of_zero.alignment)
    assert np.isnan(compare(zero, zero).row("predictions").error)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem": kf.Problem(np.eye(2), [1.0, 1.0])}, r"X must be .* got shapes \(2, 2\) and \(3, 3\)"),
        ({"problem": kf.Problem(1.5 * np.eye(3), np.ones(3))}, "X must be .* got values up to 0.5 apart"),
        ({"problem": kf.Problem(np.eye(3), [1.0, 1.0, -1.0])}, "y must be .* got values up to 2 apart"),
        ({"problem": kf.Problem(np.eye(3), np.ones(3), loss="hinge")}, "loss must be .* got hinge and mse"),
        ({"network": kf.MLP(depth=3)}, "depth must be the same in both solutions, got 3 and 2"),
        ({"training": kf.GradientDescent(learning_rate=0.2, steps=4)}, "learning_rate must be .* got 0.2 and 0.1"),
    ],
)
def test_solutions_of_different_things_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        compare(with_parts(drawn(1), **change), drawn(2))


@pytest.mark.thorough
def test_all_outputs_are_compared_at_once(several_outputs):
    method = kf.FiniteWidth(width=64, seeds=3, kernels="per_output")
    finite = kf.solve(
        several_outputs.network, several_outputs.problem, several_outputs.training, method, progress=False
    )
    found = compare(finite, several_outputs)
    assert names(found) == ["predictions", "Phi 1", "Phi 2", "G 1", "G 2", "NTK"]
    for row in found.rows:
        whole = distance(dense(finite, row, 4), dense(several_outputs, row, 4))
        assert (row.error, row.alignment) == pytest.approx(whole, rel=1e-6)
        assert row.error < 4 * row.noise
    assert names(compare(without(finite, "G"), several_outputs)) == ["predictions", "Phi 1", "Phi 2"]


def test_training_rules_must_agree_and_full_batches_are_gradient_descent():
    reference, descent = drawn(2), kf.GradientDescent(learning_rate=0.1, steps=4)
    for settings, message in (
        ({"momentum": 0.5}, "momentum must be the same in both solutions, got 0.5 and 0.0"),
        ({"weight_decay": 0.5}, "weight_decay must be .* got 0.5 and 0.0"),
        ({"schedule": "linear"}, "schedule must be .* got 'linear' over 4 steps and 'constant' over 4 steps"),
        ({"schedule": [1.0, 1.0, 1.0, 0.5]}, "schedule must be .* got another one over 4 steps"),
    ):
        with pytest.raises(ValueError, match=message):
            compare(with_parts(drawn(1), training=descent.model_copy(update=settings)), reference)
    listed = descent.model_copy(update={"schedule": [1.0, 1.0, 1.0, 1.0]})
    full = kf.SGD(learning_rate=0.1, batch_size=3, epochs=4)
    for same in (listed, full):
        assert compare(with_parts(drawn(1), training=same), reference).rows
    batches = full.model_copy(update={"batch_size": 2})
    with pytest.raises(ValueError, match=r"batches must be .* got batches of 2 of seed 0 and all points"):
        compare(with_parts(drawn(1), training=batches), reference)
    with pytest.raises(ValueError, match="got batches of 2 with replacement of seed 1 and batches of 2 of seed 0"):
        other = batches.model_copy(update={"replacement": True, "seed": 1})
        compare(with_parts(drawn(1), training=other), with_parts(reference, training=batches))


# --- looking at it


def test_a_row_that_was_not_compared_says_which_were():
    found = compare(drawn(1), drawn(2))
    assert found.row("G", layer=2, times="final") is found.rows[-2]
    with pytest.raises(ValueError, match=r"Phi 3 at all times was not compared; .*: predictions, Phi 1, .*, NTK"):
        found.row("Phi", layer=3)


def test_records_are_json_with_nan_as_null():
    found = compare(drawn(1), drawn(2, replicates=1))
    records = json.loads(json.dumps(found.to_records(), allow_nan=False))
    assert [record["layer"] for record in records] == 2 * [None, 1, 2, 1, 2, None]
    assert all(record["error_se"] is None for record in records)
    assert records[1]["error"] == found.row("Phi", layer=1).error and records[1]["times"] == "all"


def test_the_table_shows_every_row_with_the_digits_that_are_known(capsys):
    row = compare(drawn(1), drawn(2)).row("Phi", layer=1)
    row = replace(row, error=0.123456, error_se=0.0123, noise=0.034, alignment=0.98765, alignment_se=0.0021)
    unknown = replace(row, quantity="NTK", layer=None, times="final", error_se=math.nan, noise=math.nan)
    unknown = replace(unknown, alignment=math.nan)
    tiny = replace(row, layer=2, error=3e-12, error_se=2e-13, noise=0.0, alignment=1.0, alignment_se=0.0)
    Console(width=80).print(replace(compare(drawn(1), drawn(2)), rows=(row, tiny, unknown)).table())
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "Phi 1 all 12.3 ± 1.2 3.4 0.988 ± 0.002" in lines
    assert "Phi 2 all 3e-10 ± 2e-11 0 1" in lines
    assert "NTK final 12.3 - -" in lines


def kept_at(steps, seed=0):
    """A march whose kernels were kept at some steps alone."""
    problem, training = kf.Problem(np.eye(3), [1.0, -1.0, 0.5]), kf.GradientDescent(learning_rate=0.2, steps=4)
    method = kf.March(particles=64, replicates=2, seed=seed)
    return kf.solve(kf.MLP(depth=1), problem, training, method, save_at=steps, progress=False)


def test_kernels_are_compared_at_the_steps_that_both_kept():
    some, other, never = kept_at([0, 2, 4]), kept_at([2, 3, 4], seed=1), kept_at([1, 3])
    row = compare(other, some).row("Phi", layer=1)
    one, two = (solution.feature_kernel(1, [2, 4], [2, 4]) for solution in (other, some))
    assert row.error == pytest.approx(np.linalg.norm(one - two) / np.linalg.norm(two))
    without_final = compare(kept_at([1, 3], seed=1), never)
    assert [(each.name, each.times) for each in without_final.rows if each.quantity == "Phi"] == [("Phi 1", "all")]
    assert not [row for row in compare(some, never).rows if row.quantity != "predictions"]
    aligned = kf.observables.cosine_alignment(other, some, "Phi", 1)
    assert aligned.mean.shape == (2,) and (aligned.mean > 0.9).all()
    with pytest.raises(ValueError, match="step"):
        kf.observables.cosine_alignment(some, never, "Phi", 1)
