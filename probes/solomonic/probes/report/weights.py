"""What a report measures of the information in the weights of one model."""

from __future__ import annotations

import xarray as xr
from torch import Tensor

from solomonic.models import HybridLM

from ..fisher_information import fisher_information

#: Steps of this part of the measurement, for a progress bar.
STEPS = ("information in the weights",)

#: Windows that are read, their tokens, and draws of targets for each.
READ, TOKENS, DRAWS = 6, 192, 2

#: Precisions of the prior, over the number of tokens, from which parameters count; the middle one is told.
LAMBDAS = (1e-6, 1e-5, 1e-4)


def measure_weights(model: HybridLM, ids: Tensor, *, rng: int) -> dict[str, xr.Dataset]:
    """The Dataset of the Fisher information of the parameters; every model has it."""
    text = ids[:READ, : min(TOKENS, ids.shape[1])]
    return {"fisher_information": fisher_information(model, text, samples=DRAWS, lambdas=LAMBDAS, rng=rng)}
