"""Information in the weights: a bar a block, or a curve a kind along training."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import PowerFormatter, axes, colour, legend, looks, plain, variables

_NAMES = {
    "effective": "effective share of the parameters",
    "fisher": "Fisher information a parameter, nat/token",
    "information": "information a parameter, nat",
}

#: A mark for each kind; there are more kinds than looks.
_MARKERS = "os^DvPX<>hp*d8Hx"


def fisher_information(
    result: xr.Dataset, *, value: str = "fisher", strength: float | None = None, ax: Axes | None = None
) -> Axes:
    r"""Draw the information in the weights, by kind of parameter.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.fisher_information` or :func:`solomonic.probes.fisher_path` returns.
    value : {"fisher", "effective", "information"}, default "fisher"
        What is drawn, for each parameter of a kind on average.
    strength : float, optional
        The lambda, the nearest of those there; the middle one by default.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        Of one checkpoint a line for each kind, one mark a layer with its interval where there is one; of several, a
        curve for each kind over the tokens
        seen, all layers together.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset, ``value`` none of the three, or ``strength`` not positive.

    Examples
    --------
    >>> import xarray as xr
    >>> result = xr.Dataset({"fisher_mean": ("block", [3.0, 0.5])},
    ...     {"layer": ("block", [0, 1]), "kind": ("block", ["q", "q"]), "size": ("block", [10, 10])})
    >>> fisher_information(result).get_ylabel()
    'Fisher information a parameter, nat/token'
    """
    if value not in _NAMES:
        raise ValueError(f"value: expected one of {', '.join(_NAMES)}, got {value!r}")
    variables(result, "fisher_mean" if value == "fisher" else value, "kind", "layer", "size")
    ax = axes(ax)
    plain(ax)
    data, bounds, name = _data(result, value, strength)
    kinds = list(dict.fromkeys(result["kind"].to_numpy().tolist()))
    path = "checkpoint" in data.dims
    layers = np.unique(result["layer"].to_numpy())
    for number, (kind, look) in enumerate(looks(kinds).items()):
        inside = result["kind"].to_numpy() == kind
        size = result["size"].to_numpy()[inside]
        chosen = data.isel(block=np.flatnonzero(inside))
        if path:
            x = result["tokens"].to_numpy() if "tokens" in result else np.arange(data.sizes["checkpoint"])
            x = np.arange(len(x)) if np.isnan(x).any() else x
            y = chosen.sum("block").to_numpy() / size.sum()
        else:
            order = np.argsort(result["layer"].to_numpy()[inside], kind="stable")
            size, inside = size[order], np.flatnonzero(inside)[order]
            chosen = data.isel(block=inside)
            x = np.searchsorted(layers, result["layer"].to_numpy()[inside])
            y = chosen.to_numpy() / size
            if bounds is not None:
                low, high = bounds.isel(block=inside).transpose("bound", "block").to_numpy() / size
                there = high > 0
                ax.vlines(x[there], np.maximum(low, high * 1e-3)[there], high[there], color=colour(look.colour), lw=0.8)
        shown = np.where(y > 0, y, np.nan)
        style: dict[str, Any] = {
            "color": colour(look.colour),
            "marker": _MARKERS[number % len(_MARKERS)],
            "label": kind,
        }
        ax.plot(x, shown, linestyle=look.linestyle, linewidth=1.2, markersize=4.5, **style)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(PowerFormatter())
    if path:
        known = "tokens" in result and not np.isnan(result["tokens"].to_numpy()).any()
        ax.set_xlabel("tokens seen" if known else "checkpoint")
    else:
        ax.set_xticks(range(len(layers)), ["outside" if each < 0 else str(each) for each in layers])
        ax.set_xlabel("layer")
    ax.set_ylabel(name)
    legend(ax, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def _data(result: xr.Dataset, value: str, strength: float | None) -> tuple[xr.DataArray, xr.DataArray | None, str]:
    """What is drawn, its bounds where they are known, and what it is called."""
    if value == "fisher":
        return result["fisher_mean"], result.get("fisher_mean_interval"), _NAMES[value]
    grid = result["lambda"].to_numpy()
    if strength is not None and not strength > 0:
        raise ValueError(f"strength: expected a positive lambda, got {strength!r}")
    row = len(grid) // 2 if strength is None else int(np.abs(np.log(grid / strength)).argmin())
    bounds = result.get(f"{value}_interval")
    return (
        result[value].isel({"lambda": row}),
        None if bounds is None else bounds.isel({"lambda": row}),
        f"{_NAMES[value]} (λ = {grid[row]:.0e})",
    )
