"""The spectrum of a map to or from a state, a line a layer: what the plots of two probes share."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import PowerFormatter, axes, colour, layer_lines, legend, plain, variables


def spectrum(result: xr.Dataset, ax: Axes | None, *, x: str, y: str, nothing: str) -> Axes:
    """Singular values against their number; a mark at the tolerance, ``nothing`` in the legend where all are 0."""
    variables(result, "singular_value", "rank")
    ax = axes(ax)
    plain(ax)
    values = result["singular_value"].transpose("layer", "direction").to_numpy()
    rank = result["rank"].to_numpy()
    for number, layer in enumerate(result["layer"].to_numpy()):
        tint, line = layer_lines(number)
        seen = values[number] > 0
        if not seen.any():
            ax.plot([], [], color=colour(tint), linestyle=line, label=f"layer {layer}: {nothing}")
            continue
        place = np.arange(1, seen.size + 1)
        ax.plot(place[seen], values[number][seen], color=colour(tint), linestyle=line, label=f"layer {layer}")
        last = int(rank[number])
        if 0 < last < seen.sum():
            ax.plot([last], [values[number][last - 1]], color=colour(tint), marker="|", markersize=12)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(PowerFormatter())
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    if values.shape[0] <= 8:
        legend(ax, loc="best")
    return ax
