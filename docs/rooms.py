"""The rooms of the package and what they import, read from the code.

python docs/rooms.py            # prints the table of docs/architecture.md
python docs/rooms.py --write    # writes it there
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "kernelfield"
PAGE = Path(__file__).with_name("architecture.md")
BEGIN, END = "<!-- rooms -->", "<!-- end of rooms -->"
ORDER = (  # a room imports from the rooms before it alone
    "common",
    "activations",
    "engine",
    "layers",
    "describe",
    "datasets",
    "parameterization",
    "solution",
    "march",
    "theories",
    "finite",
    "recording",
    "torch",
    "solve",
    "observables",
    "files",
    "estimators",
    "sweeps",
    "plotting",
    "report",
    "explore",
    "figures",
    "cli",
)


def room_of(module: str) -> str:
    """Returns the room of a module, "" for the package itself."""
    return [*module.split("."), ""][1]


def imports(path: Path, in_functions: bool = True) -> set[str]:
    """Returns the modules of this package that a file imports; imports for the type checker do not count.

    Args:
        path: of the file.
        in_functions: whether imports inside functions count, which run when the function is called.
    """
    names: set[str] = set()
    for node in _statements(ast.parse(path.read_text(encoding="utf-8")), in_functions):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {member if _is_module(member) else node.module for member in members}
    return {name for name in names if name.partition(".")[0] == "kernelfield"}


def _statements(tree: ast.AST, in_functions: bool) -> Iterator[ast.AST]:
    """Yields the nodes below a node, without blocks for the type checker and, if asked, without functions."""
    for node in ast.iter_child_nodes(tree):
        is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if not is_for_types and (in_functions or not is_function):
            yield node
            yield from _statements(node, in_functions)


def _is_module(name: str) -> bool:
    path = PACKAGE.joinpath(*name.split(".")[1:])
    return path.is_dir() or path.with_suffix(".py").exists()


def modules() -> dict[str, Path]:
    """Returns all files of the package by the name of their module."""
    files = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        files[".".join(("kernelfield", *(part for part in parts if part != "__init__")))] = path
    return files


def graph(in_functions: bool = True) -> dict[str, set[str]]:
    """Returns every module's imports, by its name.

    Args:
        in_functions: whether imports inside functions count.
    """
    return {name: imports(path, in_functions) for name, path in modules().items()}


def sentence(room: str) -> str:
    """Returns the first paragraph of a room's docstring."""
    folder = PACKAGE / room / "__init__.py"
    path = folder if folder.exists() else PACKAGE / f"{room}.py"
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.split("\n\n")[0].replace("\n", " ")


def table() -> str:
    """Returns a markdown table of the rooms: what each is, its size, and the rooms that it imports from."""
    lines = ["| room | what it is | files | lines | imports from |", "|---|---|---|---|---|"]
    sizes = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
    at_import, at_any_time = graph(in_functions=False), graph()
    for room in ORDER:
        inside = [name for name in sizes if room_of(name) == room]
        names = _imported_rooms(at_import, inside)
        later = [name for name in _imported_rooms(at_any_time, inside) if name not in names]
        cell = ", ".join([*names, *(f"({name})" for name in later)]) or "-"
        lines.append(
            f"| `{room}` | {sentence(room)} | {len(inside)} | {sum(sizes[name] for name in inside):,} | {cell} |"
        )
    return "\n".join(lines)


def _imported_rooms(imported: dict[str, set[str]], inside: list[str]) -> list[str]:
    """Returns the other rooms that the modules of a room import, in order."""
    rooms = {room_of(name) for module in inside for name in imported[module]} - {room_of(inside[0])}
    return [room for room in ORDER if room in rooms]


def main() -> None:
    """Print the table, or write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table into docs/architecture.md")
    if parser.parse_args().write:
        before, _, after = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{after.partition(END)[2]}", encoding="utf-8")
    else:
        print(table())


if __name__ == "__main__":
    main()
