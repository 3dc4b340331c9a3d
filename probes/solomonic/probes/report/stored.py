"""What a report measures of the tokens that a B'MOJO model stores."""

from __future__ import annotations

import xarray as xr
from torch import Tensor

from solomonic.models import HybridLM

from ..eviction import eviction
from ..inputs import NothingToMeasure

#: Steps of this part of the measurement, for a progress bar.
STEPS = ("stored tokens",)

#: Windows whose memories are changed, tokens that are read on with them, layers, and changed memories in one call.
WINDOWS, AHEAD, LAYERS, AT_ONCE = 6, 8, 2, 32


def measure_stored(model: HybridLM, ids: Tensor, *, rng: int) -> tuple[dict[str, xr.Dataset], dict[str, str]]:
    """The Dataset of the value of stored tokens, or why there is none; neither for a model that stores no tokens."""
    held = storing(model)
    if not held:
        return {}, {}
    window, most = model.config.bmojo_window, model.config.eidetic_tokens
    # Memory is refreshed at multiples of W: the first at which twice as many tokens as are stored were considered.
    cut = min(-(-(2 * most + window - 1) // window), (ids.shape[1] - 2) // window) * window
    if cut - window + 1 <= most or cut < window:
        least = -(-(most + window) // window) * window + 2  # the first cut after which more were considered than fit
        return {}, {
            "eviction": f"windows of {ids.shape[1]} tokens are too short: it stores {most} of those that have left a "
            f"window of {window}, so that a choice is seen from {least} tokens on"
        }
    ahead = max(2, min(AHEAD, window))  # up to the next refresh, so that all stay that long
    layers = sorted({held[0], held[-1]})[:LAYERS]
    some = ids[:WINDOWS, : cut + ahead]
    try:
        found = eviction(model, some, cut=cut, layers=layers, hold=False, batch_size=AT_ONCE, rng=rng)
    except NothingToMeasure as error:
        return {}, {"eviction": f"nothing of what it stores is read ({error})"}
    return {"eviction": found}, {}


def storing(model: HybridLM) -> list[int]:
    """The layers that store tokens."""
    return [i for i, parts in enumerate(model.empty_memory().layers) if "eidetic" in parts]
