"""Docstrings as they are written here, plain text under Google's section names, become reStructuredText.

What reStructuredText would take for markup (|A - B|, 2 * x, F_) is escaped; `names in backticks` become code, and a
link where they name something that is documented; indented formulas become blocks; doctests stay.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from sphinx.util.inspect import signature as signature_of
from sphinx.util.inspect import stringify_signature

from kernelfield.common.settings import Spec

LISTS = {"Args": "Parameters", "Attributes": "Attributes", "Raises": "Raises"}
TEXTS = {"Returns": "Returns", "Yields": "Yields"}
_SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields|Example|Examples):$")
_SOURCE = re.compile(r"Source: ")
_ENTRY = re.compile(r"(\w[\w.]*(?:, \w[\w.]*)*):(?:\s+|$)(.*)")
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{5})")


def escaped(text: str) -> str:
    """Returns a line of plain text, safe in reStructuredText; `code in backticks` stays."""
    parts = re.split(r"(`[^`]+`)", text)
    for place in range(0, len(parts), 2):
        part = re.sub(r"([\\*|`])", r"\\\1", parts[place])
        part = re.sub(r"_(?=\W|$)", r"\\_", part)
        parts[place] = _ARXIV.sub(r"`arXiv:\1 <https://arxiv.org/abs/\1>`__", part)
    whole = "".join(parts)
    return re.sub(r"^(\s*)(?=[(+.:=\[]|\w[.)]\s)", r"\1\\", whole)


def converted(lines: Iterable[str]) -> list[str]:
    """Returns a docstring as reStructuredText."""
    out: list[str] = []
    for name, body in _sections(list(lines)):
        if name in LISTS:
            out += ["", f":{LISTS[name]}:", *_indented(_entries(body, code=name == "Raises")), ""]
        elif name in TEXTS:
            out += ["", f":{TEXTS[name]}:", *_indented(_prose(body)), ""]
        elif name == "Source":
            out += ["", ":Source:", *_indented(_prose(body)), ""]
        elif name == "Example":
            out += ["", ".. rubric:: Example", "", *body, ""]
        else:
            out += _prose(body)
    return out


def _sections(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yields (name, lines without indentation) of every section; text outside sections has an empty name."""
    at, text = 0, list[str]()
    while at < len(lines):
        heading, source = _SECTION.match(lines[at]), _SOURCE.match(lines[at])
        if not heading and not source:
            text.append(lines[at])
            at += 1
            continue
        yield "", text
        text, end = [], at + 1
        while end < len(lines) and (lines[end].startswith(" ") or not lines[end] if heading else lines[end]):
            end += 1
        if heading:
            yield (
                heading.group(1).removesuffix("s") if "Example" in heading.group(1) else heading.group(1),
                [line[4:] for line in lines[at + 1 : end]],
            )
        else:
            yield "Source", [lines[at].removeprefix("Source: "), *lines[at + 1 : end]]
        at = end
    yield "", text


def _entries(body: list[str], code: bool) -> list[str]:
    """Returns "name: text" entries as a bullet list."""
    out = [""]
    for line in body:
        entry = _ENTRY.match(line)
        if entry:
            names, text = entry.groups()
            shown = f"`{names}`" if code else ", ".join(f"**{name}**" for name in names.split(", "))
            out.append(f"* {shown} \N{EN DASH} {escaped(text)}")
        elif line.startswith("    "):
            out.append(f"  {escaped(line[4:])}")
        else:
            out.append(escaped(line))
    return out


def _prose(body: list[str]) -> list[str]:
    """Returns paragraphs, with indented lines as code blocks and doctests unchanged."""
    out, block = [], False
    for number, line in enumerate(body):
        indented = line.startswith("    ") and line.strip()
        fresh = number == 0 or not body[number - 1].strip()
        if indented and fresh and not block:
            language = "python" if re.search(r"\bimport \w|\bkf\.", "\n".join(body)) else "text"
            out += ["", f".. code-block:: {language}", ""]
            block = True
        elif line.strip() and not indented:
            block = False
        doctest = line.lstrip().startswith((">>>", "..."))
        out.append(line if block or doctest or not line.strip() else escaped(line))
    return out


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"   {line}" if line.strip() else "" for line in lines]


class _FactoryDefault:
    """The default of a field with a factory, in signatures."""

    def __repr__(self) -> str:
        return "..."


def _signature(app: Any, what: str, name: str, obj: Any, *rest: Any) -> tuple[str, str | None] | None:
    """Returns the signature of settings and data classes, its types without the bounds of pydantic."""
    if not (inspect.isclass(obj) and (issubclass(obj, Spec) or dataclasses.is_dataclass(obj))):
        return None
    signature = signature_of(obj)
    plain = [
        parameter.replace(
            annotation=_without_bounds(parameter.annotation),
            default=_FactoryDefault() if repr(parameter.default) == "<factory>" else parameter.default,
        )
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    ]
    shown = signature.replace(parameters=plain, return_annotation=inspect.Signature.empty)
    return stringify_signature(shown, unqualified_typehints=True), None


def _without_bounds(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation


def _link_to_top(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Link a name that `kernelfield` offers, from any module."""
    if node.get("reftype") != "obj" or node.get("refdomain") != "py":
        return None
    domain, name = env.get_domain("py"), f"kernelfield.{node['reftarget']}"
    if name not in domain.objects:
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, content)


def _process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = converted(lines)


def setup(app: Any) -> dict[str, Any]:
    """Convert all docstrings and signatures of autodoc."""
    app.connect("autodoc-process-signature", _signature)
    app.connect("missing-reference", _link_to_top)
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True}
