"""constraints.txt is sorted and well formed, and pins exactly what the package and its groups need."""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .tree import ROOT, pyproject

LINES = [
    line
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
# What a torch built for CUDA brings along is pinned by torch itself.
PINNED_BY_TORCH = re.compile(r"nvidia-|cuda-")


def roots() -> Iterator[Requirement]:
    project = pyproject()
    lines = list(project["project"]["dependencies"])
    for extra in project["project"]["optional-dependencies"].values():
        lines += extra
    for group in project["dependency-groups"].values():
        lines += [line for line in group if isinstance(line, str)]
    return map(Requirement, lines)


def needed() -> set[str]:
    """The names that the roots need in this environment, read from the metadata of what is installed."""
    names, queue, seen = set(), list(roots()), set()
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras} - {extra for seen_name, extra in seen if seen_name == name}:
            seen.add((name, extra))
            environment = {**default_environment(), "extra": extra}
            names.add(name)
            queue += [
                child
                for child in map(Requirement, distribution(name).requires or [])
                if child.marker is None or child.marker.evaluate(environment)
            ]
    return names


def test_lines_are_pins_in_order():
    requirements = [Requirement(line) for line in LINES]
    for line, requirement in zip(LINES, requirements, strict=True):
        operators = [specifier.operator for specifier in requirement.specifier]
        assert operators == ["=="], f"{line!r} in constraints.txt is not a pin"
        assert requirement.url is None, f"{line!r} in constraints.txt is not a release"
    names = [canonicalize_name(requirement.name) for requirement in requirements]
    assert names == sorted(set(names))
    assert "solomonic" not in names


def test_pins_lie_within_the_ranges():
    pins = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in map(Requirement, LINES)}
    for requirement in roots():
        pin = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin), f"constraints.txt pins {pin}, not in {requirement}"


@pytest.mark.skipif(
    sys.platform != "linux" or sys.version_info[:2] != (3, 11),
    reason="the pins are Linux's and Python 3.11's",
)
def test_pins_are_what_the_environment_needs():
    try:
        names = {name for name in needed() if not PINNED_BY_TORCH.match(name)}
    except PackageNotFoundError as error:
        pytest.fail(f"{error.name} is needed but not installed: run make venv")
    pinned = {canonicalize_name(Requirement(line).name) for line in LINES}
    assert not names - pinned, f"needed but not pinned: {sorted(names - pinned)}"
    assert not pinned - names, f"pinned but not needed: {sorted(pinned - names)}"
