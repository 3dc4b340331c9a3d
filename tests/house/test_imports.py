"""Imports run downwards only, the namespace stays open, and optional parts are loaded when used."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .tree import MODULES, ROOT, WINGS, pyproject, run_python

ALLOWED = {
    "realization": set(),
    "kernels": set(),
    "models": {"kernels"},
    "probes": {"models", "kernels", "realization"},
}
# Packages whose distribution has another name.
DISTRIBUTION_OF = {"sklearn": "scikit-learn"}
# Loaded when used: importing a wing must not need them. A file that cannot do without one says so in its path
# (kernels/.../triton/ssd.py, models/.../transformers_qwen3.py) and is itself imported when used.
LATE = ("triton", "transformers", "dask")
ANYWHERE = {"solomonic", *sys.stdlib_module_names}


class Import(NamedTuple):
    name: str  # dotted, absolute
    line: int
    at_import: bool  # runs when the module is imported: neither in a function nor under TYPE_CHECKING


def package_of(path: Path) -> list[str]:
    """The package that relative imports of a module start from."""
    return list(path.relative_to(ROOT).parts[1:-1])


def imports_of(source: str, package: list[str]) -> Iterator[Import]:
    """Every import of a module, those inside functions and the literal ones of ``import_module`` included."""

    def walk(node: ast.AST, at_import: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_import)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                yield Import(".".join([*module, alias.name]), node.lineno, at_import)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield Import(argument.value, node.lineno, at_import)
        for child in ast.iter_child_nodes(node):
            lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
                isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and child in node.body
            )
            yield from walk(child, at_import and not lazy)

    yield from walk(ast.parse(source), True)


def imports_of_wing(wing: str) -> Iterator[tuple[Path, Import]]:
    for path in MODULES:
        if path.relative_to(ROOT).parts[0] == wing:
            for found in imports_of(path.read_text(encoding="utf-8"), package_of(path)):
                yield path.relative_to(ROOT), found


def wing_of(name: str) -> str | None:
    """The wing that an absolute import reaches into; ``solomonic`` itself gives the name after it."""
    parts = name.split(".")
    return parts[1] if parts[0] == "solomonic" and len(parts) > 1 else None


def distributions(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in requirements}


def test_the_reader_of_imports_sees_every_kind():
    source = """
import torch.nn as nn
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import transformers
else:
    import numpy
from ..models import load
from . import memory
from solomonic import kernels
def late():
    import triton
    importlib.import_module("solomonic.probes")
"""
    found = {(each.name, each.at_import) for each in imports_of(source, ["solomonic", "realization"])}
    assert found == {
        ("torch.nn", True),
        ("typing.TYPE_CHECKING", True),
        ("transformers", False),
        ("numpy", True),
        ("solomonic.models.load", True),
        ("solomonic.realization.memory", True),
        ("solomonic.kernels", True),
        ("triton", False),
        ("solomonic.probes", False),
    }


@pytest.mark.parametrize("wing", WINGS)
def test_imports_run_downwards(wing):
    wrong = [
        f"{path}:{each.line} imports {each.name}"
        for path, each in imports_of_wing(wing)
        if (reached := wing_of(each.name)) is not None and reached not in {wing, *ALLOWED[wing]}
    ]
    assert not wrong, f"{wing} may import {sorted(ALLOWED[wing]) or 'no other wing'}:\n" + "\n".join(wrong)


def test_every_wing_has_modules():
    roots = {path.relative_to(ROOT).parts[:3] for path in MODULES}
    assert roots == {(wing, "solomonic", wing) for wing in WINGS}, "the modules of a wing live in WING/solomonic/WING/"


@pytest.mark.parametrize("wing", WINGS)
def test_the_namespace_stays_open(wing):
    for package in (ROOT / wing, ROOT / wing / "solomonic"):
        assert not (package / "__init__.py").exists(), (
            f"{package.relative_to(ROOT)}/__init__.py would close the namespace package solomonic: remove it"
        )
    assert (ROOT / wing / "solomonic" / wing / "__init__.py").is_file()


def test_realization_does_not_import_torch():
    wrong = [
        f"{path}:{each.line} imports {each.name}"
        for path, each in imports_of_wing("realization")
        if each.at_import and each.name.split(".")[0] == "torch"
    ]
    assert not wrong, "realization works without torch: import it inside the function\n" + "\n".join(wrong)


@pytest.mark.parametrize("wing", WINGS)
def test_optional_parts_are_imported_when_used(wing):
    wrong = [
        f"{path}:{each.line} imports {each.name}"
        for path, each in imports_of_wing(wing)
        if each.at_import
        and (late := each.name.split(".")[0]) in LATE
        and not any(late in part for part in path.with_suffix("").parts)
    ]
    assert not wrong, "import it where it is used, or name the file or folder after it:\n" + "\n".join(wrong)


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_needs_only_declared_distributions(wing):
    project = pyproject()["project"]
    always = distributions(project["dependencies"])
    extras = distributions([line for lines in project["optional-dependencies"].values() for line in lines])
    wrong = []
    for path, each in imports_of_wing(wing):
        top = each.name.split(".")[0]
        late_file = any(late in part for part in path.with_suffix("").parts for late in LATE)
        may = always | extras if late_file or not each.at_import else always
        if top not in ANYWHERE and canonicalize_name(DISTRIBUTION_OF.get(top, top)) not in may:
            wrong.append(f"{path}:{each.line} imports {each.name}")
    assert not wrong, (
        "pyproject.toml does not declare it (at module level only [project] dependencies count):\n" + "\n".join(wrong)
    )


IMPORT_WITHOUT = """
import importlib, pkgutil, sys

class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in {absent!r} else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Without, sys.meta_path)
wing = importlib.import_module("solomonic.{wing}")
if {everything!r}:
    for module in pkgutil.walk_packages(wing.__path__, wing.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
for name in getattr(wing, "__all__", []):
    getattr(wing, name)
print(sorted({absent!r} & {{name.split(".")[0] for name in sys.modules}}))
"""


def test_realization_and_all_its_modules_import_without_torch():
    absent = {"torch", *LATE}
    assert run_python(IMPORT_WITHOUT.format(absent=absent, wing="realization", everything=True)) == "[]\n"


@pytest.mark.parametrize("wing", WINGS)
def test_wings_import_without_the_optional_parts(wing):
    assert run_python(IMPORT_WITHOUT.format(absent=set(LATE), wing=wing, everything=False)) == "[]\n"
