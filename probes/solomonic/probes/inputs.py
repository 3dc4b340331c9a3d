"""Checks of what a probe is given: token ids, layers, lags, and the source of random numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solomonic.models import AdaptedLM, HybridLM, adapt
from solomonic.models.adapters.adapted import is_of_transformers

__all__ = ["NothingToMeasure", "as_cuts", "as_ids", "as_lags", "as_layers", "as_level", "as_model", "as_rng"]


class NothingToMeasure(ValueError):
    """A model or a text does not have what a probe measures: nothing is wrong with the call, or with the model.

    Examples
    --------
    >>> from solomonic.probes import NothingToMeasure
    >>> issubclass(NothingToMeasure, ValueError)
    True
    """


def as_model(model: Any, *, name: str = "model") -> HybridLM | AdaptedLM:
    """A model with an explicit memory; one of transformers is adapted."""
    if is_of_transformers(model):
        return adapt(model)
    if not isinstance(model, HybridLM | AdaptedLM):
        raise TypeError(
            f"{name}: expected a HybridLM, an AdaptedLM or a model of transformers, got {type(model).__name__}"
        )
    return model


def as_ids(ids: Any, model: HybridLM | AdaptedLM, *, name: str = "ids", least: int = 1) -> Tensor:
    """Token ids as an int64 tensor [prompts, T]; one axis is one prompt."""
    value = ids if isinstance(ids, Tensor) else torch.as_tensor(np.asarray(ids))
    if value.dtype == torch.bool or value.is_floating_point() or value.is_complex():
        raise TypeError(f"{name}: expected integers [T] or [prompts, T], got {value.dtype}")
    if value.ndim not in (1, 2):
        raise ValueError(f"{name}: expected one or two axes, [T] or [prompts, T], got shape {tuple(value.shape)}")
    value = value.detach().to("cpu", torch.int64)
    value = value[None] if value.ndim == 1 else value
    if value.numel() == 0:
        raise ValueError(f"{name}: expected at least one token, got an empty prompt of shape {tuple(value.shape)}")
    if value.shape[1] < least:
        raise ValueError(f"{name}: expected at least {least} tokens a prompt, got {value.shape[1]}")
    low, high = int(value.min()), int(value.max())
    size = model.config.vocab_size
    if low < 0 or high >= size:
        raise ValueError(f"{name}: expected tokens from 0 to {size - 1}, got {low if low < 0 else high}")
    return value


def as_layers(layers: Any, count: int, *, name: str = "layers") -> tuple[int, ...]:
    """Layer numbers (or those of what ``name`` says) in order, all of them for None."""
    what = name.removesuffix("s")
    if layers is None:
        return tuple(range(count))
    chosen = [layers] if isinstance(layers, int | np.integer) else list(layers)
    for each in chosen:
        if isinstance(each, bool) or not isinstance(each, int | np.integer) or not 0 <= each < count:
            raise ValueError(f"{name}: expected {what}s from 0 to {count - 1}, got {each!r}")
    if not chosen:
        raise ValueError(f"{name}: expected at least one {what}, got none")
    return tuple(sorted({int(each) for each in chosen}))


def as_lags(lags: Iterable[int] | np.ndarray, length: int) -> np.ndarray:
    """Lags in tokens, ascending and without repetition, from 1 to T - 1."""
    value = np.atleast_1d(np.asarray(list(lags) if not isinstance(lags, np.ndarray) else lags))
    if value.ndim != 1 or value.size == 0 or not np.issubdtype(value.dtype, np.integer):
        raise ValueError(f"lags: expected whole numbers, at least one, got {lags!r}")
    if value.min() < 1:
        raise ValueError(f"lags: expected at least 1 token, got {int(value.min())}")
    if value.max() > length - 1:
        raise ValueError(
            f"lags: a prompt of {length} tokens has lags from 1 to {length - 1}, got {int(value.max())}; "
            "give longer prompts or smaller lags"
        )
    return np.unique(value).astype(np.int64)


def as_cuts(cuts: Iterable[int] | int, length: int) -> np.ndarray:
    """Cuts from 1 to T - 1, ascending; a whole number asks for that many evenly spaced ones."""
    if length < 2:
        raise ValueError(f"cuts: a cut needs tokens on both sides, got a text of {length}")
    if isinstance(cuts, int | np.integer) and not isinstance(cuts, bool):
        count = as_count(cuts, "cuts")
        return np.unique(np.rint(np.linspace(1, length - 1, count + 2)[1:-1]).astype(np.int64))
    value = np.asarray([*cuts] if isinstance(cuts, Iterable) else cuts)
    if value.ndim != 1 or value.size == 0 or not np.issubdtype(value.dtype, np.integer):
        raise ValueError(f"cuts: expected whole numbers, at least one, got {cuts!r}")
    if value.min() < 1 or value.max() > length - 1:
        raise ValueError(f"cuts: a text of {length} tokens has cuts from 1 to {length - 1}, got {cuts!r}")
    return np.unique(value).astype(np.int64)


def one_text(model: HybridLM | AdaptedLM, ids: Any) -> Tensor:
    """Token ids [1, T] of one text."""
    text = as_ids(ids, model)
    if len(text) != 1:
        raise ValueError(f"ids: expected one text [T], got {len(text)} prompts")
    return text


def state_layers(model: HybridLM | AdaptedLM, layers: Iterable[int] | int | None) -> tuple[int, ...]:
    """The layers asked for, which must have a state; all that have one for None."""
    pattern = model.config.pattern
    chosen = as_layers(layers, len(pattern))
    parts = model.empty_memory().layers
    stateful = [isinstance(parts[i].get("state"), Tensor) for i in range(len(pattern))]
    if layers is None:
        chosen = tuple(i for i in chosen if stateful[i])
    lacking = [i for i in chosen if not stateful[i]]
    if lacking or not chosen:
        where = (
            f"layer {lacking[0]} ({pattern[lacking[0]]}) has none" if lacking else f"none of {'-'.join(pattern)} has"
        )
        raise ValueError(f"layers: expected layers with a state space state; {where}")
    return chosen


def finite(value: Tensor, what: str) -> Tensor:
    """The value itself; raises where an entry is NaN or infinite. ``what`` names it, "the logits" say."""
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"model: {what} are NaN or infinite, so that nothing can be measured; look at its weights")
    return value


def as_tolerance(tol: Any) -> float:
    """A relative tolerance from 0 to below 1."""
    if isinstance(tol, bool) or not isinstance(tol, int | float | np.number) or not 0 <= tol < 1:
        raise ValueError(f"tol: expected a relative tolerance from 0 to below 1, got {tol!r}")
    return float(tol)


def as_level(value: Any, name: str) -> float:
    """A share strictly between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < float(value) < 1:
        raise ValueError(f"{name}: expected a number between 0 and 1, got {value!r}")
    return float(value)


def as_count(value: Any, name: str, least: int = 1) -> int:
    """A whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")
    return int(value)


def as_rng(rng: int | np.random.Generator | None) -> tuple[np.random.Generator, int | str]:
    """A generator, and what to write down of it: its seed, or that it was handed in."""
    if isinstance(rng, np.random.Generator):
        return rng, "a generator was given"
    if rng is None:
        seed = int(np.random.SeedSequence().generate_state(1, np.uint32)[0])
    elif isinstance(rng, bool) or not isinstance(rng, int | np.integer) or rng < 0:
        raise TypeError(f"rng: expected an int of at least 0, a numpy Generator or None, got {rng!r}")
    else:
        seed = int(rng)
    return np.random.default_rng(seed), seed


def log_spaced(low: int, high: int, count: int) -> np.ndarray:
    """About ``count`` whole numbers from ``low`` to ``high``, evenly spaced in their logarithm."""
    return np.unique(np.rint(np.geomspace(low, high, count)).astype(np.int64))


def within(values: Sequence[int] | np.ndarray, low: int, high: int) -> np.ndarray:
    """The distinct values between two bounds, ascending."""
    value = np.unique(np.asarray(values, dtype=np.int64))
    return value[(value >= low) & (value <= high)]
