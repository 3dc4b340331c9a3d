"""Autocorrelations of prediction errors, and the reliability of the top prediction."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from scipy.stats import norm

from ._style import axes, colour, legend, looks, named, plain, variables

#: Variables that each value draws.
_NEEDS = {
    "autocorrelation": ("autocorrelation", "autocorrelation_deviation"),
    "reliability": ("confidence", "accuracy", "accuracy_interval"),
}


def innovations(
    result: xr.Dataset | Mapping[str, xr.Dataset], *, value: str = "autocorrelation", ax: Axes | None = None
) -> Axes:
    r"""Draw the autocorrelation of prediction errors against the lag, or accuracy against confidence.

    Parameters
    ----------
    result : Dataset, or mapping from names to Datasets
        What :func:`solomonic.probes.innovations` returns.
    value : {"autocorrelation", "reliability"}
        What to draw.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        Autocorrelations with, for one result, the band that holds 95 % of those of white errors whose variance may
        follow the past, lag by lag; or the accuracy of each bin of confidence with its interval, and the diagonal.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset, or ``value`` is not known.

    Examples
    --------
    >>> import xarray as xr
    >>> result = xr.Dataset({"autocorrelation": ("lag", [0.1, 0.0]),
    ...                      "autocorrelation_deviation": ("lag", [0.02, 0.02])}, {"lag": [1, 2]})
    >>> innovations(result).get_xlabel()
    'lag, tokens'
    """
    if value not in _NEEDS:
        raise ValueError(f"value: expected one of {list(_NEEDS)}, got {value!r}")
    found = named(result)
    for name, each in found.items():
        variables(each, *_NEEDS[value], what=f"result[{name!r}]" if name else "result")
    ax = axes(ax)
    plain(ax)
    draw = _autocorrelation if value == "autocorrelation" else _reliability
    for name, look in looks(found).items():
        draw(ax, found[name], name, look, band=len(found) == 1)
    if value == "autocorrelation":
        ax.axhline(0.0, color=colour("ink"), linewidth=0.8, alpha=0.6)
        ax.set_xlabel("lag, tokens")
        ax.set_ylabel("autocorrelation of prediction errors")
    else:
        ax.axline((0, 0), slope=1, color=colour("ink"), linewidth=0.8, alpha=0.6)
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1)
        ax.set_xlabel("probability of the top prediction")
        ax.set_ylabel("share that came")
    if len(found) > 1:
        legend(ax, loc="best")
    return ax


def _autocorrelation(ax: Axes, result: xr.Dataset, name: str, look, *, band: bool) -> None:
    lag, tint = result["lag"].to_numpy(), colour(look.colour)
    if band:
        half = norm.ppf(0.975) * result["autocorrelation_deviation"].to_numpy()
        ax.fill_between(lag, -half, half, color=tint, alpha=0.15, linewidth=0)
    ax.plot(lag, result["autocorrelation"].to_numpy(), color=tint, linestyle=look.linestyle, marker=look.marker,
            markersize=4.5, label=name or None)  # fmt: skip


def _reliability(ax: Axes, result: xr.Dataset, name: str, look, *, band: bool) -> None:
    x, y = result["confidence"].to_numpy(), result["accuracy"].to_numpy()
    low, high = result["accuracy_interval"].transpose("bound", "bin").to_numpy()
    there, tint = np.isfinite(x), colour(look.colour)
    if band:
        ax.vlines(x, low, high, color=tint, linewidth=1.2, alpha=0.6)
    ax.plot(x[there], y[there], color=tint, linestyle=look.linestyle, marker=look.marker, markersize=4.5,
            label=name or None)  # fmt: skip
