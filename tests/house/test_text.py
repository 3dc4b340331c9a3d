"""The text of the repository: no paths of a machine, short modules, commands that exist, one version."""

import re

import pytest

from .tree import MODULES, ROOT, kept_files, pyproject

LONGEST_MODULE = 600
# The strings are put together here so that this file does not contain them.
FORBIDDEN = {
    "a path of a machine": re.compile(r"(?<![\w.>])/" + r"(?:work|root|tmp|home/\w+|Users/\w+)\b(?!\w)"),
    "a package registry": re.compile(
        "|".join(re.escape(host) for host in ("pypi" + ".org", "pythonhosted" + ".org", "npmjs" + ".org"))
    ),
    "a setting for one registry": re.compile("index" + "-url|find" + "-links"),
}
BESIDE = re.compile(r"\.\./" + "shared")
MAY_LOOK_BESIDE = ("tests/", ".ci/run")


def text_of(path) -> str | None:
    """The text of a kept file, None if it is not text."""
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def places(pattern: re.Pattern[str], skip: tuple[str, ...] = ()) -> list[str]:
    return [
        f"{path}:{number}: {line.strip()[:120]}"
        for path in kept_files()
        if not path.as_posix().startswith(skip or ("\0",)) and (text := text_of(path)) is not None
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line)
    ]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_text_names_no_machine(what):
    found = places(FORBIDDEN[what])
    assert not found, f"{what} in the text of the repository:\n" + "\n".join(found)


def test_only_tests_look_beside_the_checkout():
    found = places(BESIDE, MAY_LOOK_BESIDE)
    assert not found, "only tests may look beside the checkout:\n" + "\n".join(found)


def test_the_patterns_find_what_they_forbid():
    path, registry, setting = FORBIDDEN.values()
    for bad in ("see /" + "work/main", "cd /" + "tmp", "(/" + "home/ann/x)", "'/" + "root/.cache'"):
        assert path.search(bad), bad
    for good in ("https://a.org/" + "work/main", "at work/tmp", "/worker", "../tmp"):
        assert not path.search(good), good
    assert registry.search("https://pypi" + ".org/simple")
    assert setting.search("pip install --index" + "-url=x")


def test_modules_are_short():
    lengths = {path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    long = [f"{path}: {length} lines" for path, length in lengths.items() if length > LONGEST_MODULE]
    assert not long, f"a module has one job and at most {LONGEST_MODULE} lines:\n" + "\n".join(long)


def test_local_links_lead_somewhere():
    """In the files that are read in the repository itself; those of the site Sphinx checks."""
    missing = [
        f"{name}: {link}"
        for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
        for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text(encoding="utf-8"))
        if not re.match(r"https?:|mailto:|#", link) and not (ROOT / link.partition("#")[0]).exists()
    ]
    assert not missing, "these links lead nowhere:\n" + "\n".join(missing)


def make_targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))


def test_commands_in_the_text_exist():
    wanted = {
        (path.name, target)
        for path in kept_files()
        if path.suffix == ".md" and path.parts[0] in {"README.md", "CONTRIBUTING.md", "docs", "notebooks"}
        for target in re.findall(r"(?:^|`|\$ )make ([a-z]+)\b", text_of(path) or "", flags=re.MULTILINE)
    }
    assert make_targets() >= {"venv", "test", "lint", "docs", "notebooks", "report", "bench", "help"}
    missing = sorted((file, target) for file, target in wanted if target not in make_targets())
    assert not missing, f"the Makefile has no such target: {missing}"


def test_ci_runs_the_tests_last():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    commands = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    assert commands[-1] == "make test"


def test_one_version_everywhere():
    version = pyproject()["project"]["version"]
    citation = re.search(r"^version: [\"']?([^\"'\s]+)", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    entry = re.search(r"^## \[?([^\]\s]+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert citation is not None, "CITATION.cff has no version"
    assert entry is not None, "CHANGELOG.md has no entry"
    assert (citation[1], entry[1]) == (version, version)
