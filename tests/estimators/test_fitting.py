"""Models of tables, and the commands that learn from them and predict."""

import json
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import r2_score

import kernelfield as kf
from commands import exit_code
from kernelfield.cli import app
from kernelfield.datasets.columns import Columns
from kernelfield.estimators.fitting import _doubt_length, _r2, fit, predict, restore
from suites import keep_fast

RNG = np.random.default_rng(0)
TABLE = pandas.DataFrame(
    {
        "size": RNG.normal(100, 20, 60).round(3),
        "colour": RNG.choice(["red", "blue"], 60),
        "same": np.ones(60),
    }
)
TABLE["price"] = 5 * np.tanh((TABLE["size"] - 100) / 20) + 2 * (TABLE.colour == "red") + 50
TABLE["kind"] = np.where(TABLE.price > TABLE.price.median(), "dear", "cheap")
PRICES, KINDS = TABLE.drop(columns="kind"), TABLE.drop(columns="price")
SMALL = {"depth": 1, "max_steps": 40, "width": 32}
NOTES = ("kernelfield: infinite width on", "kernelfield: the static kernel, a network")  # what comes next


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with tables, and no compilation cache switched on for later tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(app, "_cache_compilations", lambda: None)
    PRICES.to_csv("prices.csv", index=False)
    KINDS.to_csv("kinds.csv", index=False)
    PRICES.drop(columns="price").iloc[:7].to_csv("new.csv", index=False)
    (tmp_path / "empty.csv").write_text("a,b\n")
    (tmp_path / "gap.csv").write_text("a,b\n" + "1,2\n" * 19 + ",2\n")
    return tmp_path


def test_columns_are_standardized_and_texts_become_one_input_for_each():
    columns = Columns.of(PRICES, "price").standardized(PRICES)
    X = columns.matrix(PRICES)
    assert columns.classes is None and X.shape == (60, 4)
    np.testing.assert_allclose(X[:, :3].mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(X[:, :3].std(axis=0), 1)
    assert not X[:, 3].any()  # a constant tells nothing
    red = X[(PRICES.colour == "red").to_numpy()]
    assert np.ptp(red[:, 1:3], axis=0).max() == 0 and red[0, 1] < 0 < red[0, 2]
    np.testing.assert_array_equal(columns.matrix(PRICES.iloc[:3]), X[:3])  # as in training, whatever the table
    assert Columns(**json.loads(columns.model_dump_json())) == columns


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        ([1, 2, 3], None, None),
        ([1, 2, 1], "classification", [1, 2]),
        ([True, False, True], None, [False, True]),
        (["b", "a", "b"], None, ["a", "b"]),
    ],
)
def test_the_target_tells_the_task_unless_it_is_given(values, task, classes):
    table = pandas.DataFrame({"x": [1.0, 2.0, 3.0], "y": values})
    assert Columns.of(table, "y", task).classes == classes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns="size"), r"there is no column 'size'"),
        (lambda table: table.assign(size="big"), "column 'size' must hold numbers, as in training"),
        (lambda table: table.assign(size=np.inf), "column 'size' must be finite"),
        (
            lambda table: table.assign(colour=["green", *table.colour[1:]]),
            "column 'colour' has 'green', which training",
        ),
        (lambda table: table.assign(size=[np.nan, *table["size"][1:]]), "column 'size' lacks 1 of 60 values"),
    ],
)
def test_rows_that_do_not_fit_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        Columns.of(PRICES, "price").matrix(change(PRICES))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: Columns.of(PRICES, "prise"), r"there is no column 'prise' \(did you mean 'price'\?\)"),
        (lambda: Columns.of(PRICES[["price"]], "price"), "no column beside the target 'price'"),
        (lambda: Columns.of(KINDS, "kind", "regression"), "column 'kind' must hold numbers for a regression"),
        (lambda: Columns.of(PRICES, "same", "classification"), "must hold two classes or more, got 1.0 alone"),
        (lambda: fit(PRICES.iloc[:10], "price"), "a table of 20 rows or more is needed, got 10"),
        (
            lambda: fit(KINDS.assign(kind=["odd", *KINDS.kind[1:]]), "kind"),
            "column 'kind' has 'odd' in 1 rows alone: 3 or more",
        ),
    ],
)
def test_tables_that_cannot_be_learned_are_named(ask, message):
    with pytest.raises(ValueError, match=message):
        ask()


