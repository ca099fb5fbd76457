"""Every example runs without a warning and ends in a figure that shows something.

They run here and not a second time where only the text of the documentation is built (-D plot_gallery=0).
"""

import ast
import runpy
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture
def shown(monkeypatch):
    """The figures that a program shows."""
    plt.close("all")  # what other tests left open
    figures = []
    monkeypatch.setattr(plt, "show", lambda: figures.extend(map(plt.figure, plt.get_fignums())))
    yield figures
    plt.close("all")


@pytest.mark.thorough
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_and_shows_a_figure(path, shown, monkeypatch, tmp_path, capsys):
    for library in ("torch", "mup", "flax"):
        if f"import {library}" in path.read_text(encoding="utf-8") or f"from {library}" in path.read_text(
            encoding="utf-8"
        ):
            pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path))
    (figure,) = shown
    figure.canvas.draw()
    assert all(axes.lines or axes.images or axes.patches or axes.collections for axes in figure.axes)
    assert not list(tmp_path.iterdir()), "an example leaves nothing behind"
    assert "nan" not in capsys.readouterr().out


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_has_a_title_for_the_gallery(path):
    title, line, blank = path.read_text(encoding="utf-8").split("\n")[1:4]
    assert title and line == "=" * len(title) and not blank


def test_every_example_has_a_place_in_the_gallery():
    tree = ast.parse((ROOT / "docs" / "_ext" / "reference.py").read_text(encoding="utf-8"))
    (places,) = (node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "GALLERY")
    assert sorted(ast.literal_eval(places)) == [path.stem for path in EXAMPLES]
