"""What smaller states cost."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import axes, colour, plain, variables


def compression(result: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    r"""Draw the relative cost in bits against the directions that each head keeps.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.compression` returns.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        The cost in percent with its interval; the dotted line is one percent, the diamond the order that the spectra
        propose, at the mean over the layers.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset.

    Examples
    --------
    >>> import xarray as xr
    >>> result = xr.Dataset({"cost": ("order", [0.001, 0.2, 0.01]),
    ...                      "cost_interval": (("bound", "order"), [[0.0, 0.1, 0.0], [0.002, 0.3, 0.02]]),
    ...                      "proposed": ("layer", [6, 7])}, {"order": [-1, 2, 8]})
    >>> compression(result).get_ylabel()
    'bits more than the full model, %'
    """
    variables(result, "cost", "cost_interval", "proposed")
    ax = axes(ax)
    plain(ax)
    orders = result["order"].to_numpy()
    shown = orders > 0
    order = orders[shown]
    cost = 100 * result["cost"].to_numpy()
    low, high = 100 * result["cost_interval"].transpose("bound", "order").to_numpy()
    ax.fill_between(order, low[shown], high[shown], color=colour("orange"), alpha=0.2, linewidth=0)
    ax.plot(order, cost[shown], color=colour("orange"), marker="o", markersize=4, linewidth=1.6)
    if not shown.all():
        at = float(result["proposed"].mean())
        ax.plot([at], [cost[~shown][0]], color=colour("ink"), marker="D", markersize=7, linestyle="none")
    ax.axhline(1, color=colour("ink"), linewidth=0.8, alpha=0.6, linestyle=(0, (2, 2)))
    ax.axhline(0, color=colour("ink"), linewidth=0.6, alpha=0.3)
    ax.set_xscale("log", base=2)
    ticks = 2.0 ** np.arange(np.floor(np.log2(order.min())), np.floor(np.log2(order.max())) + 1)
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.set_xlabel("directions kept of each head's state")
    ax.set_ylabel("bits more than the full model, %")
    return ax
