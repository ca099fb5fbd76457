"""How a benchmark says what was aimed at and what came out, so that suite.py can put it into one table."""

from __future__ import annotations

MARK = "- Goal: "


def goal(what: str, aim: str, figure: float, why: str = "") -> str:
    """One line: what is measured, the aim (">= 100"), the figure, and why the aim is not met if it is not."""
    sign, bound = aim.split()
    met = figure >= float(bound) if sign == ">=" else figure <= float(bound)
    shown = f"{figure:.3g}" if figure < 1000 else f"{figure:.0f}"
    answer = "yes" if met else f"no: {why}" if why else "no"
    return f"{MARK}{what} | {aim} | {shown} | {answer}"
