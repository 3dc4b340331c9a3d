"""Where a fading curve bends: its slopes between the structural lags, and the steps at them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import xarray as xr

from .inputs import as_count, as_level, as_rng

__all__ = ["bend"]

#: Fewest lags that a slope is fitted to.
_FIT = 3
#: Numbers held at once.
_HELD = 1 << 22


def bend(
    dataset: xr.Dataset,
    *,
    edges: Sequence[int] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    rng: int | np.random.Generator | None = 0,
) -> xr.Dataset:
    r"""Slopes of the median fading curve between lags, and whether they change there.

    .. math:: \log_{10} \mathrm{med}\, F(\tau) \approx c_k + s_k \log_{10} \tau, \qquad
              e_{k-1} \le \tau < e_k

    Parameters
    ----------
    dataset : xarray.Dataset
        What :func:`fading` returned.
    edges : sequence of int, optional
        Lags at which the curve may bend, ascending, at least 1; by default W and 2W of the widest window.
    confidence : float, default 0.95
        Nominal coverage of the intervals.
    resamples : int, default 2000
        Resamples of the bootstrap over prompts; prompts are redrawn together for all lags.
    rng : int, numpy.random.Generator or None
        Source of the resamples.

    Returns
    -------
    xarray.Dataset
        Dims band, edge, bound.

        - ``slope`` (band): decades per decade of lag in each band, with ``slope_interval`` (bound, band).
        - ``rate`` (band): decades per 100 tokens, with ``rate_interval``: the same with the lag on a plain axis.
        - ``slope_change``, ``rate_change`` (edge): the band after the edge minus the one before it, with
          intervals: a bend is an interval without 0.
        - ``step`` (edge): decades between the last lag before the edge and the first lag from it on, with
          ``step_interval``: what a hard end of a memory shows as.
        - ``lags`` (band): how many lags were used; coordinates ``start``, ``stop`` (band): the lags of a band, the
          second excluded.

        NaN where a band has fewer than 3 lags with a median above 0.

    Raises
    ------
    TypeError, ValueError
        If this is no fading Dataset, it has no windows and no edges are given, or edges do not ascend.

    Notes
    -----
    Lags whose median is exactly 0 in a resample are left out of that resample. Least squares over the lags that were
    measured: their places weigh in.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from solomonic.probes import bend
    >>> lag = np.arange(1, 100)
    >>> kl = np.where(lag < 10, 1.0, (lag / 10.0) ** -2) * np.random.default_rng(0).lognormal(0, 0.1, (40, 99))
    >>> found = bend(xr.Dataset({"kl": (("prompt", "lag"), kl)}, {"lag": lag}), edges=[10])
    >>> found.slope.values.round(1) + 0.0
    array([ 0., -2.])
    """
    if not isinstance(dataset, xr.Dataset):
        raise TypeError(f"dataset: expected an xarray.Dataset, got {type(dataset).__name__}")
    if "kl" not in dataset or set(dataset["kl"].dims) != {"prompt", "lag"}:
        raise ValueError("dataset: expected the variable kl over (prompt, lag), as fading() returns it")
    confidence = as_level(confidence, "confidence")
    resamples = as_count(resamples, "resamples")
    places = _edges(dataset, edges)
    generator, _ = as_rng(rng)
    lag = dataset["lag"].to_numpy()
    kl = dataset["kl"].transpose("prompt", "lag").to_numpy()
    index = np.concatenate([np.arange(len(kl))[None], generator.integers(len(kl), size=(resamples, len(kl)))])
    parts = np.array_split(index, 1 + index.size * lag.size // _HELD)
    with np.errstate(divide="ignore"):
        curve = np.log10(np.concatenate([np.median(kl[part], 1) for part in parts]))
    limits = [1, *places, int(lag.max()) + 1]
    bands = [(a, b, (lag >= a) & (lag < b)) for a, b in pairwise(limits)]
    slope = np.stack([_fit(np.log10(lag[m]), curve[:, m]) for *_, m in bands], 1)
    rate = np.stack([_fit(lag[m] / 100.0, curve[:, m]) for *_, m in bands], 1)
    step = np.full((len(curve), len(places)), np.nan)
    for i, edge in enumerate(places):
        before, after = np.flatnonzero(lag < edge), np.flatnonzero(lag >= edge)
        if before.size and after.size:
            with np.errstate(invalid="ignore"):
                step[:, i] = curve[:, after[0]] - curve[:, before[-1]]
    level = (1 - confidence) / 2
    data = {}
    found = {"slope": slope, "rate": rate, "slope_change": np.diff(slope), "rate_change": np.diff(rate), "step": step}
    for name, values in found.items():
        dim = "band" if name in ("slope", "rate") else "edge"
        values = np.where(np.isfinite(values), values, np.nan)
        data[name] = (dim, values[0])
        with np.errstate(invalid="ignore"):
            data[f"{name}_interval"] = (("bound", dim), _quantiles(values[1:], values[0], level))
    data["lags"] = ("band", [int((m & np.isfinite(curve[0])).sum()) for *_, m in bands])
    coords = {
        "band": [_name(a, b, i == len(bands) - 1) for i, (a, b, _) in enumerate(bands)],
        "start": ("band", [a for a, _, _ in bands]),
        "stop": ("band", [b for _, b, _ in bands]),
        "edge": places,
        "bound": ["lower", "upper"],
    }
    return xr.Dataset(data, coords, {**dataset.attrs, "probe": "bend", "confidence": confidence})


def _edges(dataset: xr.Dataset, edges: Sequence[int] | None) -> list[int]:
    if edges is None:
        width = int(dataset["window"].max()) if "window" in dataset.coords else 0
        if width < 1:
            raise ValueError("edges: this model has no windows, so say at which lags its curve may bend, got None")
        edges = [width, 2 * width]
    out = [int(edge) for edge in edges]
    if not out or out[0] < 1 or any(b <= a for a, b in pairwise(out)):
        raise ValueError(f"edges: expected ascending lags of at least 1, got {list(edges)}")
    return out


def _fit(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Slopes of the rows of y against x by least squares over finite entries, NaN where there are too few."""
    weight = np.isfinite(y).astype(float)
    y = np.where(weight > 0, y, 0.0)
    count = weight.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = (weight * x).sum(1) / count
        dx = weight * (x - centre[:, None])
        return np.where(count >= _FIT, (dx * y).sum(1) / (dx**2).sum(1), np.nan)


def _quantiles(drawn: np.ndarray, estimate: np.ndarray, level: float) -> np.ndarray:
    """Bounds over the resamples; NaN where there is no estimate, or most resamples have none."""
    out = np.full((2, drawn.shape[1]), np.nan)
    for i in range(drawn.shape[1]):
        known = drawn[np.isfinite(drawn[:, i]), i]
        if np.isfinite(estimate[i]) and 2 * known.size > drawn.shape[0]:
            out[:, i] = np.quantile(known, [level, 1 - level])
    return out


def _name(start: int, stop: int, last: bool) -> str:
    return f"{start}.." if last else f"{start}..{stop - 1}"
