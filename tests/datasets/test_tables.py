"""Tables of all kinds that people have are read as they mean them, or refused in a sentence that says why."""

import json
import warnings

import numpy as np
import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernelfield.datasets.columns import Columns
from kernelfield.datasets.specs import TableData
from kernelfield.datasets.tables import read_table
from suites import thorough

ROWS = [(0.5 * i - 3.25, ["red", "blue", "green"][i % 3], i * 0.1) for i in range(24)]
PLAIN = "size,colour,y\n" + "".join(f"{a},{b},{c:g}\n" for a, b, c in ROWS)


def with_column(name, texts):
    """A table of the rows above with one more column; texts with commas are put into quotation marks."""
    quoted = [f'"{text}"' if "," in text else text for text in texts]
    lines = PLAIN.splitlines()
    return "\n".join([f"{lines[0]},{name}", *(f"{line},{text}" for line, text in zip(lines[1:], quoted, strict=True))])


def read(tmp_path, content, **options):
    path = tmp_path / "data.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path, **options)


def columns_of(tmp_path, content, target="y", **options):
    table = read(tmp_path, content, **options)
    return Columns.of(table, target), table


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (PLAIN.encode("utf-8-sig"), {}),
        (PLAIN.encode("utf-16"), {}),
        (PLAIN.encode("utf-16-be"), {"encoding": "utf-16-be"}),
        (PLAIN.replace(",", ";").encode(), {}),
        (PLAIN.replace(",", "\t").encode(), {}),
        (PLAIN.replace(",", "|").encode(), {}),
        (PLAIN.replace(",", "~").encode(), {"separator": "~"}),
        (PLAIN.replace(",", "   ").encode(), {"separator": "space"}),
        (PLAIN.replace(",", "\t").encode(), {"separator": "tab"}),
        (PLAIN.replace("\n", "\r\n").encode(), {}),
        (PLAIN.replace(",", " , ").encode(), {}),
        (PLAIN.replace("\n", "\n\n").encode(), {}),
        (PLAIN.replace("red", '"red"').encode(), {}),
    ],
)
def test_encodings_and_separators_are_recognized_or_given(tmp_path, content, options):
    expected, table = columns_of(tmp_path, PLAIN)
    found, same = columns_of(tmp_path, content, **options)
    assert found == expected and same.equals(table)


def test_the_separator_is_the_one_that_divides_all_lines_alike(tmp_path):
    text = "a;b;y\n" + "".join(f"1,5;{i},25;{i}\n" for i in range(30))
    columns, table = columns_of(tmp_path, text)
    np.testing.assert_allclose(columns.inputs[0].encode(table), 1.5)
    np.testing.assert_allclose(columns.inputs[1].encode(table)[:, 0], np.arange(30) + 0.25)
    assert columns.cautions[0] == "column 'a' has decimal commas: '1,5' is 1.5"


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (
            "größe,y\n1,2\n".encode("latin-1"),
            {},
            r"data.csv is not a text in UTF-8: give its encoding, such as latin-1",
        ),
        (PLAIN.encode("utf-16-le"), {}, "it holds zero bytes; if it is UTF-16, give the encoding utf-16-le"),
        (PLAIN, {"encoding": "klingon"}, "encoding 'klingon' is unknown"),
        (PLAIN, {"separator": "::"}, "separator must be one character, or tab or space, got '::'"),
        ("a,b,a\n1,2,3\n", {}, "has two columns named 'a': rename one"),
        (",,a\n1,2,3\n", {}, "has 2 columns without a name: name them"),
        ("0.5,1.25,red\n" * 9, {}, "has no header: its first line, which names the columns, holds numbers"),
        ("a,b\n1,2\n1,2,3\n", {}, "is not a table of separated values: .*line 3, saw 3"),
        ('a,b\n"1,2\n', {}, "is not a table of separated values"),
        ("", {}, "is not a table of separated values"),
        ("a,b\n", {}, "holds no rows of data"),
    ],
)
def test_files_that_are_no_tables_are_refused_in_a_sentence(tmp_path, content, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, content, **options)
    assert "\n" not in str(caught.value).strip()


VALUES = np.array([1234.5, -200.25, 0.0, 1e6] * 6)


