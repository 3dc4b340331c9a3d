"""The folder of a report: it appears whole or not at all, and nothing of the user's is lost."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

SUMMARY = "summary.json"
CARD = "memory-card.json"
FORMAT = "solomonic-report"


@contextlib.contextmanager
def report_folder(out_dir: str | Path) -> Iterator[Path]:
    """A temporary folder beside ``out_dir`` that takes its place when the block ends without an exception.

    A report that is there is replaced; files in it that are not the report's are carried over. Anything else that is
    there stays and is an error before the block starts.

    Raises
    ------
    ValueError
        If ``out_dir`` is a file, or a folder with something in it that is no report.
    OSError
        If the folder around it cannot be written.
    """
    path = Path(out_dir).expanduser().resolve()
    _check(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        beside.mkdir()
    except OSError as error:
        raise _told(error, f"out_dir: cannot write beside {path}") from error
    try:
        try:
            yield beside
            _carry_over(path, beside)
            _swap(beside, path)
        except OSError as error:
            state = "the report that was there is as it was" if path.exists() else "nothing was left behind"
            raise _told(error, f"out_dir: the report could not be written to {path} ({state})") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _told(error: OSError, message: str) -> OSError:
    """The same kind of error, with what was being done in front of what went wrong."""
    told = type(error)(error.errno or errno.EIO, f"{message}: {error.strerror or error}")
    return told


def _check(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise ValueError(f"out_dir: expected a folder to write the report to, {path} is a file")
    if path.is_dir() and any(path.iterdir()) and _written(path) is None:
        raise ValueError(
            f"out_dir: {path} has files in it and is no report of ours; name a new folder, or one that holds a report"
        )


def _written(path: Path) -> set[str] | None:
    """The names that an earlier report wrote into a folder; None where the folder is no report."""
    try:
        summary = json.loads((path / SUMMARY).read_text(encoding="utf-8"))
        if summary["format"] == FORMAT:
            return {SUMMARY, *map(str, summary["files"])}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _carry_over(path: Path, beside: Path) -> None:
    """Copy what the user has put into an earlier report's folder into the new one."""
    if not path.is_dir():
        return
    own = _written(path) or set()
    for item in path.iterdir():
        target = beside / item.name
        if item.name in own or target.exists():
            continue
        if item.is_dir() and not item.is_symlink():
            shutil.copytree(item, target, symlinks=True)
        else:
            shutil.copy2(item, target, follow_symlinks=False)


def _swap(beside: Path, path: Path) -> None:
    """Put ``beside`` in the place of ``path``; on any failure the old folder is back in its place."""
    if not path.exists():
        os.replace(beside, path)
        return
    shutil.copymode(path, beside)
    old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old.tmp")
    os.replace(path, old)
    try:
        os.replace(beside, path)
    except BaseException:
        os.replace(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)
