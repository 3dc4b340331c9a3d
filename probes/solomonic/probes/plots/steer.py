"""How near to its target an input steers a state, step by step."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import PowerFormatter, axes, colour, legend, plain, variables


def steer(result: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    r"""Draw the distance from the target over that at the start, step by step, and what tokens make of the input.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.steer` returns.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        The gap on a log axis; the dashed line is the gap with the nearest tokens in place.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset.

    Examples
    --------
    >>> import xarray as xr
    >>> result = xr.Dataset({"gap": ("step", [1.0, 0.2, 0.01]), "gap_tokens": 0.9})
    >>> steer(result).get_ylabel()
    'distance from the target, 1 at the start'
    """
    variables(result, "gap", "gap_tokens")
    ax = axes(ax)
    plain(ax)
    gap = result["gap"].to_numpy()
    step = np.arange(gap.size)
    seen = gap > 0
    ax.plot(step[seen], gap[seen], color=colour("green"), marker="o", markersize=4.5, label="embeddings moved freely")
    if float(result["gap_tokens"]) > 0:
        ax.axhline(
            float(result["gap_tokens"]),
            color=colour("orange"),
            linestyle=(0, (6, 1.5)),
            label="nearest tokens in place",
        )
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(PowerFormatter())
    ax.set_xticks(step)
    ax.set_xlabel("step")
    ax.set_ylabel("distance from the target, 1 at the start")
    legend(ax, loc="best")
    return ax
