"""Every public object is documented, documented arguments are those of the signature, and examples run."""

import doctest
import importlib
import inspect
import pkgutil
import re

import pytest

import kernelfield
from kernelfield.common.settings import Spec

MODULES = {
    name: importlib.import_module(name)
    for name in sorted(
        {"kernelfield", *(each.name for each in pkgutil.walk_packages(kernelfield.__path__, "kernelfield."))}
    )
}


def public_objects():
    """Names and values of classes and functions of all modules, and of their members."""
    for name, module in MODULES.items():
        for key, value in vars(module).items():
            defined_here = getattr(value, "__module__", None) == name
            if not key.startswith("_") and defined_here and (inspect.isclass(value) or inspect.isfunction(value)):
                yield f"{name}.{key}", value
                for part, member in vars(value).items() if inspect.isclass(value) else ():
                    member = member.fget if isinstance(member, property) else member
                    if inspect.isfunction(member) and not part.startswith("_"):
                        yield f"{name}.{key}.{part}", member


def documented_arguments(docstring):
    """Names under "Args:", in order; None without that section."""
    section = re.search(r"^Args:\n((?:    .*\n|\n)*)", inspect.cleandoc(docstring or "") + "\n", re.MULTILINE)
    if section is None:
        return None
    listed = re.findall(r"^    (\w+(?:, \w+)*):", section.group(1), re.MULTILINE)
    return [name for names in listed for name in names.split(", ")]


def real_arguments(thing):
    """Names of the arguments of a function or a class, in order."""
    if inspect.isclass(thing):
        if issubclass(thing, Spec):
            return list(thing.model_fields)
        return [name for name in inspect.signature(thing.__init__).parameters if name != "self"]
    return [name for name in inspect.signature(thing).parameters if name not in ("self", "cls")]


def has_docstring(name, thing):
    """Whether somebody wrote its docstring: that of a dataclass is its signature otherwise."""
    return bool(thing.__doc__) and not thing.__doc__.startswith(f"{name.rpartition('.')[2]}(")


def arguments_agree(thing):
    """Whether documented arguments are the real ones, in any order: those that are as elsewhere share a line."""
    documented = documented_arguments(thing.__doc__)
    return not documented or sorted(documented) == sorted(real_arguments(thing))


def test_modules_and_public_objects_say_what_they_are():
    assert [name for name, module in MODULES.items() if not module.__doc__] == []
    assert [name for name, thing in public_objects() if not has_docstring(name, thing)] == []


def test_documented_arguments_are_those_of_the_signature():
    assert [name for name, thing in public_objects() if not arguments_agree(thing)] == []


def test_names_in_all_exist_and_settings_document_their_arguments():
    public = {name: getattr(kernelfield, name) for name in kernelfield.__all__}
    assert [name for name, thing in public.items() if not thing.__doc__] == []
    settings = [thing for thing in public.values() if inspect.isclass(thing) and issubclass(thing, Spec)]
    assert settings and all(documented_arguments(each.__doc__) and arguments_agree(each) for each in settings)


def test_the_checks_see_what_is_wrong():
    def bare(a):
        pass

    def wrong(a, b):
        """Do.

        Args:
            b, c: two.
        """

    assert documented_arguments("Do.\n\nArgs:\n    a: one,\n        which: goes on\n    b, c: two.\n") == list("abc")
    assert documented_arguments("Nothing.") is None
    assert not has_docstring("bare", bare) and has_docstring("wrong", wrong)
    assert arguments_agree(bare) and not arguments_agree(wrong)


@pytest.mark.thorough
@pytest.mark.parametrize("name", [name for name, module in MODULES.items() if ">>>" in inspect.getsource(module)])
def test_examples_run(name):
    result = doctest.testmod(MODULES[name], optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted and result.failed == 0
