"""The two suites: what `pytest` runs, and what only `pytest -m thorough` runs."""

import pytest


def thorough(*case):
    """Returns a case of `pytest.mark.parametrize` that is left to the thorough suite."""
    return pytest.param(*case, marks=pytest.mark.thorough)


def keep_fast(cases, *fast):
    """Returns all cases, those that are not named `fast` left to the thorough suite."""
    cases = list(cases)
    assert set(fast) <= set(cases), set(fast) - set(cases)
    apart = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*case) if whole in fast else thorough(*case) for whole, case in zip(cases, apart, strict=True)]
