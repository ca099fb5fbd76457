"""The rooms of the package and what they import, read from the code.

python docs/rooms.py            # prints the table of docs/architecture.md
python docs/rooms.py --write    # writes it there
"""

from __future__ import annotations

import argparse
import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "kernelfield"
PAGE = Path(__file__).with_name("architecture.md")
BEGIN, END = "<!-- rooms -->", "<!-- end of rooms -->"
ORDER = (  # a room imports from those above it alone
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
    "solve",
    "observables",
    "files",
    "estimators",
    "sweeps",
    "plotting",
    "report",
    "figures",
    "cli",
)


def room_of(module: str) -> str:
    """The room of a dotted name, "" for the package itself."""
    return [*module.split("."), ""][1]


def imports(path: Path) -> set[str]:
    """Names of this package's modules that a file imports, anywhere in it, but for the checker of types."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            deeper = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {each if _exists(each) else node.module for each in deeper}
    return {name for name in names if name.partition(".")[0] == "kernelfield"}


def _exists(module: str) -> bool:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return path.is_dir() or path.with_suffix(".py").exists()


def modules() -> dict[str, Path]:
    """All files of the package by dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(("kernelfield", *(part for part in parts if part != "__init__")))] = path
    return found


def graph() -> dict[str, set[str]]:
    """Names of modules, each with those that it imports."""
    return {name: imports(path) for name, path in modules().items()}


def sentence(room: str) -> str:
    """What a room says that it is."""
    folder = PACKAGE / room / "__init__.py"
    documented = ast.get_docstring(ast.parse((folder if folder.exists() else PACKAGE / f"{room}.py").read_text()))
    return (documented or "").split("\n\n")[0].replace("\n", " ")


def table() -> str:
    """A markdown table: rooms from top to bottom, what they are, lines, and the rooms that they import from."""
    lines = ["| room | what it is | files | lines | imports from |", "|---|---|---|---|---|"]
    sizes = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    for room in ORDER:
        inside = [name for name in sizes if room_of(name) == room]
        below = {room_of(each) for name in inside for each in graph()[name]} - {room, ""}
        names = ", ".join(each for each in ORDER if each in below) or "-"
        size = sum(sizes[name] for name in inside)
        lines.append(f"| `{room}` | {sentence(room)} | {len(inside)} | {size:,} | {names} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table, or write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}")
    else:
        print(table())


if __name__ == "__main__":
    main()