@pytest.mark.thorough
def test_a_model_is_chosen_tested_stored_and_predicts_as_it_did(folder):
    found = fit(PRICES, "price", gammas=(0.0, 1.0), **SMALL)
    assert list(found.model.validation_losses_) == [0.0, 1.0] and found.rows == (48, 12)
    names = [f"infinite width, gamma0 = {found.model.gamma0_:g}", "infinite width, NTK", "network of width 32"]
    assert [each.name for each in found.scores] == [*names, "kernel ridge, RBF", "gradient boosting"]
    assert min(each.value for each in found.scores[:4]) > 0.8 and all(0 < each.error < 0.5 for each in found.scores)
    found.solution().save(folder / "model.nc", predictor=True)
    again = predict(kf.load(folder / "model.nc"), PRICES)
    mean, error = found.model.predict(found.columns.matrix(PRICES), return_std=True)
    np.testing.assert_array_equal(again.price_predicted, mean)
    np.testing.assert_array_equal(again.price_solver_error, error)
    assert r2_score(PRICES.price, again.price_predicted) > 0.8
    assert list(again.columns[:4]) == list(PRICES.columns)
    with pytest.raises(ValueError, match="it is not a model of a table"):
        restore(found.model.solution_)


def test_the_commands_fit_and_predict(folder, capsys):
    options = ["--gamma0", "0", "--depth", "1", "--max-steps", "40", "--width", "32"]
    assert exit_code("fit", "kinds.csv", "--target", "kind", "-o", "model.nc", *options) == 0
    printed = capsys.readouterr().out
    assert "network of width 32" in printed and "wrote model.nc: trained on 48 rows, tested on 12" in printed
    assert exit_code("predict", "model.nc", "new.csv", "-o", "out.csv", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"wrote": "out.csv", "rows": 7}
    out = pandas.read_csv("out.csv")
    assert (out.kind_predicted == KINDS.kind[:7]).mean() > 0.8
    np.testing.assert_allclose(out.probability_cheap + out.probability_dear, 1)


@pytest.mark.thorough
def test_fit_speaks_json_of_a_regression(folder, capsys):
    options = ["--gamma0", "0", "--depth", "1", "--max-steps", "40", "--width", "32"]
    assert exit_code("fit", "prices.csv", "--target", "price", "-o", "b.nc", "--json", *options) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["gamma0"] == 0 and record["scores"]["kernel ridge, RBF"]["R^2"] > 0.8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "none.csv", "--target", "y", "-o", "a.nc"], "none.csv does not exist"),
        (["fit", "empty.csv", "--target", "a", "-o", "a.nc"], "empty.csv holds no rows of data"),
        (["fit", "gap.csv", "--target", "b", "-o", "a.nc"], "column 'a' lacks 1 of 20 values: fill them in"),
        (["fit", "prices.csv", "--target", "prise", "-o", "a.nc"], "no column 'prise' (did you mean 'price'?)"),
        (["fit", "prices.csv", "--target", "price", "--gamma0", "-1", "-o", "a.nc"], "--gamma0 must be numbers"),
        (["fit", "prices.csv", "--target", "price", "--task", "clustering", "-o", "a.nc"], "--task must be"),
        (["fit", "prices.csv", "--target", "price", "-o", "none/a.nc"], "the folder none for a.nc does not exist"),
        (["predict", "none.nc", "new.csv", "-o", "out.csv"], "none.nc does not exist"),
        (["predict", "prices.csv", "new.csv", "-o", "new.csv"], "the predictions would replace new.csv"),
    ],
)
def test_bad_requests_are_one_line_and_change_nothing(folder, capsys, arguments, message):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert exit_code(*arguments) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and len(error.splitlines()) == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.thorough
def test_categories_that_only_the_test_rows_have_and_rows_that_are_left_out(folder):
    rare = KINDS.assign(colour=["grey", *KINDS.colour[1:]])
    for seed in (0, 1):  # with it among the rows that train, and among those that test
        found = fit(rare, "kind", gammas=(0.0,), points=20, seed=seed, **SMALL)
        assert found.rows == (20, 12) and found.columns.inputs[1].categories == ["blue", "grey", "red"]
        assert np.isfinite(found.columns.matrix(rare)).all()
        assert restore(found.solution())[0].classes_.tolist() == found.model.classes_.tolist() == ["cheap", "dear"]


