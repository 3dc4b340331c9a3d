"""Which patches a causal trace makes: parts, layers and times that are there and touch something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from solomonic.models import AdaptedLM, HybridLM

from .inputs import as_layers, log_spaced

__all__ = ["ALL", "CONTROLS", "PATHS", "Plan"]

#: The name that stands for all parts of a layer.
ALL = "all"
CONTROLS = ("resample", "random", "shuffle")
#: Through which memories a patch reaches the last token: all, the patched layer's own, those of the other layers.
PATHS = ("total", "direct", "indirect")


@dataclass(eq=False)
class Plan:
    """What is patched, in arrays [part, layer, time]."""

    parts: list[str]
    layers: tuple[int, ...]
    times: np.ndarray
    exists: np.ndarray
    exact: np.ndarray


def default_times(first: int, length: int, count: int = 64) -> np.ndarray:
    """Up to ``count`` tokens from ``first`` to ``length`` - 2, evenly spaced in the logarithm of their lag."""
    last = length - 1
    most = last - first
    if most <= count:
        return np.arange(first, last)
    asked = count
    while (lags := log_spaced(1, most, asked)).size < count:
        asked += 1
    return np.sort(last - lags[np.unique(np.linspace(0, lags.size - 1, count).round().astype(int))])


def as_plan(model: HybridLM | AdaptedLM, clean: Tensor, corrupt: Tensor, layers: Any, times: Any, parts: Any) -> Plan:
    differs = (clean != corrupt).any(0).nonzero()
    steps = clean.shape[1]
    if not len(differs):
        raise ValueError("corrupt_ids: the prompts are the same as clean_ids: there is nothing to trace")
    first = int(differs[0])
    if first > steps - 2:
        raise ValueError(
            f"corrupt_ids: only the last token differs, {first}; a patch after it is read by no token. Add one"
        )
    if times is None:
        chosen = default_times(first, steps)
    else:
        chosen = np.atleast_1d(np.asarray(list(times)))
        if chosen.size == 0 or not np.issubdtype(chosen.dtype, np.integer):
            raise ValueError(f"times: expected whole numbers, at least one, got {chosen.tolist()}")
        if chosen.min() < first or chosen.max() > steps - 2:
            bad = int(chosen.min()) if chosen.min() < first else int(chosen.max())
            raise ValueError(
                f"times: expected tokens from {first}, the first that differs between the prompts, to {steps - 2}, the "
                f"last that another follows; got {bad}, where a patch would touch nothing"
            )
        chosen = np.unique(chosen).astype(np.int64)
    which = as_layers(layers, len(model.config.pattern))
    of_layer = [list(model.empty_memory().layers[i]) for i in which]
    known = list(dict.fromkeys(part for found in of_layer for part in found))
    if not known:
        raise ValueError(f"layers: none of {list(which)} has a memory")
    if parts is None:
        names = known + ([ALL] if any(len(found) > 1 for found in of_layer) else [])
    else:
        names = list(dict.fromkeys([parts] if isinstance(parts, str) else list(parts)))
        bad = [name for name in names if name != ALL and name not in known]
        if bad or not names:
            raise ValueError(f"parts: expected some of {[*known, ALL]}, got {bad or names}")
    exists = np.array([[bool(found) if name == ALL else name in found for found in of_layer] for name in names])
    exists = np.repeat(exists[:, :, None], chosen.size, 2)
    return Plan(names, which, chosen, exists, exists.copy())


def as_controls(controls: Any, prompts: int) -> list[str]:
    if controls is None:
        return [each for each in CONTROLS if each != "resample" or prompts > 1]
    chosen = list(dict.fromkeys([controls] if isinstance(controls, str) else list(controls)))
    bad = [each for each in chosen if each not in CONTROLS]
    if bad:
        raise ValueError(f"controls: expected some of {', '.join(CONTROLS)}, got {bad[0]!r}")
    if "resample" in chosen and prompts < 2:
        raise ValueError("controls: 'resample' takes the memory of another prompt, and there is one only; give several")
    return chosen


def as_paths(paths: Any) -> tuple[str, ...]:
    """The paths whose effects are measured, in the order of ``PATHS``; the total is always one of them."""
    if paths is None:
        return PATHS
    chosen = [paths] if isinstance(paths, str) else list(paths)
    bad = [each for each in chosen if each not in PATHS]
    if bad:
        raise ValueError(f"paths: expected some of {', '.join(PATHS)}, got {bad[0]!r}")
    return tuple(each for each in PATHS if each == "total" or each in chosen)


def subset(plan: Plan, count: int, random: np.random.Generator) -> None:
    places = np.flatnonzero(plan.exists)
    if count > places.size:
        raise ValueError(f"exact: expected at most the {places.size} patches that there are, got {count}")
    plan.exact = np.zeros_like(plan.exists)
    plan.exact.flat[random.choice(places, count, replace=False)] = True