@pytest.mark.parametrize(
    "texts",
    [
        [f"{value:,.2f}" for value in VALUES],
        [f"${value:,.2f}" for value in VALUES],
        [f"{value:,.2f} €" for value in VALUES],
        [f"{value:.2f}%" for value in VALUES],
        [f"({-value:,.2f})" if value < 0 else f"{value:,.2f}" for value in VALUES],
        [f"{value:,.2f}".replace("-", "\u2212") for value in VALUES],
        [f"{value:,.2f}".replace(",", "'") for value in VALUES],
        [f"{value:,.2f}".replace(",", "\u202f") for value in VALUES],
        [f"{value:,.2f}".replace(",", " ").replace(".", ",") for value in VALUES],
        [f"{value:,.2f}".translate(str.maketrans(",.", ".,")) for value in VALUES],
        [f"{value:e}" for value in VALUES],
    ],
)
def test_a_column_is_of_numbers_where_it_reads_so_as_a_whole(tmp_path, texts):
    columns, table = columns_of(tmp_path, with_column("price", texts))
    assert columns.inputs[2].kind == "number"
    np.testing.assert_allclose(columns.inputs[2].encode(table)[:, 0], VALUES)
    new = pandas.DataFrame({"price": texts[:3]})
    np.testing.assert_allclose(columns.inputs[2].encode(new)[:, 0], VALUES[:3])
    np.testing.assert_allclose(Columns.of(table, "price").targets(table), VALUES)


@pytest.mark.parametrize(
    ("form", "doubt"),
    [
        ("%Y-%m-%d", ""),
        ("%Y-%m-%dT%H:%M:%S", ""),
        ("%d.%m.%Y", ""),
        thorough("%m/%d/%Y", ""),
        thorough("%d %B %Y", ""),
        thorough("%b %d, %Y", ""),
    ],
)
def test_dates_are_days_and_a_caution_says_so(tmp_path, form, doubt):
    days = pandas.date_range("2024-01-20", periods=24)
    columns, table = columns_of(tmp_path, with_column("date", list(days.strftime(form))))
    assert columns.inputs[2].kind == "date"
    np.testing.assert_allclose(np.diff(columns.inputs[2].encode(table)[:, 0]), 1)
    assert columns.cautions == ("column 'date' holds dates: days since 1970 are its numbers",)
    with pytest.raises(ValueError, match="column 'date' must hold dates, as in training, but data row 1 has 'soon'"):
        columns.inputs[2].encode(pandas.DataFrame({"date": ["soon"]}))


def test_dates_that_can_be_read_in_two_ways_say_so(tmp_path):
    columns, _ = columns_of(tmp_path, with_column("date", [f"0{i % 9 + 1}/02/2024" for i in range(24)]))
    assert "in the format %d/%m/%Y, which %m/%d/%Y could be as well" in columns.cautions[0]


@pytest.mark.parametrize(
    ("name", "texts", "reason"),
    [
        ("", [str(i) for i in range(24)], "column without a name is left out: it numbers the rows"),
        ("customer_id", [str(7 * i) for i in range(24)], "column 'customer_id' is left out: it numbers the rows"),
        ("code", [f"{10**25 + i}" for i in range(24)], "'code' is left out: its numbers are too long"),
        ("code", [f"A{i}x" for i in range(24)], "'code' is left out: every row has another text"),
        ("note", [""] * 24, "'note' is left out: it is empty"),
    ],
)
def test_columns_that_only_tell_rows_apart_are_left_out_with_a_caution(tmp_path, name, texts, reason):
    columns, table = columns_of(tmp_path, with_column(name, texts))
    assert [column.name for column in columns.inputs] == ["size", "colour"] and reason in columns.cautions[0]
    if name == "customer_id":
        named = Columns.of(table, "y", inputs=["customer_id"])
        assert named.inputs[0].kind == "number" and not named.cautions


def test_numbers_that_are_all_different_are_inputs(tmp_path):
    for texts in ([str(i) for i in range(24)], [f"{i}.5" for i in range(24)], [f"{i},000" for i in range(1, 25)]):
        columns, _ = columns_of(tmp_path, with_column("area", texts))
        assert columns.inputs[2].name == "area" and columns.inputs[2].kind == "number"


@pytest.mark.parametrize("texts", [["True", "False"], ["yes", "NO"], ["T", "f"], ["on", "off"], ["Yes", "0"]])
def test_truth_values_are_read_in_any_spelling(tmp_path, texts):
    columns, _ = columns_of(tmp_path, with_column("flag", texts * 12))
    assert columns.inputs[2].kind == "boolean"
    for new in (["1", "0"], [True, False], [1, 0], ["TRUE", "no"]):
        np.testing.assert_array_equal(columns.inputs[2].encode(pandas.DataFrame({"flag": new})), [[1], [0]])
    with pytest.raises(ValueError, match="column 'flag' must hold truth values, as in training, but data row 1 has"):
        columns.inputs[2].encode(pandas.DataFrame({"flag": [2, 1]}))


