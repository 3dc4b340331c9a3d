"""Every public function and class has a numpydoc docstring that names every argument and shows an example."""

import dataclasses
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from numpydoc.docscrape import ClassDoc, FunctionDoc, NumpyDocString

from .tree import WINGS

# an argument may be documented under these headings
SECTIONS = ("Parameters", "Other Parameters", "Attributes")


def public_objects(wing: str) -> Iterator[tuple[str, object]]:
    """The functions and classes in a wing's ``__all__``, and in the ``__all__`` of modules that it lists."""
    queue = [f"solomonic.{wing}"]
    for name in queue:
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", []):
            member = getattr(module, public)
            if inspect.ismodule(member):
                queue.append(member.__name__)
            elif inspect.isclass(member) or callable(member):
                yield f"{name}.{public}", member


def documented(doc: NumpyDocString) -> set[str]:
    """The names under the headings for arguments; ``a, b : int`` documents both, ``*args`` documents args."""
    return {
        name.strip().lstrip("*")
        for section in SECTIONS
        for parameter in doc[section]
        for name in parameter.name.split(",")
    }


def arguments(function: Callable) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return []
    return [name for name in parameters if name not in {"self", "cls"} and not name.startswith("_")]


def own_methods(cls: type) -> Iterator[tuple[str, Callable]]:
    """The public methods that a class defines itself."""
    for name, member in vars(cls).items():
        method = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if inspect.isfunction(method) and not name.startswith("_"):
            yield name, method


def is_record(thing: object) -> bool:
    """A named tuple or dataclass without methods: the example stands with the function that returns it."""
    if not inspect.isclass(thing) or not (dataclasses.is_dataclass(thing) or hasattr(thing, "_fields")):
        return False
    return not list(own_methods(thing))


def faults(name: str, thing: object) -> list[str]:
    """What the docstring of a public function or class lacks."""
    text = inspect.getdoc(thing) or ""
    generated = inspect.isclass(thing) and text.startswith(f"{getattr(thing, '__name__', '')}(")
    if not text or generated:
        return [f"{name} has no docstring"]
    doc: NumpyDocString = ClassDoc(thing) if inspect.isclass(thing) else FunctionDoc(thing)
    found = []
    if not "".join(doc["Summary"]).strip():
        found.append(f"{name} has no summary line")
    if not is_record(thing) and not any(">>>" in line for line in doc["Examples"]):
        found.append(f"{name} has no example under Examples")
    has = documented(doc)
    wanted = [] if inspect.isclass(thing) and issubclass(thing, BaseException) else arguments(thing)  # type: ignore[arg-type]
    found += [f"{name} does not document its argument {each!r}" for each in wanted if each not in has]
    given = {each.name for section in SECTIONS[:2] for each in doc[section]}
    if not inspect.isclass(thing):
        named = {each.strip().lstrip("*") for names in given for each in names.split(",")}
        found += [f"{name} documents {each!r}, which is no argument" for each in sorted(named - set(wanted))]
    if inspect.isclass(thing):
        for method_name, method in own_methods(thing):
            found += method_faults(f"{name}.{method_name}", method, has)
    return found


def method_faults(name: str, method: Callable, of_class: set[str]) -> list[str]:
    """A method needs a docstring that names every argument, under Parameters or as ``name`` in its text."""
    text = inspect.getdoc(method) or ""
    if not text:
        return [f"{name} has no docstring"]
    has = documented(FunctionDoc(method)) | of_class | set(re.findall(r"`+(\w+)`+", text))
    return [f"{name} does not document its argument {each!r}" for each in arguments(method) if each not in has]


def good(x, *, steps=1):
    """Do it.

    Parameters
    ----------
    x : int
        What.
    steps : int, optional
        How often.

    Examples
    --------
    >>> good(1)
    """


def bad(x, y):
    """Do it.

    Parameters
    ----------
    x, z : int
        What.
    """


@dataclasses.dataclass
class Bare:
    x: int


class Record(NamedTuple):
    """A result.

    Attributes
    ----------
    x : int
        What.
    """

    x: int
    y: int


def test_faults_are_found():
    assert faults("good", good) == []
    assert faults("bad", bad) == [
        "bad has no example under Examples",
        "bad does not document its argument 'y'",
        "bad documents 'z', which is no argument",
    ]
    assert faults("Bare", Bare) == ["Bare has no docstring"]
    assert faults("Record", Record) == ["Record does not document its argument 'y'"]
    assert method_faults("m", lambda x: None, set()) == ["m has no docstring"]
    assert method_faults("bad", bad, set()) == ["bad does not document its argument 'y'"]


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_says_what_it_is(wing):
    assert (importlib.import_module(f"solomonic.{wing}").__doc__ or "").strip()


@pytest.mark.parametrize("wing", WINGS)
def test_public_names_are_documented(wing):
    found = [fault for name, thing in public_objects(wing) for fault in faults(name, thing)]
    assert not found, f"{len(found)} gaps in docstrings:\n" + "\n".join(found)
