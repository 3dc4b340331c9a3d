"""What a report is about: the models, by name, and the text they read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solomonic.models import HybridLM, load, stdlib_validation, zoo

from ..inputs import as_count, as_ids
from .page import shown

#: Context for models whose windows are small, tokens.
USUAL_LENGTH = 512


@dataclass(frozen=True, eq=False)
class Subject:
    """A model, its name as it can be shown, its folder and its card where it has them."""

    name: str
    model: HybridLM
    folder: Path | None
    card: Mapping[str, Any]

    @property
    def window(self) -> int | None:
        """The largest window of its layers, tokens; None where no layer has one."""
        return largest_window(self.model)


@dataclass(frozen=True, eq=False)
class Text:
    """Windows of token ids [prompts, T] and what they were taken from; whether that is the standard library."""

    ids: Tensor
    source: str
    library: bool = False


def subjects(models: Any, name: str | None = None) -> list[Subject]:
    """The models of a report: one or several, each a model, a folder or a name in the zoo."""
    if isinstance(models, Mapping):
        given = {str(key): value for key, value in models.items()}
    elif isinstance(models, HybridLM | str | Path):
        given = {name or _name(models): models}
    elif isinstance(models, Iterable):
        given = {}
        for model in models:
            base = label = _name(model)
            number = 2
            while label in given:
                label, number = f"{base} {number}", number + 1
            given[label] = model
    else:
        raise TypeError(
            "models: expected a HybridLM, a folder, a name in the zoo, or several of them in a list or by name in a "
            f"mapping, got {type(models).__name__}"
        )
    if not given:
        raise ValueError("models: expected at least one, got none")
    if name is not None and len(given) > 1:
        raise ValueError(f"name: is for one model, got {len(given)}; give a mapping from names to models")
    return [_subject(shown(label), model) for label, model in given.items()]


def _name(model: Any) -> str:
    if isinstance(model, HybridLM):
        return "-".join(dict.fromkeys(model.config.pattern))
    if not isinstance(model, str | Path):
        raise TypeError(f"models: expected a HybridLM, a folder or a name in the zoo, got {type(model).__name__}")
    return str(model) if str(model) in zoo() else Path(model).resolve().name


def _subject(name: str, model: Any) -> Subject:
    if isinstance(model, HybridLM):
        return Subject(name, model.eval(), None, {})
    if not isinstance(model, str | Path):
        raise TypeError(
            f"models[{name!r}]: expected a HybridLM, a folder or a name in the zoo, got {type(model).__name__}"
        )
    folder = Path(model) if Path(model).is_dir() else zoo().get(str(model))
    return Subject(name, load(model), folder, read_card(folder))


def read_card(folder: Path | None) -> dict[str, Any]:
    """The card of a checkpoint; empty where there is none or it cannot be read."""
    if folder is None:
        return {}
    try:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}


def look_up(card: Mapping[str, Any], *keys: str) -> Any:
    """A value deep in a card; None where a key on the way is missing."""
    value: Any = card
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value


def largest_window(model: HybridLM) -> int | None:
    """The largest window of a model's layers, tokens."""
    pattern = model.config.pattern
    windows = [model.config.swa_window] * ("SWA" in pattern) + [model.config.bmojo_window] * ("BMF" in pattern)
    return max((w for w in windows if w), default=None)


def context(given: list[Subject], length: int | None) -> int:
    """How long the windows of text are: long enough to see what lies beyond 2W."""
    if length is not None:
        return as_count(length, "length", 8)
    widest = max((s.window or 0 for s in given), default=0)
    return max(USUAL_LENGTH, 4 * widest)


def text_for(given: list[Subject], text: Any, windows: int, length: int, rng: np.random.Generator) -> Text:
    """The windows that all models of a report read.

    ``text`` is bytes or a string (for models of bytes), token ids [prompts, T] (for any), or None: the validation
    files of the standard library.
    """
    windows = as_count(windows, "windows")
    sizes = {s.model.config.vocab_size for s in given}
    if len(sizes) > 1:
        listed = ", ".join(f"{s.name} {s.model.config.vocab_size}" for s in given)
        raise ValueError(f"models: expected one vocabulary, so that all read the same text, got {listed}")
    size = sizes.pop()
    if text is not None and not isinstance(text, str | bytes | bytearray):
        ids = as_ids(text, given[0].model, name="text", least=8)
        return Text(ids[:windows], f"the caller's {min(windows, len(ids))} prompts of {ids.shape[1]} tokens")
    if size != 256:
        raise ValueError(
            f"text: a model with a vocabulary of {size} tokens needs token ids [prompts, T]; text is read as bytes "
            "only for models of 256 tokens"
        )
    if text is not None:
        data = np.frombuffer(text.encode() if isinstance(text, str) else bytes(text), dtype=np.uint8)
        starts = _starts(len(data), windows, length, rng, "text")
        return Text(_rows(data, starts, length), f"the caller's text of {len(data):,} bytes")
    data = stdlib_validation()
    starts = _starts(len(data), windows, length, rng, "length")
    source = f"validation files of the Python standard library, {len(data):,} bytes"
    return Text(_rows(data, starts, length), source, library=True)


def _starts(size: int, windows: int, length: int, rng: np.random.Generator, name: str) -> np.ndarray:
    """Where windows begin, so that no two overlap."""
    room = size // length
    if room < windows:
        raise ValueError(
            f"{name}: {size:,} bytes hold {room} windows of {length} tokens that do not overlap, but {windows} are "
            "wanted; give a longer text, fewer windows or a smaller length"
        )
    slack = size - room * length
    return np.sort(rng.permutation(room)[:windows]) * length + int(rng.integers(slack + 1))


def _rows(data: np.ndarray, starts: np.ndarray, length: int) -> Tensor:
    return torch.from_numpy(data[starts[:, None] + np.arange(length)].astype(np.int64))
