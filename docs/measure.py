"""How long the code is, how its lengths are distributed, and how many names it offers, as a markdown table.

python docs/measure.py                        # the working tree
python docs/measure.py REVISION [REVISION]    # revisions of git, "." for the working tree: a column for each

Figures (the room `figures` and the demo) and templates are left out. A function's length is without its docstring.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).parents[1]
PACKAGE = "src/kernelfield"
WORKING_TREE = "."
Function = ast.FunctionDef | ast.AsyncFunctionDef


def read_sources(revision: str) -> dict[str, str]:
    """Returns the text of every Python file of the package, by its path, figures left out.

    Args:
        revision: of git; "." for the working tree.
    """
    if revision == WORKING_TREE:
        paths = [str(path.relative_to(ROOT)) for path in sorted((ROOT / PACKAGE).rglob("*.py"))]
    else:
        paths = run_git("ls-tree", "-r", "--name-only", revision, PACKAGE).split("\n")
    chosen = [path for path in paths if path.endswith(".py") and "/figures/" not in path and "/demo.py" not in path]
    if revision == WORKING_TREE:
        return {path: (ROOT / path).read_text(encoding="utf-8") for path in chosen}
    return {path: run_git("show", f"{revision}:{path}") for path in chosen}


def run_git(*arguments: str) -> str:
    """Returns what git prints."""
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def measure_function(node: Function) -> int:
    """Returns the number of lines of a function, without decorators and docstring."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node, clean=False) is not None:
        docstring = node.body[0]
        lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return lines


def annotations(tree: ast.AST) -> Iterator[ast.expr]:
    """Yields the annotations of a module's arguments, results and variables."""
    for node in ast.walk(tree):
        annotation = getattr(node, "returns" if isinstance(node, Function) else "annotation", None)
        if isinstance(annotation, ast.expr):
            yield annotation


def count_any(tree: ast.AST) -> int:
    """Returns how often annotations of a module say Any."""
    names = (name for annotation in annotations(tree) for name in ast.walk(annotation))
    return sum(isinstance(name, ast.Name) and name.id == "Any" for name in names)


def count_public(tree: ast.Module) -> int:
    """Returns the number of functions and classes of a module whose names have no leading underscore."""
    return sum(isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_") for node in tree.body)


def count_offered(tree: ast.Module) -> int:
    """Returns the number of names in a module's `__all__`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return len(ast.literal_eval(node.value))
    return 0


def describe_lengths(lengths: Sequence[int]) -> str:
    """Returns the median, the 90th percentile and the maximum of lengths, as text."""
    return f"{median(lengths):.0f}, {quantiles(lengths, n=10, method='inclusive')[-1]:.0f}, {max(lengths)}"


def measure(revision: str) -> dict[str, str]:
    """Returns all measures of a revision, by what they are."""
    sources = read_sources(revision)
    trees = {path: ast.parse(text) for path, text in sources.items()}
    files = [len(text.splitlines()) for text in sources.values()]
    functions = [
        measure_function(node) for tree in trees.values() for node in ast.walk(tree) if isinstance(node, Function)
    ]
    return {
        "lines of src, without figures and templates": f"{sum(files):,}",
        "files": f"{len(files)}",
        "lines of a file: median, 90th percentile, longest": describe_lengths(files),
        "functions": f"{len(functions):,}",
        "lines of a function: median, 90th percentile, longest": describe_lengths(functions),
        "`Any` in annotations": f"{sum(map(count_any, trees.values()))}",
        "names in `kernelfield.__all__`": f"{count_offered(trees[f'{PACKAGE}/__init__.py'])}",
        "functions and classes of all modules without an underscore": f"{sum(map(count_public, trees.values()))}",
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revisions", nargs="*", default=[WORKING_TREE], metavar="REVISION")
    revisions = parser.parse_args().revisions
    columns = [measure(revision) for revision in revisions]
    names = ["working tree" if revision == WORKING_TREE else revision for revision in revisions]
    print(f"| | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for name in columns[0]:
        print(f"| {name} | {' | '.join(column[name] for column in columns)} |")


if __name__ == "__main__":
    main()
