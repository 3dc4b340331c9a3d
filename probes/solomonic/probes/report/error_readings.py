"""What the figures about prediction errors say, in sentences that carry the measured numbers."""

from __future__ import annotations

import numpy as np
import xarray as xr

from .say import count, small

#: What is taken for a small p-value.
_LEVEL = 0.05


def p_value(value: float) -> str:
    """A p-value as one says it.

    >>> [p_value(v) for v in (0.002, 0.318, 1.0, float("nan"))]
    ['p = 0.002', 'p = 0.32', 'p = 1', 'no p-value']
    """
    if np.isnan(value):
        return "no p-value"
    return f"p = {value:.3f}" if value < 0.01 else f"p = {float(f'{value:.2g}'):g}"


def whiteness(data: xr.Dataset) -> str:
    """How strongly errors follow those before them, and what the test says."""
    first = float(data["autocorrelation"].sel(lag=1))
    p = float(data["p_value"].sel(test="redraw"))
    lags = data.sizes["lag"]
    told = (
        f"Over {count(data.sizes['prompt'], 'window')} the error of a prediction has the correlation {signed(first)} "
        f"with the one before it (standard deviation for white errors "
        f"{small(float(data['autocorrelation_deviation'].sel(lag=1)))})."
    )
    upto = f"lags 1 to {lags}" if lags > 1 else "lag 1"
    if p < _LEVEL:
        return (
            f"{told} Errors of the same predictions, drawn anew, are as correlated at {upto} too seldom "
            f"({p_value(p)}): what was wrong before tells of what will be, so that the memory does not hold, or the "
            "prediction does not use, all of the past that matters. Windows whose errors differ in mean count, too."
        )
    return (
        f"{told} Errors of the same predictions, drawn anew, are as correlated at {upto} often enough ({p_value(p)}): "
        "that they are correlated cannot be told from these windows."
    )


def calibration(data: xr.Dataset) -> str:
    """How far confidence is from accuracy, beside what chance alone does to a calibrated model."""
    found, fair, p = (float(data[name]) for name in ("ece", "ece_calibrated", "ece_p_value"))
    says = "more than chance explains" if p < _LEVEL else "no more than chance explains"
    told = (
        f"The probability of its top prediction is {small(found)} away from the share that came, on average over bins "
        f"(ECE); that of a calibrated model with these probabilities is {small(fair)}, so this is {says} "
        f"({p_value(p)})."
    )
    excess = float(data["excess_mean"])
    low, high = data["excess_mean_interval"].to_numpy()
    told += f" The mean surprise is {signed(excess)} bits from the one that it expects"
    return f"{told} ({signed(low)} to {signed(high)})." if np.isfinite([low, high]).all() else f"{told}."


def signed(value: float) -> str:
    """A number with its sign.

    >>> signed(-0.021), signed(0.3)
    ('−0.021', '+0.30')
    """
    return ("−" if value < 0 else "+") + small(abs(value)) if value else small(value)
