"""How visible the directions of a state are."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import PowerFormatter, axes, colour, layer_lines, legend, plain, variables


def observability(result: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    r"""Draw the singular values of the map from each layer's state to the next logits.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.observability` returns.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        A line a layer over the directions, the most visible first; the mark is where the tolerance is. A layer of
        which nothing is seen is named in the legend and not drawn.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset.

    Examples
    --------
    >>> import xarray as xr
    >>> result = xr.Dataset({"singular_value": (("layer", "direction"), [[3.0, 1.0, 0.1]]),
    ...                      "rank": ("layer", [2])}, {"layer": [0]})
    >>> observability(result).get_xlabel()
    'direction of the state, the most visible first'
    """
    variables(result, "singular_value", "rank")
    ax = axes(ax)
    plain(ax)
    values = result["singular_value"].transpose("layer", "direction").to_numpy()
    rank = result["rank"].to_numpy()
    for number, layer in enumerate(result["layer"].to_numpy()):
        tint, line = layer_lines(number)
        seen = values[number] > 0
        if not seen.any():
            ax.plot([], [], color=colour(tint), linestyle=line, label=f"layer {layer}: nothing is seen")
            continue
        place = np.arange(1, seen.size + 1)
        ax.plot(place[seen], values[number][seen], color=colour(tint), linestyle=line, label=f"layer {layer}")
        last = int(rank[number])
        if 0 < last < seen.sum():
            ax.plot([last], [values[number][last - 1]], color=colour(tint), marker="|", markersize=12)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(PowerFormatter())
    ax.set_xlabel("direction of the state, the most visible first")
    ax.set_ylabel("change of the next logits, nat")
    if values.shape[0] <= 8:
        legend(ax, loc="best")
    return ax
