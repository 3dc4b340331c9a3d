"""Results on disk: arrays and a few words in one .npz, written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ._validate import Array

__all__ = ["load_npz", "replace_whole", "save_npz"]


class replace_whole:
    """Context that gives a path beside the target and renames it onto the target when the block ends well."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __enter__(self) -> Path:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.target.parent, prefix=".", suffix=self.target.suffix)
        os.close(handle)
        self.beside = Path(name)
        return self.beside

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            os.replace(self.beside, self.target)
        else:
            self.beside.unlink(missing_ok=True)


def save_npz(path: str | os.PathLike[str], kind: str, arrays: Mapping[str, Array], words: Mapping[str, Any]) -> Path:
    """Write arrays and JSON-able words; the suffix .npz is added where it is missing."""
    target = Path(path)
    target = target if target.suffix == ".npz" else target.with_name(target.name + ".npz")
    about = json.dumps({"kind": kind, **words})
    with replace_whole(target) as beside, beside.open("wb") as file:
        everything: dict[str, Any] = {"__about__": np.array(about), **arrays}
        np.savez_compressed(file, **everything)
    return target


def load_npz(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read what ``save_npz`` wrote, or say what the file is."""
    target = Path(path)
    if not target.is_file() and target.suffix != ".npz":
        target = target.with_name(target.name + ".npz")
    if not target.is_file():
        raise FileNotFoundError(f"path: expected a file written by save, got {str(path)!r}, which does not exist")
    try:
        with np.load(target, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
        words = json.loads(str(arrays.pop("__about__")))
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"path: expected a file written by {kind}.save, got {str(path)!r} ({error})") from error
    if words.get("kind") != kind:
        raise ValueError(f"path: expected a saved {kind}, got a saved {words.get('kind')!r} in {str(path)!r}")
    return arrays, words
