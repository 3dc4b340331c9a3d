"""What a report measures of the prediction errors of one model."""

from __future__ import annotations

import xarray as xr
from torch import Tensor

from solomonic.models import HybridLM

from ..innovations import innovations

#: Steps of this part of the measurement, for a progress bar.
STEPS = ("prediction errors",)

#: Windows that are predicted, and lags whose autocorrelations are tested.
PREDICTED, LAGS = 8, 10


def measure_errors(model: HybridLM, ids: Tensor, *, rng: int) -> dict[str, xr.Dataset]:
    """The Dataset of the prediction errors; none where the predictions leave no room for errors that vary."""
    lags = min(LAGS, ids.shape[1] - 2)
    try:
        return {"innovations": innovations(model, ids[:PREDICTED], lags=lags, rng=rng)}
    except ValueError:  # a model that is sure of nearly every token has too few errors to test
        return {}