@pytest.mark.parametrize(("unit", "last"), [("step", 3), ("epoch", 2)])
def test_a_search_that_ends_before_the_loss_is_least_says_so(unit, last):
    def doubts(losses):
        solution = SimpleNamespace(training=SimpleNamespace(unit=unit))
        settings = {"gamma0_": 1.0, "max_steps": 3, "max_epochs": 2, "solution_": solution}
        return _doubt_length(SimpleNamespace(validation_losses_={1.0: np.array(losses)}, **settings))

    falling = [4.0, 3.0, 2.0, 1.0][: last + 1]
    words = f"the validation loss was least after all {last} {unit}s: more of them (max_{unit}s) may be better"
    assert doubts(falling) == [words] and doubts([*falling[:-1], 9.0]) == []


def test_constant_targets_and_inputs_are_fitted_with_a_caution():
    small = {**SMALL, "gammas": (0.0, 1.0)}
    flat = fit(PRICES.assign(price=2.5)[["size", "price"]], "price", **small)
    assert flat.cautions == ["column 'price' is 2.5 in all rows that train: R^2 is not defined"]
    assert flat.model.n_iter_ == 1 and np.isnan([score.value for score in flat.scores]).all()
    blind = fit(PRICES[["same", "price"]], "price", **{**small, "gammas": (0.0,)})
    assert blind.cautions == ["all inputs are constant: so are the predictions"]
    assert np.ptp(predict(blind.solution(), PRICES).price_predicted) < 1e-9


HARD = {  # tables of 24 rows, as bytes; what `fit` says of them, its options, and its exit code
    "constant inputs": ("a,b,y\n" + "1,2,{y}\n", [], 0, "all inputs are constant: so are the predictions"),
    "one constant input": ("a,y\n" + "7,{y}\n", ["--gamma0", "1"], 0, "all inputs are constant"),
    "constant target": ("a,y\n" + "{y},3\n", [], 0, "column 'y' is 3 in all rows that train: R^2 is not defined"),
    "semicolons": ("a;b;y\n" + "{y};1,5;{i}\n", [], 0, "column 'b' has decimal commas: '1,5' is 1.5"),
    "a separator of its own": ("a~y\n" + "{y}~{i}\n", ["--separator", "~"], 0, "wrote"),
    "an index": (",a,y\n" + "{i},{y},{y}\n", [], 0, "the column without a name is left out: it numbers the rows"),
    "dates": ("day,y\n" + "2024-01-{i:02d},{y}\n", [], 0, "column 'day' holds dates"),
    "identifiers": ("id,a,y\n" + "1000000000000000000000{i:02d},{y},{y}\n", [], 0, "'id' is left out: its numbers are"),
    "money": ("a,y\n" + '"$1,{i:03d}.50",{y}\n', [], 0, "wrote"),
    "duplicates": ("a,y\n" + "{same},{same}\n", [], 0, "wrote"),
    "latin-1": ("größe,y\n" + "{y},{i}\n", [], 2, "is not a text in UTF-8: give its encoding, such as latin-1"),
    "latin-1, named": ("größe,y\n" + "{y},{i}\n", ["--encoding", "latin-1"], 0, "wrote"),
    "NA": ("a,c,y\n" + "{y},NA,{i}\n", ["--inputs", "a,c"], 2, "column 'c' lacks 24 of 24 values"),
    "NA, kept": ("a,c,y\n" + "{y},NA,{i}\n", ["--keep-na"], 0, "wrote"),
    "a real target as classes": ("a,y\n" + "{i},{y}\n", ["--task", "classification"], 2, "numbers, no classes"),
    "one class": ("a,y\n" + "{i},cat\n", [], 2, "column 'y' must hold two classes or more, got cat alone"),
    "no other column": ("y\n" + "{y}\n", [], 2, "there is no column beside the target 'y'"),
    "an unknown encoding": ("a,y\n" + "{y},{i}\n", ["--encoding", "klingon"], 2, "encoding 'klingon' is unknown"),
}
FAST = [name for name, case in HARD.items() if case[2] == 2]  # those that are refused