def test_na_is_missing_unless_it_is_quoted_or_kept(tmp_path):
    texts = ["NA", "EU", "null"] * 8
    with pytest.raises(ValueError, match=r"column 'region' lacks 16 of 24 values: .*or keep NA as a text"):
        columns_of(tmp_path, with_column("region", texts))
    kept, _ = columns_of(tmp_path, with_column("region", texts), keep_na=True)
    quoted, table = columns_of(tmp_path, with_column("region", [f'"{text}"' for text in texts]))
    assert kept.inputs[2].categories == quoted.inputs[2].categories == ["EU", "NA", "null"]
    assert table.region[0] == "NA"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([*map(str, range(23)), "many"], r"column 'z' holds numbers, but data row 24 has 'many': mend it"),
        ([f"{i} kg" if i else "2 lb" for i in range(23)] + ["2 lb"], None),
    ],
)
def test_texts_among_numbers_are_named(tmp_path, texts, message):
    if message is None:
        assert columns_of(tmp_path, with_column("z", texts))[0].inputs[2].kind == "category"
        return
    with pytest.raises(ValueError, match=message):
        columns_of(tmp_path, with_column("z", texts))


def test_too_many_categories_are_refused_with_advice():
    table = pandas.DataFrame({"word": [f"w{i // 2}" for i in range(400)], "y": np.arange(400.0)})
    with pytest.raises(ValueError, match="column 'word' has 200 different texts, more than 100: mend it, or leave"):
        Columns.of(table, "y")
    with pytest.raises(ValueError, match="column 'word' has 200 different values in 400 rows, too many for classes"):
        Columns.of(table, "word")
    with pytest.raises(ValueError, match="column 'y' holds 400 different numbers, no classes: take task='regression'"):
        Columns.of(table.assign(word="a"), "y", "classification")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z": 1j}, "column 'z' must hold real numbers, got complex ones"),
        ({"z": np.inf}, "column 'z' must be finite"),
        ({"z": np.nan, "w": "a"}, None),
    ],
)
def test_arrays_that_are_no_inputs_are_refused(change, message):
    table = pandas.DataFrame({"x": np.arange(24.0), "y": np.arange(24.0)}).assign(**change)
    if message is None:
        assert [column.name for column in Columns.of(table, "y").inputs] == ["x", "w"]
        return
    with pytest.raises(ValueError, match=message):
        Columns.of(table, "y")


def test_columns_are_stored_as_json_and_read_those_of_older_models():
    table = pandas.DataFrame({"a": ["x", "y"] * 12, "b": np.arange(24.0), "y": np.arange(24.0)})
    columns = Columns.of(table, "y").standardized(table)
    assert Columns(**json.loads(columns.model_dump_json())) == columns
    old = {"inputs": [{"name": "a", "categories": ["x", "y"]}, {"name": "b", "categories": None}], "target": "y"}
    np.testing.assert_array_equal(Columns(**old).matrix(table)[:, 2], table.b)


def test_configurations_read_the_same_tables(tmp_path):
    (tmp_path / "a.csv").write_bytes(PLAIN.replace(",", ";").encode("utf-8-sig"))
    problem = TableData(path="a.csv", inputs="size").problem(tmp_path)
    np.testing.assert_allclose(problem.X[:, 0], [row[0] for row in ROWS])
    with pytest.raises(ValueError, match="column 'colour' must hold numbers"):
        TableData(path="a.csv").problem(tmp_path)
    labels = TableData(path="a.csv", inputs="size", target="colour", loss="cross_entropy").problem(tmp_path)
    assert labels.classes.tolist() == ["blue", "green", "red"] and labels.y.shape == (24, 3)
    (tmp_path / "b.csv").write_text(",x,y\n" + "".join(f"{i},{i * i},{i}\n" for i in range(12)))
    with pytest.warns(UserWarning, match="the column without a name is left out"):
        assert TableData(path="b.csv").problem(tmp_path).X.shape == (12, 1)
    (tmp_path / "c.csv").write_bytes("größe,y\n1,2\n2,3\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"c.csv is not a text in UTF-8: give its encoding"):
        TableData(path="c.csv").problem(tmp_path)
    assert TableData(path="c.csv", encoding="latin-1").problem(tmp_path).X.tolist() == [[1], [2]]


CELLS = st.one_of(
    st.floats(-1e9, 1e9).map(str),
    st.integers(-(10**30), 10**30).map(str),
    st.sampled_from(
        ["", "NA", "yes", "no", "1,234", "$5", "3%", "2024-02-30", "a,b", "inf", "nan", '"', "'", "-", "é"]
    ),
    st.text(max_size=5),
)


@pytest.mark.thorough
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.lists(CELLS, min_size=1, max_size=4), min_size=0, max_size=30),
    encoding=st.sampled_from(["utf-8", "utf-16", "latin-1", "cp1252"]),
    separator=st.sampled_from([",", ";", "\t", "|"]),
)
def test_any_file_is_read_or_refused_in_one_sentence(tmp_path, rows, encoding, separator):
    path = tmp_path / "any.csv"
    path.write_bytes("\n".join(separator.join(row) for row in rows).encode(encoding, errors="replace"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = read_table(path)
            columns = Columns.of(table, table.columns[-1]).standardized(table)
        assert np.isfinite(columns.matrix(table)).all() and len(columns.targets(table)) == len(table)
    except ValueError as error:
        assert 10 < len(str(error)) < 400
