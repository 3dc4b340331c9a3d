"""What a report measures of the memories of one model: how much of them is used, seen, moved and needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from solomonic.models import HybridLM

from ..compress import compression
from ..controllability import controllability, steer
from ..decay_law import decay_law
from ..distinguishability import distinguishability
from ..effective_state import effective_state
from ..empirical_gramians import empirical_gramians
from ..fading_by_memory import fading_by_memory
from ..head_operator import receptive_field
from ..lyapunov import lyapunov
from ..memory_curve import memory_curve
from ..observability import observability
from ..sensitivity import sensitivity
from ..structures import structures
from ..taps import has_fading_tokens, layer_window, state_kind
from ..trace import trace
from ..unsaid import unsaid

#: Steps of this part of the measurement, for a progress bar.
STEPS = (
    "use of the memory",
    "paths through the memory",
    "what is seen",
    "smaller states",
    "derivatives",
)

#: Windows that are traced with their registers, those whose influence is split, those in which the state is looked for
#: in the logits, those whose memories are told apart, and those that smaller states are balanced and scored on.
TRACED, SPLIT, SEEN, APART, SCORED = 3, 3, 2, 12, 8

#: Cuts of a text, lags of a split, tokens that are looked ahead, and singular pairs.
CUTS, LAGS, AHEAD, DIRECTIONS = 6, 6, 16, 6


def measure_memories(
    model: HybridLM,
    ids: Tensor,
    fading: xr.Dataset,
    *,
    rng: int,
    step: Callable[[str], None],
) -> dict[str, xr.Dataset]:
    """The Datasets of the probes of the memories of one model; those that it has no memory for are not there."""
    data: dict[str, xr.Dataset] = {}
    steps = ids.shape[1]
    pattern = model.config.pattern
    states = [i for i, parts in enumerate(model.empty_memory().layers) if isinstance(parts.get("state"), Tensor)]
    step(STEPS[0])
    run = trace(model, ids[:TRACED], attention=True).require()
    if run.state_layers or run.attention_layers:
        data["effective_state"] = effective_state(run, cuts=min(CUTS, steps - 1), rng=rng)
        data["receptive_field"] = receptive_field(run, stretch=max(1, min(64, steps // 4)), rng=rng)
        data["memory_curve"] = memory_curve(run, rng=rng)
    del run
    data["structures"] = structures(model, ids=ids[:2])
    step(STEPS[1])
    if fading.sizes["prompt"] > 1 and fading.sizes["lag"] > 3 and float(fading["kl"].max()) > 1e-14:
        data["decay_law"] = decay_law(fading, folds=min(3, fading.sizes["prompt"]), rng=rng)
    if len({part.part for part in model.empty_memory().parts()}) > 1:
        lags = fading["lag"].to_numpy()
        some = lags[np.unique(np.linspace(0, lags.size - 1, LAGS).round().astype(int))]
        data["fading_by_memory"] = fading_by_memory(model, ids[:SPLIT], lags=some, rng=rng)
        ahead = max(2, min(_looked_ahead(model), steps // 3))
        if some[-1] >= ahead:
            far = some[some >= ahead][-4:]
            data["fading_by_memory_ahead"] = fading_by_memory(model, ids[:SPLIT], lags=far, ahead=ahead, rng=rng)
    step(STEPS[2])
    if len(ids) > 1:
        data["distinguishability"] = distinguishability(model, ids[:APART], horizon=AHEAD)
    if states:
        data |= _of_states(model, ids, states, rng)
    step(STEPS[3])
    if any(state_kind(model.config, i) == "scalar" for i in range(len(pattern))) and len(ids) > 1:
        width = model.config.head_dim
        orders = sorted({max(1, width // k) for k in (2, 4, 8, 16)})
        data["compression"] = compression(model, ids[:SCORED], orders=orders)
    step(STEPS[4])
    data["sensitivity"] = sensitivity(model, ids[:1], projections=4, rng=rng)
    segment = max(1, min(32, steps // 8))
    data["lyapunov"] = lyapunov(model, ids[0], segment=segment, rng=rng)
    return data


def _looked_ahead(model: HybridLM) -> int:
    """How far ahead a state is looked for: past the window of layers whose state is read that much later."""
    windows = [
        layer_window(model.config, i) or 0 for i, symbol in enumerate(model.config.pattern) if has_fading_tokens(symbol)
    ]
    return max(windows, default=0) + AHEAD


def _of_states(model: HybridLM, ids: Tensor, states: list[int], rng: int) -> dict[str, xr.Dataset]:
    """What is seen, moved and held of the states of all layers."""
    steps = ids.shape[1]
    ahead, span = max(1, min(_looked_ahead(model), steps // 3)), max(1, min(AHEAD, steps // 4))
    # All rows of a product at once: a second, smaller run would cost nearly as much as the first.
    most: dict[str, Any] = {"directions": DIRECTIONS, "iterations": 0, "rows": DIRECTIONS + 8}
    seen = [observability(model, text, horizon=ahead, rng=rng, **most) for text in ids[:SEEN]]
    data = {"observability": xr.concat(seen, xr.Variable("prompt", np.arange(len(seen))), combine_attrs="override")}
    # Vectors of all prompts are large, and no figure shows them.
    data["observability"] = data["observability"].drop_vars("vector")
    data["controllability"] = controllability(model, ids[0], span=span, rng=rng, **most).drop_vars("vector")
    layer = _most_seen(data["observability"])
    data["unsaid"] = unsaid(model, ids[0], layer, horizon=ahead, rng=rng, **most)
    data["empirical_gramians"] = empirical_gramians(
        model, ids[0], layer, horizon=ahead, span=span, directions=3, scales=(1e-2, 0.1, 1.0), rng=rng
    )
    if len(ids) > 1:
        data["distinguishability_state"] = distinguishability(model, ids[:APART], parts="state", horizon=ahead)
        with torch.no_grad():
            other = model(ids[1:2]).memory.get(layer, "state")
            own = model(ids[:1]).memory.get(layer, "state")
        assert isinstance(other, Tensor)
        assert isinstance(own, Tensor)
        if bool((other != own).any()):
            data["steer"] = steer(model, ids[0], other[0], layer, span=span, steps=1, iterations=10)
    return data


def _most_seen(seen: xr.Dataset) -> int:
    """The layer whose state shows most."""
    return int(seen["layer"][int(seen["energy"].mean("prompt").argmax("layer"))])
