"""Models of tables, and the commands that learn from them and predict."""

import json

import numpy as np
import pandas
import pytest
from sklearn.metrics import r2_score

import kernelfield as kf
from commands import exit_code
from kernelfield.cli import app
from kernelfield.datasets.columns import Columns
from kernelfield.estimators.fitting import fit, predict, restore

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


def test_constant_targets_and_inputs_are_fitted_with_a_caution():
    small = {**SMALL, "gammas": (0.0, 1.0)}
    flat = fit(PRICES.assign(price=2.5)[["size", "price"]], "price", **small)
    assert flat.cautions == ["column 'price' is 2.5 in all rows that train: R^2 is not defined"]
    assert flat.model.n_iter_ == 1 and np.isnan([score.value for score in flat.scores]).all()
    blind = fit(PRICES[["same", "price"]], "price", **{**small, "gammas": (0.0,)})
    assert blind.cautions == ["all inputs are constant: so are the predictions"]
    assert np.ptp(predict(blind.solution(), PRICES).price_predicted) < 1e-9
