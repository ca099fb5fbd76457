"""Rooms import from the rooms before them alone, nothing imports in a circle, and every file has a room."""

import ast
import functools
from graphlib import CycleError, TopologicalSorter

import pytest
import rooms

SOLUTION = "kernelfield.solution.solution"
DELEGATES = {
    # Users ask a Solution for these, and each needs a later room. The method hands the Solution to it, and imports it
    # when it is called.
    "save": "kernelfield.files.storage",
    "to_xarray": "kernelfield.files.labelled",
    "fixed_point": "kernelfield.theories.fixed_point",
}


@functools.cache
def graph(in_functions):
    """Returns the imports of every module but for those of the three methods."""
    graph = rooms.graph(in_functions)
    return {name: names - set(DELEGATES.values()) if name == SOLUTION else names for name, names in graph.items()}


def upward(graph, order=rooms.ORDER):
    """Returns the imports (module, imported module) from a later room, or from the package itself."""
    places = {room: place for place, room in enumerate(order)} | {"": len(order)}
    pairs = [(name, imported) for name, names in graph.items() for imported in names]
    return [pair for pair in pairs if places[rooms.room_of(pair[1])] > places[rooms.room_of(pair[0])]]


def circle(graph):
    """Returns the modules of a circle of imports, in order; none if there is no circle."""
    try:
        TopologicalSorter({name: names - {name} for name, names in graph.items()}).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def without_room(modules, order=rooms.ORDER):
    """Returns the modules that belong to no room; the package itself needs none."""
    return [name for name in modules if name != "kernelfield" and rooms.room_of(name) not in order]


def test_every_file_belongs_to_a_room_and_every_room_has_files():
    assert without_room(rooms.modules()) == []
    assert {rooms.room_of(name) for name in rooms.modules()} == {"", *rooms.ORDER}


@pytest.mark.parametrize("in_functions", [False, True], ids=["when imported", "when called"])
def test_rooms_import_from_rooms_before_them(in_functions):
    assert upward(graph(in_functions)) == []


@pytest.mark.parametrize("in_functions", [False, True], ids=["when imported", "when called"])
def test_nothing_imports_in_a_circle(in_functions):
    assert circle(graph(in_functions)) == []


def test_only_three_methods_of_a_solution_import_later_rooms_when_they_are_called():
    path = rooms.modules()[SOLUTION]
    assert not rooms.imports(path, in_functions=False) & set(DELEGATES.values())
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    imports = {
        (function.name, node.module)
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom) and node.module in DELEGATES.values()
    }
    assert imports == set(DELEGATES.items())


def test_the_checks_see_what_is_wrong():
    """The control: a made-up package of two rooms."""
    order, fine = ("below", "above"), {"p.below.a": set(), "p.above.b": {"p.below.a"}, "p": {"p.above.b"}}
    assert upward(fine, order) == circle(fine) == without_room(set(fine) - {"p"}, order) == []
    assert upward(fine | {"p.below.a": {"p.above.b"}}, order) == [("p.below.a", "p.above.b")]
    assert upward(fine | {"p.above.b": {"p"}}, order) == [("p.above.b", "p")]
    assert set(circle(fine | {"p.below.a": {"p.above.b"}})) == {"p.below.a", "p.above.b"}
    assert circle({"p.above.b": {"p.above.c"}, "p.above.c": {"p.above.b"}})
    assert without_room(["p.attic.d"], order) == ["p.attic.d"]


def test_imports_inside_functions_are_read_and_those_for_the_type_checker_are_not(tmp_path):
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import kernelfield.cli\n"
    text += "import kernelfield.common\ndef call():\n    from kernelfield.files import storage\n"
    (tmp_path / "a.py").write_text(text)
    assert rooms.imports(tmp_path / "a.py", in_functions=False) == {"kernelfield.common"}
    assert rooms.imports(tmp_path / "a.py") == {"kernelfield.common", "kernelfield.files.storage"}
