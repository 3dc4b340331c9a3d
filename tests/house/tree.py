"""What the house tests know of the tree: its root, wings and modules, and the files that git would keep."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WINGS = ("realization", "kernels", "models", "probes")
MODULES = sorted(path for wing in WINGS for path in (ROOT / wing).rglob("*.py"))


def pyproject() -> dict:
    """The parsed pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def kept_files() -> list[Path]:
    """The files that git tracks or would add, relative to the root; in a fresh clone the tracked ones."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        if os.environ.get("SOLOMONIC_REQUIRE_ALL"):
            raise
        pytest.skip(f"not a git checkout: {error}")
    return sorted({Path(name) for name in listing.split("\0") if name and (ROOT / name).is_file()})


def run_python(code: str, *flags: str, cwd: Path | None = None) -> str:
    """Run ``code`` in a new interpreter without PYTHON* variables; return what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [sys.executable, *flags, "-c", code]
    done = subprocess.run(command, cwd=cwd or ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{code}\n\nended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout
