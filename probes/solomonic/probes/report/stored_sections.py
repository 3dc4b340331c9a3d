"""The block of one model about the tokens that it stores, and what it says."""

from __future__ import annotations

import numpy as np
import xarray as xr

from .. import plots
from .error_readings import p_value, signed
from .figures import Figures
from .measure import Measured
from .page import Block
from .say import count, small


def stored_blocks(key: str, m: Measured, draw: Figures) -> list[Block]:
    """The block, where it was measured."""
    if "eviction" not in m.data:
        return []
    data = m.data["eviction"]
    told = [ranked(data), worth(data), losses(data)]
    figure = draw.panel(
        lambda ax: plots.eviction(data, ax=ax),
        f"Effect of every token on what follows against its innovation. {ranked(data)}",
        "What a token changes of what follows if it is stored, against the innovation that it is stored for.",
    )
    reading = [
        "A token that leaves the window is stored if its innovation, how badly it was foreseen, is among the largest. "
        "Taking stored tokens out, and putting others in their place, says what each is worth for the next "
        f"{data.sizes['time']} tokens."
    ]
    return [Block(f"{key}-stored", "What is stored", [*reading, *told], figures=[figure])]


def ranked(data: xr.Dataset) -> str:
    """Whether what is stored for is what is needed: rank correlations."""
    mean = data["rank_correlation_mean"].sel(ranking="score")
    interval = data["rank_correlation_mean_interval"].sel(ranking="score")
    told = []
    for layer in data["layer"].to_numpy():
        low, high = interval.sel(layer=layer).to_numpy()
        bounds = f" ({signed(low)} to {signed(high)})" if np.isfinite([low, high]).all() else ""
        told.append(f"{_number(float(mean.sel(layer=layer)))}{bounds} in layer {layer}")
    return (
        f"The rank correlation of innovation and effect over {count(data.sizes['prompt'], 'window')} is "
        f"{', '.join(told)}."
    )


def worth(data: xr.Dataset) -> str:
    """Stored tokens against those that are not."""
    told = []
    for layer in data["layer"].to_numpy():
        here = data.sel(layer=layer)
        stored, other = (float(here[name].mean("prompt")) for name in ("stored_effect", "other_effect"))
        told.append(f"{small(stored)} against {small(other)} bits in layer {layer} ({p_value(float(here['p']))})")
    return f"How much a stored token changes what follows, against one that is not: {', '.join(told)}."


def losses(data: xr.Dataset) -> str:
    """The loss with what is kept, and with other sets of as many tokens."""
    told = []
    for layer in data["layer"].to_numpy():
        loss = data["set_loss"].sel(layer=layer).mean("prompt")
        kept, oracle, random, none = (f"{float(loss.sel(choice=c)):.3f}" for c in data["choice"].to_numpy())
        told.append(
            f"in layer {layer} it is {kept} bits with what is kept, {oracle} with as many tokens of the largest "
            f"effects, {random} with random ones, {none} with none"
        )
    return f"Loss of a token that follows: {'; '.join(told)}."


def _number(value: float) -> str:
    return signed(value) if np.isfinite(value) else "not defined"
