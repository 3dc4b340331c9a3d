"""Arrays in one file, whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from .._validate import Array

__all__ = ["load_arrays", "save_arrays"]


def save_arrays(path: Any, kind: str, arrays: dict[str, Array], **facts: Any) -> Path:
    """Write arrays and a few facts (JSON) as .npz beside ``path`` and rename when complete; return the path."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path: the folder {path.parent} does not exist; make it first")
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    header = np.array(json.dumps({"kind": kind, **facts}))
    try:
        with beside.open("wb") as file:
            np.savez(file, _header=header, **arrays)  # pyright: ignore[reportArgumentType]
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def load_arrays(path: Any, kind: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read what :func:`save_arrays` wrote; raise where the file is absent or holds something else."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: expected a file written by {kind}.save, got {path}, which does not exist")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        facts = json.loads(str(arrays.pop("_header")))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ValueError(f"path: expected a file written by {kind}.save, got {path} ({error})") from error
    if facts.pop("kind", None) != kind:
        raise ValueError(f"path: expected a file written by {kind}.save, got another one, {path}")
    return arrays, facts
