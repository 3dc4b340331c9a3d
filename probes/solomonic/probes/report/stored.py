"""What a report measures of the tokens that a B'MOJO model stores."""

from __future__ import annotations

import logging

import xarray as xr
from torch import Tensor

from solomonic.models import HybridLM

from ..eviction import eviction

logger = logging.getLogger("solomonic")

#: Windows whose memories are changed, tokens that are read on with them, layers, and changed memories in one call.
WINDOWS, AHEAD, LAYERS, AT_ONCE = 6, 8, 2, 32


def measure_stored(model: HybridLM, ids: Tensor, *, rng: int) -> dict[str, xr.Dataset]:
    """The Dataset of the value of stored tokens; none for a model that stores none or that has read too few."""
    held = storing(model)
    if not held:
        return {}
    window, most = model.config.bmojo_window, model.config.eidetic_tokens
    # Memory is refreshed at multiples of W: the first at which twice as many tokens as are stored were considered.
    cut = min(-(-(2 * most + window - 1) // window), (ids.shape[1] - 2) // window) * window
    if cut - window + 1 <= most or cut < window:
        return {}
    ahead = max(2, min(AHEAD, window))  # up to the next refresh, so that all stay that long
    layers = sorted({held[0], held[-1]})[:LAYERS]
    some = ids[:WINDOWS, : cut + ahead]
    try:
        found = eviction(model, some, cut=cut, layers=layers, hold=False, batch_size=AT_ONCE, rng=rng)
    except ValueError as error:  # nothing was stored in one of the windows, or nothing that is stored changes a logit
        logger.warning("report: what is stored was not measured: %s", error)
        return {}
    return {"eviction": found}


def storing(model: HybridLM) -> list[int]:
    """The layers that store tokens."""
    return [i for i, parts in enumerate(model.empty_memory().layers) if "eidetic" in parts]
