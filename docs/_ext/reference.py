"""Reference pages made from the package itself, so that they cannot go stale, and a check that nothing is left out.

`api/` gets a page for each group of public names and for each module; the directive `commands` writes every command
with its arguments and options. A public name that no page documents, or a module without a place, is a warning.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import typer
from plain_docstrings import escaped
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import kernelfield
from kernelfield.common.settings import Spec
from kernelfield.solution.method import Method

PUBLIC = {  # rooms, or modules of a room
    "Networks from layers": ("layers", "parameterization", "torch", "recording"),
    "Measure, compare, draw": ("observables", "estimators", "sweeps", "plotting", "report"),
    "Data and files": ("datasets", "describe.losses", "activations.functions", "files"),
    "Figures of the paper": ("figures",),
}
INSIDE = "How it works inside"
FIRST = ("solve", "March", "FiniteWidth", "Solution", "Estimate", "compare", "load", "Problem")  # on their pages
NO_PAGE = ("cli",)  # the page of the command line has it
SOLVING = ("kernelfield.solve", "kernelfield.sweeps.gammas", "kernelfield.sweeps.driver")  # functions that solve runs
GROUPS = {
    "describing": ("Describe", "What is learned, what learns, and how."),
    "solving": ("Solve", "`kernelfield.solve` is the one entry point; every other name here is a method for it."),
    "looking": ("Look", "What every method returns, files of it, and comparisons."),
}
GALLERY = (
    "lazy_and_rich",
    "distance_from_infinite_width",
    "kernels_over_training",
    "activations_become_non_gaussian",
    "sweep_of_gamma0",
    "training_and_test",
    "convolutional_network",
    "recurrent_network",
    "transformer",
    "torch_mlp",
    "torch_cnn",
    "torch_transformer",
    "flax_mlp",
    "save_and_load",
)
_log = logging.getLogger(__name__)


def gallery_order(file: str) -> int:
    """Returns the place of an example in the gallery; new ones come last."""
    stem = Path(file).stem
    return GALLERY.index(stem) if stem in GALLERY else len(GALLERY)


# --- what there is


def modules() -> dict[str, ModuleType]:
    """Returns every module of the package by its name after "kernelfield."."""
    infos = pkgutil.walk_packages(kernelfield.__path__, "kernelfield.")
    names = sorted(info.name for info in infos if not info.name.endswith("__main__"))
    return {name.removeprefix("kernelfield."): importlib.import_module(name) for name in names}


def public(module: ModuleType) -> list[str]:
    """Returns names of functions and classes that a package offers, or a module defines, in the order of the source.

    Names that a package's module `base` defines come last: they are for readers of the code.
    """
    offered = getattr(module, "__all__", None)
    own = {
        name: value
        for name, value in vars(module).items()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and (value.__module__ == module.__name__ if offered is None else name in offered)
        and not name.startswith("_")
    }
    return sorted(own, key=lambda name: own[name].__module__ == f"{module.__name__}.base")


def group(name: str) -> str | None:
    """Returns the page of a name of `kernelfield.__all__`; None for modules, which have their own."""
    value = getattr(kernelfield, name)
    if inspect.ismodule(value):
        return None
    if is_method(value) or value.__module__ in SOLVING:
        return "solving"
    described = inspect.isclass(value) and (issubclass(value, Spec) or value is kernelfield.Problem)
    return "describing" if described else "looking"


def is_method(value: Any) -> bool:
    """Returns whether a value is a class of methods to solve a run."""
    return inspect.isclass(value) and issubclass(value, Method)


def top() -> list[str]:
    """Returns `kernelfield.__all__` in reading order."""
    return [
        *(name for name in FIRST if name in kernelfield.__all__),
        *(name for name in kernelfield.__all__ if name not in FIRST),
    ]


def documented() -> dict[str, str]:
    """Returns every name that must be documented, with its page."""
    groups = {f"kernelfield.{name}": group(name) for name in top()}
    page_of = {name: page for name, page in groups.items() if page}
    placed = {id(getattr(kernelfield, name)) for name in kernelfield.__all__}
    for short, module in modules().items():  # packages before their modules
        if not short.startswith(NO_PAGE):
            own = [name for name in public(module) if id(getattr(module, name)) not in placed]
            page_of.update({f"kernelfield.{short}.{name}": short for name in own})
            placed |= {id(getattr(module, name)) for name in own}
    return page_of


# --- pages


def pages() -> dict[str, str]:
    """Returns the text of every page in `api/`, by its name."""
    known, everything = documented(), modules()
    out = {name: _group_page(name, [full for full, page in known.items() if page == name]) for name in GROUPS}
    placed: dict[str, list[str]] = {title: [] for title in (*PUBLIC, INSIDE)}
    for short, module in everything.items():
        if short.startswith(NO_PAGE):
            continue
        names = [full for full, page in known.items() if page == short]
        if not names and "." in short and not _at_top(module):
            continue  # the page of its package has all names
        placed[_title_of(short)].append(short)
        out[short] = _module_page(short, module, names)
    for title, rooms in PUBLIC.items():
        placed[title].sort(key=lambda short, rooms=rooms: [_is_in(short, room) for room in rooms].index(True))
    out |= {"index": _index_page(placed), "inside": _inside_page(placed[INSIDE])}
    return out


def _title_of(short: str) -> str:
    """Returns the title of the index under which a module is listed."""
    titles = [title for title, rooms in PUBLIC.items() if any(_is_in(short, room) for room in rooms)]
    return titles[0] if titles else INSIDE


def _is_in(short: str, room: str) -> bool:
    return f"{short}.".startswith(f"{room}.")


def _index_page(placed: dict[str, list[str]]) -> str:
    text = [*_title("API reference", "="), "Describe a run, solve it, look at the `kernelfield.Solution`.", ""]
    for name, (title, about) in GROUPS.items():
        text += [
            *_title(title, "-"),
            about,
            "",
            *_table(f"kernelfield.{offered}" for offered in top() if group(offered) == name),
        ]
    public_modules = {title: names for title, names in placed.items() if title != INSIDE}
    for title, names in public_modules.items():
        text += [*_title(title, "-"), *_module_rows(names)]
    text += [":doc:`Every other module <inside>` is for readers of the code.", ""]
    return "\n".join(
        [*text, *_tree([*GROUPS, *(name for names in public_modules.values() for name in names), "inside"])]
    )


def _inside_page(names: list[str]) -> str:
    about = "For readers of the code: the parts of the public functions. Names may change from version to version."
    return "\n".join([*_title(INSIDE, "="), about, "", *_module_rows(names), *_tree(names)])


def _module_rows(names: Iterable[str]) -> list[str]:
    return _rows((f":doc:`kernelfield.{short} <{short}>`", _first(modules()[short])) for short in names)


def _tree(names: Iterable[str]) -> list[str]:
    titles = {"inside": INSIDE} | {name: title for name, (title, _) in GROUPS.items()}
    return [".. toctree::", "   :hidden:", "", *(f"   {titles.get(name, name)} <{name}>" for name in names), ""]


def _group_page(name: str, names: list[str]) -> str:
    title, about = GROUPS[name]
    text = [*_title(title, "="), about, "", *_table(names), ""]
    for full in names:
        short = full.rpartition(".")[2]
        text += [*_title(short, "-"), *_auto(full, getattr(kernelfield, short))]
    return "\n".join(text)


def _module_page(short: str, module: ModuleType, names: list[str]) -> str:
    text = [*_title(f"kernelfield.{short}", "="), f".. automodule:: kernelfield.{short}"]
    if short in kernelfield.__all__:
        text += ["   :no-index:"]  # a function has its name
    text += ["", *_table(names), ""]
    if top := _at_top(module):
        text += [f"Also here: {', '.join(f':py:obj:`kernelfield.{name}`' for name in top)}.", ""]
    for full in names:
        text += _auto(full, getattr(module, full.rpartition(".")[2]))
    return "\n".join(text)


def _at_top(module: ModuleType) -> list[str]:
    """Returns names that a module defines and `kernelfield` offers."""
    return [
        name
        for name in kernelfield.__all__
        if getattr(getattr(kernelfield, name), "__module__", None) == module.__name__
    ]


def _auto(full: str, value: Any) -> list[str]:
    if not inspect.isclass(value):
        return [f".. autofunction:: {full}", ""]
    if issubclass(value, BaseException):
        return [f".. autoexception:: {full}", ""]
    if is_method(value) and full.count(".") == 1:
        return [f".. autoclass:: {full}", ""]  # settings; the rest serves `solve`
    if hasattr(value, "lazy_forward") and full.count(".") == 2 and value is not kernelfield.layers.Layer:
        return [f".. autoclass:: {full}", ""]  # every layer has the same methods
    hidden = ["model_config"] if issubclass(value, Spec) else []
    hidden += value._fields if issubclass(value, tuple) else []  # Python's own text about them says nothing
    hidden += [name for name in dir(value) if name.startswith("set_") and name.endswith("_request")]  # of scikit-learn
    exclude = [f"   :exclude-members: {', '.join(hidden)}"] if hidden else []
    inherited = ["   :inherited-members:"] if value is kernelfield.Solution else []
    return [f".. autoclass:: {full}", "   :members:", *inherited, *exclude, ""]


def _title(text: str, line: str) -> list[str]:
    return [text, line * len(text), ""]


def _table(names: Iterable[str]) -> list[str]:
    """Returns a table of names with the first sentence about each."""
    rows = []
    for full in names:
        where, _, name = full.rpartition(".")
        value = getattr(kernelfield if where == "kernelfield" else importlib.import_module(where), name)
        rows.append((f":py:obj:`{name} <{full}>`", _first(value)))
    return _rows(rows)


def _rows(rows: Iterable[tuple[str, str]]) -> list[str]:
    body = [line for left, right in rows for line in (f"   * - {left}", f"     - {right}")]
    return [".. list-table::", "   :widths: 35 65", "   :class: names", "", *body, ""] if body else []


def _first(thing: Any) -> str:
    """Returns the first sentence of a docstring."""
    paragraph = " ".join(inspect.getdoc(thing).partition("\n\n")[0].split())
    return escaped(re.split(r"(?<=[.;:?]) (?=[A-Z(])|\.$|:$", paragraph)[0].rstrip(".:;") + ".")


def _write_pages(app: Any) -> None:
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    wanted = {folder / f"{name}.rst": text for name, text in pages().items()}
    for path in set(folder.glob("*.rst")) - set(wanted):
        path.unlink()
    for path, text in wanted.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


# --- the command line


def commands() -> Iterator[tuple[str, str, list[tuple[bool, str, str]]]]:
    """Yields (command line, help, parameters) of every command; a parameter is (is an option, usage, help)."""
    import kernelfield.cli as cli  # noqa: F401  (registers all commands)
    from kernelfield.cli.app import app

    whole: Any = typer.main.get_command(app)
    context = typer.Context(whole, info_name="kernelfield")
    yield "kernelfield", whole.help, [_parameter(parameter, context) for parameter in whole.get_params(context)]
    for name, command in whole.commands.items():
        inner = typer.Context(command, info_name=name, parent=context)
        parameters = [_parameter(parameter, inner) for parameter in command.get_params(inner)]
        yield f"kernelfield {name}", command.help, parameters


def _parameter(parameter: Any, context: Any) -> tuple[bool, str, str]:
    option = parameter.param_type_name == "option"
    names, about = parameter.get_help_record(context)
    return option, names if option else parameter.metavar or parameter.name, about


class Commands(SphinxDirective):
    """A section for every command, written from the program itself."""

    def run(self) -> list:
        """Insert the sections."""
        self.env.note_dependency(__file__)
        text: list[str] = []
        for line, about, parameters in commands():
            shown = [(option, how, what) for option, how, what in parameters if "--help" not in how]
            usage = " ".join([line, *(how for option, how, _ in shown if not option)])
            text += [*_title(line, "-"), ".. code-block:: text", "", f"   {usage} [options]", "", about, ""]
            text += _rows((f"``{how}``", escaped(what)) for option, how, what in shown if not option)
            text += [f".. program:: {line}", ""]
            for option, how, what in shown:
                text += [f".. option:: {how}", "", f"   {escaped(what)}", ""] if option else []
        self.state_machine.insert_input(text, "<commands>")
        return []


# --- figures of the paper


class PaperFigures(SphinxDirective):
    """A section for every figure of `kernelfield figures`, with its pictures in docs/."""

    def run(self) -> list:
        """Insert the sections."""
        from kernelfield.figures import FIGURES

        folder, text = Path(self.env.srcdir), list[str]()
        for name, draw in FIGURES.items():
            module: Any = inspect.getmodule(draw)
            stem = module.__name__.rpartition(".")[2]
            about = inspect.cleandoc(module.__doc__).partition("\n\n")
            text += [*_title(escaped(about[0].rstrip(".")), "-"), *map(escaped, about[2].splitlines()), ""]
            text += [".. code-block:: sh", "", f"   kernelfield figures {name}", ""]
            pictures = sorted(path.name for path in folder.glob(f"{stem}*.png"))
            for picture in pictures:
                self.env.note_dependency(str(folder / picture))
                text += [f".. image:: {picture}", f"   :alt: {picture}", f"   :target: _images/{picture}", ""]
        self.state_machine.insert_input(text, "<figures>")
        return []


# --- is everything there?


def _check(app: Any, env: Any) -> None:
    have = set(env.get_domain("py").objects)
    for name in documented():
        if name not in have:
            _log.warning("%s is public but not documented on any page", name, type="reference", subtype="missing")
    programs = {str(program).replace("-", " ") for program, _ in env.get_domain("std").progoptions}
    for line, _, parameters in commands():
        if (
            any(option and "--help" not in how for option, how, _ in parameters)
            and line.replace("-", " ") not in programs
        ):
            _log.warning("the command %s is not documented on any page", line, type="reference", subtype="missing")


def setup(app: Any) -> dict[str, Any]:
    """Write pages before Sphinx reads sources, and check afterwards that all names have one."""
    app.add_directive("commands", Commands)
    app.add_directive("paper-figures", PaperFigures)
    app.connect("builder-inited", _write_pages)
    app.connect("env-check-consistency", _check)
    return {"parallel_read_safe": True}
