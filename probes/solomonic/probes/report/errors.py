"""What a report measures of the prediction errors of one model."""

from __future__ import annotations

import xarray as xr
from torch import Tensor

from solomonic.models import HybridLM

from ..innovations import innovations
from ..inputs import NothingToMeasure

#: Steps of this part of the measurement, for a progress bar.
STEPS = ("prediction errors",)

#: Windows that are predicted, and lags whose autocorrelations are tested.
PREDICTED, LAGS = 8, 10


def measure_errors(model: HybridLM, ids: Tensor, *, rng: int) -> tuple[dict[str, xr.Dataset], dict[str, str]]:
    """The Dataset of the prediction errors, or why there is none: predictions that are sure leave too few to test."""
    lags = min(LAGS, ids.shape[1] - 2)
    try:
        return {"innovations": innovations(model, ids[:PREDICTED], lags=lags, rng=rng)}, {}
    except NothingToMeasure as error:
        return {}, {"innovations": f"it is sure of nearly every token, which leaves too few errors to test ({error})"}
