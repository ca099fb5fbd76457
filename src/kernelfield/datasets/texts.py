"""Texts of a column as numbers: with thousands separators, currencies and percent signs, and dates as days."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from pandas import Series

Decimal = Literal[".", ","]

TRUE, FALSE = ("true", "yes", "y", "t", "on", "1", "1.0"), ("false", "no", "n", "f", "off", "0", "0.0")
TRUTHS = {**dict.fromkeys(TRUE, 1.0), **dict.fromkeys(FALSE, 0.0)}
DATES = (
    "ISO8601",
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d.%m.%Y",
    "%d-%m-%Y",
    "%Y/%m/%d",
    "%d/%m/%y",
    "%m/%d/%y",
    "%d %b %Y",
    "%d-%b-%Y",
    "%d-%b-%y",
    "%b %d, %Y",
    "%d %B %Y",
    "%B %d, %Y",
)
CURRENCY = r"[$€£¥₹]|USD|EUR|GBP|CHF|JPY"


def doubt_decimals(name: str, texts: Series, decimal: Decimal) -> str | None:
    """Returns a caution if commas in numbers could mean something else: is 1,234 a thousand, or one and a bit?"""
    marked: Any = texts[texts.str.contains(",", regex=False)]
    if marked.empty or (decimal == "." and np.isnan(read_numbers(texts, ",")).any()):
        return None
    kind = "decimal commas" if decimal == "," else "commas between thousands"
    return f"column '{name}' has {kind}: '{marked.iloc[0]}' is {read_numbers(marked, decimal)[0]:g}"


def read_numbers(texts: Series, decimal: Decimal) -> np.ndarray:
    """Returns numbers (n,) that are written with thousands separators, currencies or percent signs, NaN for others.

    One column has one currency, which is left out.
    """
    import pandas

    numbers: Any = pandas.to_numeric(texts, errors="coerce")
    if decimal == "." and not numbers.isna().any():
        return numbers.to_numpy(float)
    plain: Any = texts.str.replace("\u2212", "-", regex=False)
    if plain.str.extract(rf"({CURRENCY})", expand=False).nunique() > 1:
        return np.full(len(texts), np.nan)
    plain = plain.str.replace(rf"{CURRENCY}|%$", "", regex=True).str.strip()
    plain = plain.str.replace(r"^\((.*)\)$", r"-\1", regex=True)  # as accountants write
    thousands = {".": r"[,'\u2019\u00a0\u202f ]", ",": r"[.'\u2019\u00a0\u202f ]"}[decimal]
    grouped = plain.str.fullmatch(rf"[-+]?\d{{1,3}}({thousands}\d{{3}})+(\{decimal}\d*)?")
    plain = plain.where(~grouped, plain.str.replace(thousands, "", regex=True))
    if decimal == ",":
        plain = plain.where(~plain.str.contains(".", regex=False), "").str.replace(",", ".", regex=False)
    numbers = pandas.to_numeric(plain, errors="coerce")
    return numbers.to_numpy(float)


def read_dates(values: Series, date_format: str | None) -> np.ndarray:
    """Returns days since 1970 (n,), NaN for what is no date in this format."""
    import pandas

    dates = pandas.to_datetime(values, format=date_format, errors="coerce", utc=True)
    days: Any = (dates - pandas.Timestamp(0, tz="UTC")) / pandas.Timedelta(days=1)
    return days.to_numpy(float)
