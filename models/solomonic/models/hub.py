"""Checkpoints from the Hugging Face Hub, at a pinned revision."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .checkpoint import INDEX, WEIGHTS, load
from .lm import HybridLM

_FILES = ("config.json", WEIGHTS, INDEX, "model-*.safetensors")


def from_hub(repo_id: str, *, revision: str, cache_dir: str | Path | None = None, **options: Any) -> HybridLM:
    """Download a published checkpoint and load it.

    Parameters
    ----------
    repo_id : str
        Such as ``"amazon/BMOJOF-primed-HQwen3-8B-Instruct"``.
    revision : str
        The full hash of the commit, 40 hexadecimal digits: branches and tags move, and with them what is measured.
    cache_dir : path or None
        Where files are kept; the Hub's usual cache if not given.
    **options
        Passed on to :func:`load`: ``dtype``, ``device``, ``device_map``, ``max_memory``.

    Returns
    -------
    HybridLM
        As :func:`load` gives it. Only ``config.json`` and safetensors files are fetched; no code is run.

    Raises
    ------
    ValueError
        If the revision is no commit hash, or the checkpoint is damaged.
    ImportError
        If huggingface_hub is not installed.

    Examples
    --------
    >>> from solomonic.models import from_hub
    >>> from_hub("amazon/BMOJOF-primed-HQwen3-8B-Instruct", revision="main")
    Traceback (most recent call last):
        ...
    ValueError: revision: expected the hash of a commit (40 hexadecimal digits), got 'main'; ...
    """
    if not isinstance(revision, str) or not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ValueError(
            f"revision: expected the hash of a commit (40 hexadecimal digits), got {revision!r}; branches and tags "
            f"move: take the hash from the page of {repo_id}, under Files, History"
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ImportError(
            "from_hub: needs huggingface_hub, which is not installed; pip install 'solomonic[hub]'"
        ) from error
    folder = snapshot_download(repo_id, revision=revision, cache_dir=cache_dir, allow_patterns=list(_FILES))
    return load(folder, **options)
