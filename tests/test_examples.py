"""Every example uses names that exist. Building the documentation runs them, see docs/_ext/gallery.py."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
EACH = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


def imported(tree):
    """(module, name or None, what it is called here) of everything that a program takes from the library."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "kernelfield":
            yield from ((node.module, each.name, each.asname or each.name) for each in node.names)
        if isinstance(node, ast.Import):
            yield from (
                (each.name, None, each.asname or each.name)
                for each in node.names
                if each.name.partition(".")[0] == "kernelfield"
            )


def found(module, name):
    """A module, or what it has of that name."""
    whole = importlib.import_module(module)
    if name is None or hasattr(whole, name):
        return whole if name is None else getattr(whole, name)
    return importlib.import_module(f"{module}.{name}")


@EACH
def test_example_uses_names_that_exist(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    known = {alias: found(module, name) for module, name, alias in imported(tree)}
    assert known
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in known:
            assert hasattr(known[node.value.id], node.attr), f"line {node.lineno}: {node.value.id}.{node.attr}"


@EACH
def test_example_has_a_title_for_the_gallery_and_shows_a_figure(path):
    text = path.read_text(encoding="utf-8")
    title, line, blank = text.split("\n")[1:4]
    assert title and line == "=" * len(title) and not blank
    assert text.count("\nplt.show()\n") == 1


def test_every_example_has_a_place_in_the_gallery():
    tree = ast.parse((ROOT / "docs" / "_ext" / "reference.py").read_text(encoding="utf-8"))
    (places,) = (node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "GALLERY")
    assert sorted(ast.literal_eval(places)) == [path.stem for path in EXAMPLES]


# --- what the build of the documentation checks


PAGE = """
.. image-sg:: /gallery/images/sphx_glr_good_001.png

.. rst-class:: sphx-glr-script-out

 .. code-block:: none

    off by {}

.. nan in text is no number
"""


@pytest.mark.parametrize(
    "page, more, expected",
    [
        (PAGE.format("0.1"), (), []),
        (PAGE.format("nan %"), (), ["good prints a number that is none, or a warning"]),
        (PAGE.format("1: RuntimeWarning: overflow"), (), ["good prints a number that is none, or a warning"]),
        ("no picture", (), ["good shows 0 figures, not one"]),
        (PAGE.format("0.1") * 2, (), ["good shows 2 figures, not one"]),
        (PAGE.format("0.1"), ("run.nc",), ["an example left run.nc behind"]),
    ],
)
def test_the_build_complains_of_what_is_wrong(page, more, expected, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))
    (tmp_path / "good.rst").write_text(page)
    for name in ("good.py", "digits.toml", *more):
        (tmp_path / name).write_text("")
    assert list(importlib.import_module("gallery").complaints(tmp_path, tmp_path)) == expected
