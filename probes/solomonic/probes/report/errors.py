"""What a report measures of the prediction errors of one model."""

from __future__ import annotations

import logging

import xarray as xr
from torch import Tensor

from solomonic.models import HybridLM

from ..innovations import innovations

logger = logging.getLogger("solomonic")

#: Steps of this part of the measurement, for a progress bar.
STEPS = ("prediction errors",)

#: Windows that are predicted, and lags whose autocorrelations are tested.
PREDICTED, LAGS = 8, 10


def measure_errors(model: HybridLM, ids: Tensor, *, rng: int) -> dict[str, xr.Dataset]:
    """The Dataset of the prediction errors; none where the predictions leave no room for errors that vary."""
    lags = min(LAGS, ids.shape[1] - 2)
    try:
        return {"innovations": innovations(model, ids[:PREDICTED], lags=lags, rng=rng)}
    except ValueError as error:  # a model that is sure of nearly every token has too few errors to test
        logger.warning("report: prediction errors were not measured: %s", error)
        return {}
