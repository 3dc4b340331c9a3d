"""How much of the attention goes to fading tokens, head by head."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import axes, bands, bounds, colour, variables, whiskers


def fading_mass(result: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    r"""Draw the mean share of attention that a head gives to fading tokens, sigma(lse_fading - lse_window).

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.fading` returns for a model with B'MOJO layers.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        The share runs from 0 (window only) to 1 (fading tokens only); a band a layer, a dot a head with
        the bar of its interval over prompts.

    Raises
    ------
    TypeError, ValueError
        If ``result`` has no ``fading_mass``, or no layer reads fading tokens.

    Examples
    --------
    >>> import xarray as xr
    >>> result = xr.Dataset({"fading_mass": (("layer", "head"), [[0.2, 0.4], [0.1, 0.7]])}, {"layer": [0, 1]})
    >>> fading_mass(result).get_xlabel()
    'share of the attention on fading tokens'
    """
    variables(result, "fading_mass")
    share = result["fading_mass"].transpose("layer", "head")
    share = share.assign_coords(layer=share["layer"]).dropna("layer", how="all")
    if not share.sizes["layer"]:
        raise ValueError("result: no layer reads fading tokens, or the prompts are not longer than 2W")
    ax = axes(ax, size=(6.4, 1.2 + 0.7 * share.sizes["layer"]))
    where = bands(ax, share["layer"].to_numpy(), share.sizes["head"])
    values = share.to_numpy()
    for place in np.ndindex(values.shape):
        ax.plot(
            [0.0, float(values[place])], [float(where[place])] * 2, color=colour("orange"), linewidth=1.4, alpha=0.7
        )
    ax.plot(values.ravel(), where.ravel(), color=colour("orange"), marker="o", markersize=5, linestyle="none")
    limits = bounds(result.sel(layer=share["layer"]), "fading_mass_interval", "layer", "head")
    if limits is not None:
        whiskers(ax, where.ravel(), limits.reshape(2, -1), colour("ink"), across=True, zorder=3)
    ax.set_xlim(0, 1)
    ax.set_xlabel("share of the attention on fading tokens")
    return ax
