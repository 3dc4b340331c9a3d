"""The folder of a report appears whole or not at all, and nothing of the user's is lost."""

import errno
import json
import os

import pytest

from solomonic.probes.report.folder import FORMAT, report_folder


def write(beside, text="new"):
    (beside / "index.html").write_text(text)
    (beside / "summary.json").write_text(json.dumps({"format": FORMAT, "files": ["index.html"]}))


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_new_folder_appears_when_it_is_complete(tmp_path):
    out = tmp_path / "a" / "report"
    with report_folder(out) as beside:
        write(beside)
        assert not out.exists()
    assert names(out) == ["index.html", "summary.json"]
    assert names(out.parent) == ["report"]


def test_an_empty_folder_is_used(tmp_path):
    out = tmp_path / "report"
    out.mkdir(mode=0o750)
    with report_folder(out) as beside:
        write(beside)
    assert names(out) == ["index.html", "summary.json"]
    assert out.stat().st_mode & 0o777 == 0o750


def test_an_earlier_report_is_replaced_and_the_users_files_stay(tmp_path):
    out = tmp_path / "report"
    with report_folder(out) as beside:
        write(beside, "old")
    (out / "notes.txt").write_text("mine")
    (out / "mine").mkdir()
    (out / "mine" / "x").write_text("y")
    (out / "link").symlink_to("notes.txt")
    with report_folder(out) as beside:
        write(beside, "new")
    assert (out / "index.html").read_text() == "new"
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "mine" / "x").read_text() == "y"
    assert os.readlink(out / "link") == "notes.txt"
    assert names(tmp_path) == ["report"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("when", ["writing", "renaming"])
def test_an_interruption_leaves_the_earlier_report(tmp_path, monkeypatch, error, when):
    out = tmp_path / "report"
    with report_folder(out) as beside:
        write(beside, "old")
    replace = os.replace
    calls = []

    def fail(source, target):
        calls.append(source)
        if when == "renaming" and len(calls) == 2:  # the old report has just been moved aside
            raise error
        return replace(source, target)

    monkeypatch.setattr(os, "replace", fail)

    def rewrite():
        with report_folder(out) as beside:
            write(beside, "new")
            if when == "writing":
                raise error

    with pytest.raises(type(error)) as caught:
        rewrite()
    assert (out / "index.html").read_text() == "old"
    assert names(tmp_path) == ["report"]
    if isinstance(error, OSError):
        assert "No space left on device" in str(caught.value)
        assert str(out) in str(caught.value)
        assert "as it was" in str(caught.value)


def test_a_folder_that_is_no_report_is_refused(tmp_path):
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter.tex").write_text("all my work")
    with pytest.raises(ValueError, match="is no report of ours"), report_folder(out):
        pytest.fail("the block must not start")
    assert names(out) == ["chapter.tex"]
    (out / "summary.json").write_text('{"format": "another"}')
    with pytest.raises(ValueError, match="is no report of ours"), report_folder(out):
        pytest.fail("the block must not start")


def test_a_file_is_refused(tmp_path):
    out = tmp_path / "report"
    out.write_text("x")
    with pytest.raises(ValueError, match="expected a folder"), report_folder(out):
        pytest.fail("the block must not start")
    assert out.read_text() == "x"


def test_a_place_that_cannot_be_written_says_so(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(OSError, match="out_dir: cannot write") as caught, report_folder(file / "report"):
        pytest.fail("the block must not start")
    assert str(file) in str(caught.value)


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    real = tmp_path / "real"
    real.mkdir()
    link = tmp_path / "link"
    link.symlink_to(real)
    with report_folder(link) as beside:
        write(beside)
    assert link.is_symlink()
    assert names(real) == ["index.html", "summary.json"]
