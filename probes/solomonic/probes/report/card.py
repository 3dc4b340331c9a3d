"""The numbers of a model's memory that a model card can quote, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from ..inputs import as_level
from ..labelled import versions
from ..statistics import bootstrap_interval
from . import say

#: What a number of the card is.
MEANING = {
    "half_life": (
        "tokens",
        "Half-life of the state at the gates of the run: Kaplan-Meier median over starting points, median over heads",
    ),
    "eidetic_span": (
        "tokens",
        "Last tokens that a layer's registers hold exactly (the largest of all layers); exact, from the nilpotent part "
        "of its realization. None: all of them, without a bound",
    ),
    "eidetic_reach": (
        "tokens",
        "Largest lag at which a token can matter through the registers of all layers, the sum of W - 1. None: no bound",
    ),
    "effective_state": (
        "directions",
        "Directions of a head's state that hold 99.9 % of the Hankel singular values at a cut, mean over cuts, heads "
        "and layers; `of` is how many there are",
    ),
    "effective_registers": (
        "directions",
        "The same of what a softmax reads from its registers",
    ),
    "observable_share": (
        "1",
        "Share of the norm squared of the states in the directions that the next tokens' logits show, mean over layers",
    ),
}


def memory_card(data: Mapping[str, xr.Dataset], *, confidence: float = 0.95, rng: int = 0) -> dict[str, dict[str, Any]]:
    """For each number of :data:`MEANING` that was measured: ``value``, ``interval`` (None where one window was read or
    the bound is infinite), ``unit``, ``meaning``, ``exact`` where there is nothing to estimate."""
    as_level(confidence, "confidence")
    out: dict[str, dict[str, Any]] = {}
    if "retention" in data:
        found = data["retention"]
        bounds = found["half_life_median_interval"].to_numpy()
        out["half_life"] = _entry("half_life", float(found["half_life_median"]), bounds)
    layers = [each for name, each in data.items() if name.startswith("structure_")]
    if layers:
        spans = [_span(each) for each in layers]
        span = np.inf if -1 in spans else max(spans)
        out["eidetic_span"] = _entry("eidetic_span", span, (span, span), exact=True)
        reaches = [int(each.attrs["eidetic_reach"]) for each in layers]
        reach = np.inf if -1 in reaches else sum(reaches)
        out["eidetic_reach"] = _entry("eidetic_reach", reach, (reach, reach), exact=True)
    if "effective_state" in data:
        found = data["effective_state"]
        for part, name in (("state", "effective_state"), ("attention", "effective_registers")):
            if part in found["part"].to_numpy():
                size = found.sel(part=part)
                by_prompt = size["order"].mean(("layer", "head", "cut")).to_numpy()
                bounds = bootstrap_interval(by_prompt, confidence=confidence, within=(0, np.inf), rng=rng)
                out[name] = _entry(name, float(by_prompt.mean()), bounds)
                out[name]["of"] = float(size["nominal"].mean())
    if "observability" in data:
        found = data["observability"]
        by_prompt = found["seen_share"].mean("layer").to_numpy()
        bounds = bootstrap_interval(by_prompt, confidence=confidence, within=(0, 1), rng=rng)
        out["observable_share"] = _entry("observable_share", float(by_prompt.mean()), bounds)
        out["observable_share"]["tokens"] = int(found.attrs["horizon"])
        out["observable_share"]["directions"] = int(found.sizes["direction"])
        out["observable_share"]["lower_bound"] = bool(found["saturated"].any())
    return out


def card_file(cards: Mapping[str, Mapping[str, Any]], checkpoints: Mapping[str, str], about: Mapping[str, Any]) -> Any:
    """The content of memory-card.json."""
    models = {name: {"checkpoint": checkpoints[name], "memory": card} for name, card in cards.items()}
    return {"format": "solomonic-memory-card", "versions": versions(), **about, "models": models}


def cells(card: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The row of a model in the summary table."""
    return [_half_life(card), _span_cell(card), *(_size(card, k) for k in ("effective_state", "effective_registers")),
            _share(card)]  # fmt: skip


HEAD = (
    "Half-life of the state, tokens",
    "Held exactly, tokens",
    "Directions of a state in use",
    "of its registers",
    "Share of the state that is seen",
)


def _entry(name: str, value: float, bounds: Any, *, exact: bool = False) -> dict[str, Any]:
    unit, meaning = MEANING[name]
    low, high = (float(each) for each in bounds)
    interval = None if np.isnan(low + high) or np.isinf([low, high]).all() else [_json(low), _json(high)]
    return {"value": _json(value), "interval": interval, "unit": unit, "exact": exact, "meaning": meaning}


def _json(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _span(layer: xr.Dataset) -> int:
    """Last inputs that a layer's registers hold exactly; neither fading tokens, which are summaries, nor stored ones,
    which are some of the inputs, count. -1: all of them."""
    kept = [
        int(index)
        for part, index in zip(layer["part"].to_numpy(), layer["index"].to_numpy(), strict=True)
        if part in ("conv", "window", "kv")
    ]
    return -1 if -1 in kept else max(kept, default=0)


def _with_interval(entry: Mapping[str, Any], shown: Any) -> str:
    if entry["interval"] is None:
        return shown(entry["value"])
    low, high = (("more" if each is None else shown(each)) for each in entry["interval"])
    return f"{shown(entry['value'])} ({low} to {high})"


def _half_life(card: Mapping[str, Mapping[str, Any]]) -> str:
    if "half_life" not in card:
        return "–"
    entry = card["half_life"]
    return "longer than seen" if entry["value"] is None else _with_interval(entry, say.small)


def _span_cell(card: Mapping[str, Mapping[str, Any]]) -> str:
    if "eidetic_span" not in card:
        return "–"
    value = card["eidetic_span"]["value"]
    return "all" if value is None else f"{value:.0f}, exact"


def _size(card: Mapping[str, Mapping[str, Any]], name: str) -> str:
    if name not in card:
        return "–"
    return f"{_with_interval(card[name], lambda v: f'{v:.1f}')} of {card[name]['of']:.0f}"


def _share(card: Mapping[str, Mapping[str, Any]]) -> str:
    if "observable_share" not in card:
        return "–"
    entry = card["observable_share"]
    return ("at least " if entry["lower_bound"] else "") + _with_interval(entry, say.share)
