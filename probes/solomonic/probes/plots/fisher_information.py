"""Information in the weights: a bar a block, or a curve a kind along training."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import PowerFormatter, axes, bounds, colour, legend, looks, plain, variables, whiskers

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
        Of one checkpoint a line for each kind, one mark a layer; of several, a curve for each kind over the tokens
        seen, all layers together. Bars are the intervals over prompts.

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
    data, row, name = _data(result, value, strength)
    here = {"lambda": result["lambda"].to_numpy()[row]} if row is not None else {}
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
            limits = bounds(result, f"{value}_group_interval", "checkpoint", **here, group=kind)
            limits = None if limits is None else limits / size.sum()
        else:
            order = np.argsort(result["layer"].to_numpy()[inside], kind="stable")
            size, inside = size[order], np.flatnonzero(inside)[order]
            beside = 0.3 * ((number + 0.5) / len(kinds) - 0.5)  # bars side by side
            x = np.searchsorted(layers, result["layer"].to_numpy()[inside]) + beside
            y = data.isel(block=inside).to_numpy() / size
            own = "fisher_mean_interval" if value == "fisher" else f"{value}_interval"
            limits = bounds(result, own, "block", **here)
            limits = None if limits is None else limits[:, inside] / size
        shown = np.where(y > 0, y, np.nan)
        style: dict[str, Any] = {
            "color": colour(look.colour),
            "marker": _MARKERS[number % len(_MARKERS)],
            "label": kind,
        }
        if limits is not None:
            whiskers(ax, x, np.where(y > 0, np.maximum(limits, 0.2 * y), np.nan), colour(look.colour), alpha=0.5)
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


def _data(result: xr.Dataset, value: str, strength: float | None) -> tuple[xr.DataArray, int | None, str]:
    """What is drawn, the row of its lambda where it has one, and the name of the axis."""
    if value == "fisher":
        return result["fisher_mean"], None, _NAMES[value]
    grid = result["lambda"].to_numpy()
    if strength is not None and not strength > 0:
        raise ValueError(f"strength: expected a positive lambda, got {strength!r}")
    row = len(grid) // 2 if strength is None else int(np.abs(np.log(grid / strength)).argmin())
    return result[value].isel({"lambda": row}), row, f"{_NAMES[value]} (λ = {grid[row]:.0e})"