@pytest.mark.parametrize("name", keep_fast(HARD, *FAST))
def test_hard_tables_on_the_command_line(folder, capsys, name):
    """`fit` writes a model that `predict` takes, or says why not in a line and writes nothing."""
    text, options, code, message = HARD[name]
    header, row = text.split("\n")[:2]
    values = np.random.default_rng(1).normal(size=24).round(3)
    lines = [row.format(i=i + 1, y=y, same=values[i // 2]) for i, y in enumerate(values)]
    (folder / "hard.csv").write_bytes("\n".join([header, *lines]).encode("latin-1"))
    before = {path.name for path in folder.iterdir()}
    options = ["--gamma0", "0,1", "--depth", "1", "--max-steps", "10", "--width", "8", *options]
    found = exit_code("fit", "hard.csv", "--target", "y", "-o", "model.nc", *options)
    printed = capsys.readouterr()
    assert found == code, printed.err
    if code:
        assert message in printed.err and printed.err.count("\n") == 1 and not printed.out
        assert {path.name for path in folder.iterdir()} == before
        return
    assert message in printed.out and "wrote model.nc" in printed.out
    ways = [option for option in options if option in ("--separator", "--encoding", "--keep-na", "~", "latin-1")]
    assert exit_code("predict", "model.nc", "hard.csv", "-o", "out.csv", *ways) == 0
    assert np.isfinite(pandas.read_csv("out.csv").y_predicted).all()


def test_the_error_of_r2_is_that_of_resampled_points():
    rng = np.random.default_rng(0)
    y = rng.standard_normal(50)
    near = y + 0.5 * rng.standard_normal(50)
    value, error = _r2(y, near)
    resampled = [r2_score(y[rows], near[rows]) for rows in np.random.default_rng(1).integers(50, size=(400, 50))]
    assert value == r2_score(y, near) and error == pytest.approx(np.std(resampled), rel=0.15)
    assert np.isfinite(_r2(np.eye(1, 20)[0], np.zeros(20))).all()  # most draws are of equal targets


@pytest.mark.thorough
def test_truth_values_of_new_rows_may_be_numbers(folder):
    flags = KINDS.assign(flag=KINDS.colour == "red").drop(columns="colour")
    model = fit(flags, "kind", gammas=(0.0,), **SMALL)
    words, numbers = (predict(model.solution(), flags.assign(flag=values)) for values in (flags.flag, 1 * flags.flag))
    np.testing.assert_array_equal(words.kind_predicted, numbers.kind_predicted)


ARGUMENTS = st.fixed_dictionaries(
    {
        "--gamma0": st.sampled_from(["0", "0,1", "", "x", "-1", "nan", "1e400"]),
        "--depth": st.sampled_from(["1", "0", "one"]),
        "--activation": st.sampled_from(["erf", "relu", "tahn"]),
        "--max-steps": st.sampled_from(["2", "0"]),
        "--batch-size": st.sampled_from(["8", "10000", "-3"]),
        "--task": st.sampled_from(["regression", "classification", "clustering"]),
        "--separator": st.sampled_from([",", ";", "tab", "::"]),
        "--encoding": st.sampled_from(["utf-8", "latin-1", "utf-16", "klingon"]),
        "--inputs": st.sampled_from(["a", "a,b", "y", ""]),
        "--points": st.sampled_from(["10", "9", "100000"]),
    }
)
CELLS = st.sampled_from(["0", "1", "2.5", "-3e300", "1e-300", "x", "y", "NA", "", "inf", "1,5", '"', "2024-01-01"])


@pytest.mark.thorough
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arguments=ARGUMENTS,
    chosen=st.sets(st.sampled_from(["--gamma0", "--activation", "--task", "--inputs", "--separator", "--batch-size"])),
    seed=st.integers(0, 2**31),
    cells=st.lists(CELLS, min_size=0, max_size=6),
    rows=st.sampled_from([0, 1, 19, 20, 30, 40]),
)
def test_any_command_writes_a_model_or_nothing_and_says_why_in_a_line(
    folder, capsys, arguments, chosen, seed, cells, rows
):
    rng = np.random.default_rng(seed)
    columns = [rng.normal(size=rows).round(3).astype(str), rng.choice(["u", "v"], rows), rng.normal(size=rows)]
    table = [[str(column[row]) for column in columns] for row in range(rows)]
    for cell in cells[: 3 * rows]:  # some cells hold other things
        table[rng.integers(rows)][rng.integers(3)] = cell
    (folder / "any.csv").write_text("a,b,y\n" + "\n".join(map(",".join, table)))
    (folder / "any.nc").unlink(missing_ok=True)
    before = {path.name for path in folder.iterdir()}
    options = ["--depth", "1", "--max-steps", "2", "--max-epochs", "2", "--width", "8"]
    options += [word for name in sorted(chosen) for word in (name, arguments[name])]
    capsys.readouterr()
    code = exit_code("fit", "any.csv", "--target", "y", "-o", "any.nc", *options)
    printed = capsys.readouterr()
    if code:
        assert code in (1, 2) and "unexpected" not in printed.err and "Traceback" not in printed.err, printed.err
        assert {path.name for path in folder.iterdir()} == before
        assert len([line for line in printed.err.splitlines() if not line.startswith(NOTES)]) == 1
    else:
        assert {path.name for path in folder.iterdir()} == before | {"any.nc"}
