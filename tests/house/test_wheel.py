"""The sdist holds the project, the wheel the four wings alone, and every wing works from the wheel."""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from .tree import ROOT, WINGS, kept_files, pyproject, run_python

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> None:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """The folder with the sdist of the tree and the wheel that was built from the sdist."""
    source = tmp_path_factory.mktemp("source")
    for name in kept_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name)
    # what a working checkout has lying about, and git ignores
    for litter in (
        ".venv/litter.py",
        "notebooks/executed/litter.ipynb",
        "kernels/solomonic/kernels/__pycache__/a.pyc",
    ):
        (source / litter).parent.mkdir(parents=True, exist_ok=True)
        (source / litter).write_text("litter")
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source, cwd=out)
    return out


@pytest.fixture(scope="module")
def wheel(dist) -> Path:
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def sdist(dist) -> Path:
    (path,) = dist.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel_names(wheel) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def target(wheel, tmp_path_factory) -> Path:
    """A folder into which the wheel alone is installed."""
    folder = tmp_path_factory.mktemp("target")
    options = ("--quiet", "--no-deps", "--no-index", "--no-compile", "--target", folder)
    run(sys.executable, "-m", "pip", "install", *options, wheel, cwd=folder)
    return folder


def from_wheel(target: Path, tmp_path: Path, code: str) -> str:
    """Run ``code`` where solomonic can come from ``target`` only.

    -S keeps the .pth file of the editable install from being read, -I keeps the current folder off the path.
    The folder with the dependencies is put back as a plain folder, after the wheel's.
    """
    dependencies = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    path = f"import sys; sys.path[:0] = [{str(target)!r}]; sys.path += {dependencies!r}\n"
    return run_python(path + code, "-I", "-S", cwd=tmp_path)


def test_the_wheel_holds_the_wings_and_nothing_else(wheel_names):
    in_wings = {path for path in kept_files() if path.parts[0] in WINGS}
    expected = {PurePosixPath(*path.parts[1:]).as_posix() for path in in_wings}
    found = {name for name in wheel_names if not re.match(r"solomonic-[^/]+\.dist-info/", name)}
    assert not expected - found, f"missing in the wheel: {sorted(expected - found)}"
    assert not found - expected, f"too much in the wheel: {sorted(found - expected)}"
    assert {name.split("/")[0] for name in found} == {"solomonic"}


def test_the_wheel_has_metadata_and_licence(wheel, wheel_names):
    info = f"solomonic-{pyproject()['project']['version']}.dist-info"
    assert {f"{info}/METADATA", f"{info}/licenses/LICENSE", f"{info}/entry_points.txt"} <= wheel_names
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"{info}/METADATA").decode()
    assert "License-Expression: Apache-2.0" in metadata


def test_the_wheel_holds_whole_checkpoints(wheel_names):
    checkpoints = {PurePosixPath(name).parent for name in wheel_names if "/checkpoints/" in name}
    for folder in checkpoints - {PurePosixPath("solomonic/models/checkpoints")}:
        files = {PurePosixPath(name).name for name in wheel_names if PurePosixPath(name).parent == folder}
        assert "config.json" in files, f"{folder} in the wheel has no config.json"
        assert any(name.endswith(".safetensors") for name in files), f"{folder} in the wheel has no weights"


def test_the_sdist_holds_the_project_without_litter(sdist):
    with tarfile.open(sdist) as archive:
        names = {PurePosixPath(*PurePosixPath(name).parts[1:]).as_posix() for name in archive.getnames()}
    wanted = {path.as_posix() for path in kept_files() if path.parts[0] in {*WINGS, "tests", "docs", "notebooks"}}
    assert not wanted - names, f"missing in the sdist: {sorted(wanted - names)}"
    assert {"pyproject.toml", "README.md", "LICENSE", "Makefile", "constraints.txt"} <= names
    assert not [name for name in names if "litter" in name or name.startswith(".venv") or "__pycache__" in name]


def test_the_target_is_the_only_place_of_solomonic(target, tmp_path):
    code = """
import importlib.metadata, json, solomonic
location = importlib.metadata.distribution("solomonic").locate_file("")
print(json.dumps([list(solomonic.__path__), str(location)]))
"""
    path, location = json.loads(from_wheel(target, tmp_path, code))
    assert [Path(folder) for folder in path] == [target / "solomonic"]
    assert Path(location) == target


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_imports_from_the_wheel(target, tmp_path, wing):
    code = f"""
import importlib
wing = importlib.import_module("solomonic.{wing}")
for name in getattr(wing, "__all__", []):
    getattr(wing, name)
print(wing.__file__)
"""
    file = Path(from_wheel(target, tmp_path, code).strip())
    assert file == target / "solomonic" / wing / "__init__.py"


def test_the_zoo_opens_from_the_wheel(target, tmp_path):
    code = """
import solomonic.models as models
names = sorted(models.zoo()) if hasattr(models, "zoo") else []
for name in names:
    models.describe(name)
print(len(names))
"""
    count = int(from_wheel(target, tmp_path, code))
    folders = [path for path in (target / "solomonic/models/checkpoints").glob("*") if (path / "config.json").is_file()]
    assert count == len(folders)


def test_the_command_loads_from_the_wheel(target, tmp_path):
    """Every console script names a function of the wheel; one whose module is not written yet is left out."""
    for entry in pyproject()["project"]["scripts"].values():
        module, function = entry.split(":")
        if (target / module.replace(".", "/")).with_suffix(".py").is_file():
            assert from_wheel(target, tmp_path, f"from {module} import {function} as f\nprint(callable(f))") == "True\n"
