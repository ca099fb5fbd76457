"""Tables from files: texts in columns with names, whatever their encoding and separator."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from kernelfield.common.atomic_files import check_file

if TYPE_CHECKING:
    from pandas import DataFrame

SEPARATORS = ",;\t|"
SNIFFED = 50  # lines
MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe\0\0": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
MISSING = {"", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "<NA>", "#N/A"}
QUOTED = "\ue000"  # begins a text that was in quotation marks, until the table is read


def read_table(
    path: Path, *, separator: str | None = None, encoding: str | None = None, keep_na: bool = False
) -> DataFrame:
    """Returns the table in a text file whose first line names the columns: texts, and NaN where a value is missing.

    Args:
        path: of the file.
        separator: the character between values, or "tab" or "space"; a comma, semicolon, tab or bar is recognized.
        encoding: of the file; by default that of its byte-order mark, or UTF-8.
        keep_na: whether "NA", "null" and the like are texts as any other; in quotation marks they always are.

    Raises:
        ValueError: the file holds no table, or is not in this encoding; two columns have one name.
    """
    import pandas

    check_file(path)
    text = _decode(path, encoding)
    separator = {"tab": "\t", "space": r"\s+"}.get(separator or "", separator) or _sniff(text)
    if len(separator) != 1 and separator != r"\s+":
        raise ValueError(f"separator must be one character, or tab or space, got '{separator}'")
    around = rf"(?:^|(?<=[\n{re.escape(separator)}]))", rf"(?=[\r\n{re.escape(separator)}]|$)"
    names = "|".join(map(re.escape, sorted(MISSING - {""})))
    text = re.sub(rf'{around[0]}"({names})"{around[1]}', rf"{QUOTED}\1", text)
    try:
        options = {"header": None, "dtype": str, "keep_default_na": False, "skipinitialspace": True}
        table = pandas.read_csv(io.StringIO(text), sep=separator, **options)  # type: ignore[call-overload]
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, ValueError) as error:
        raise ValueError(f"{path} is not a table of separated values: {error}") from None
    table = table.fillna("").apply(lambda column: column.str.strip())
    header = _check_header(path, [name.removeprefix(QUOTED) for name in table.iloc[0]])
    table = table.iloc[1:].set_axis(header, axis=1).reset_index(drop=True)
    if table.empty:
        raise ValueError(f"{path} holds no rows of data")
    table = table.mask(table.isin([""] if keep_na else list(MISSING)))
    return table.apply(lambda column: column.str.removeprefix(QUOTED))


def _decode(path: Path, encoding: str | None) -> str:
    """Returns the text of a file."""
    content = path.read_bytes()
    mark = next((name for start, name in MARKS.items() if content.startswith(start)), "utf-8")
    try:
        text = content.decode(encoding or mark)
    except LookupError:
        raise ValueError(f"encoding '{encoding}' is unknown: utf-8, utf-16 and latin-1 are some") from None
    except UnicodeError:
        advice = "give its encoding, such as latin-1 (--encoding on the command line)"
        raise ValueError(f"{path} is not a text in {(encoding or mark).upper()}: {advice}") from None
    if "\0" in text:
        raise ValueError(f"{path} is not a text: it holds zero bytes; if it is UTF-16, give the encoding utf-16-le")
    return text.removeprefix("\ufeff")


def _sniff(text: str) -> str:
    """Returns the separator that divides the first lines into equally many values, as many as possible."""
    lines = [line for line in text.splitlines()[:SNIFFED] if line.strip()]

    def count_values(separator: str) -> tuple[bool, int]:
        try:
            counts = [len(row) for row in csv.reader(lines, delimiter=separator)]
        except csv.Error:
            return False, 0
        return len(set(counts)) == 1 and counts[0] > 1, min(counts, default=0)

    best = max(SEPARATORS, key=count_values)
    return best if count_values(best)[1] > 1 else ","


def _check_header(path: Path, names: list[str]) -> list[str]:
    """Returns the names of the columns; raises ValueError if two are the same, or if they are numbers, as data are."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated and repeated[0]:
        raise ValueError(f"{path} has two columns named '{repeated[0]}': rename one")
    if repeated:
        raise ValueError(f"{path} has {names.count('')} columns without a name: name them")
    if any(re.fullmatch(r"[-+]?\d+\.\d+(e[-+]?\d+)?", name) for name in names):
        raise ValueError(f"{path} has no header: its first line, which names the columns, holds numbers")
    return names
