"""Every public object is documented, documented arguments are those of the signature, and examples run."""

import doctest
import importlib
import inspect
import pkgutil
import re

import pytest

import kernelfield
from kernelfield.common.settings import Spec

MODULES = sorted({"kernelfield", *(each.name for each in pkgutil.walk_packages(kernelfield.__path__, "kernelfield."))})


def public_objects():
    for name in MODULES:
        module = importlib.import_module(name)
        for key, value in vars(module).items():
            defined_here = getattr(value, "__module__", None) == name
            if not key.startswith("_") and defined_here and (inspect.isclass(value) or inspect.isfunction(value)):
                yield f"{name}.{key}", value
                for part, member in vars(value).items() if inspect.isclass(value) else ():
                    member = member.fget if isinstance(member, property) else member
                    if inspect.isfunction(member) and not part.startswith("_"):
                        yield f"{name}.{key}.{part}", member


OBJECTS = dict(public_objects())


def documented_arguments(docstring):
    """Names under "Args:", in order; None without that section."""
    section = re.search(r"^Args:\n((?:    .*\n|\n)*)", inspect.cleandoc(docstring or "") + "\n", re.MULTILINE)
    if section is None:
        return None
    listed = re.findall(r"^    (\w+(?:, \w+)*):", section.group(1), re.MULTILINE)
    return [name for names in listed for name in names.split(", ")]


def real_arguments(thing):
    if inspect.isclass(thing):
        if issubclass(thing, Spec):
            return list(thing.model_fields)
        return [name for name in inspect.signature(thing.__init__).parameters if name != "self"]
    return [name for name in inspect.signature(thing).parameters if name not in ("self", "cls")]


@pytest.mark.parametrize("name", MODULES)
def test_modules_say_what_they_are(name):
    assert importlib.import_module(name).__doc__


@pytest.mark.parametrize("name", OBJECTS)
def test_public_objects_are_documented(name):
    documented = OBJECTS[name].__doc__
    assert documented and not documented.startswith(f"{name.rpartition('.')[2]}(")


@pytest.mark.parametrize("name", [name for name in OBJECTS if documented_arguments(OBJECTS[name].__doc__)])
def test_documented_arguments_are_those_of_the_signature(name):
    documented, real = documented_arguments(OBJECTS[name].__doc__), real_arguments(OBJECTS[name])
    by_name = inspect.isclass(OBJECTS[name]) and issubclass(OBJECTS[name], Spec)  # in any order
    assert sorted(documented) == sorted(real) if by_name else documented == real


@pytest.mark.parametrize("name", kernelfield.__all__)
def test_names_in_all_exist_and_settings_document_their_arguments(name):
    public = getattr(kernelfield, name)
    assert public.__doc__
    if inspect.isclass(public) and issubclass(public, Spec):
        assert sorted(documented_arguments(public.__doc__)) == sorted(public.model_fields)


def test_the_reader_of_docstrings_sees_a_wrong_name():
    assert documented_arguments("Do.\n\nArgs:\n    a: one,\n        which: goes on\n    b, c: two.\n") == list("abc")
    assert documented_arguments("Nothing.") is None


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0
