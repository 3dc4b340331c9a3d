"""How fast differences between memories die, along a text."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import axes, bounds, colour, layer_lines, legend, plain, variables, whiskers


def lyapunov(result: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    r"""Draw the running mean of the growth of differences of memories, and the exponent at frozen gates.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.lyapunov` returns.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        A line an exponent, with the bar of its interval at the end; the dashed line is the largest one at frozen gates,
        with a light stripe for its interval. Minus infinity is not drawn.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset.

    Examples
    --------
    >>> import xarray as xr
    >>> result = xr.Dataset({"growth": (("time", "mode"), [[-0.02], [-0.01]]), "frozen": ("mode", [-0.012])},
    ...                     {"time": [64, 96], "mode": [0]})
    >>> lyapunov(result).get_ylabel()
    'exponent so far, nat a token'
    """
    variables(result, "growth", "frozen")
    ax = axes(ax)
    plain(ax)
    growth = result["growth"].transpose("time", "mode").to_numpy()
    time = result["time"].to_numpy()
    mean = growth.cumsum(0) / np.arange(1, len(growth) + 1)[:, None]
    for mode in range(growth.shape[1]):
        tint, line = layer_lines(mode)
        seen = np.isfinite(mean[:, mode])
        label = f"exponent {mode + 1}" if seen.any() else f"exponent {mode + 1}: minus infinity"
        ax.plot(time[seen], mean[seen, mode], color=colour(tint), linestyle=line, linewidth=1.5, label=label)
    limits = bounds(result, "exponent_interval", "mode")
    if limits is not None:
        step = 0.012 * float(time[-1] - time[0] or time[-1])
        for mode in range(growth.shape[1]):
            at, tint = time[-1] + step * (mode + 1), colour(layer_lines(mode)[0])
            whiskers(ax, [at], limits[:, [mode]], tint, linewidth=1.6)
    frozen = bounds(result, "frozen_interval", "mode")
    if frozen is not None and np.isfinite(frozen[:, 0]).all():
        ax.axhspan(*frozen[:, 0], color=colour("ink"), alpha=0.08, linewidth=0)
    slowest = float(result["frozen"][0])
    if np.isfinite(slowest):
        ax.axhline(
            slowest, color=colour("ink"), linewidth=1, alpha=0.7, linestyle=(0, (5, 3)), label="slowest head, frozen"
        )
    ax.axhline(0, color=colour("ink"), linewidth=0.6, alpha=0.3)
    ax.set_xlabel("token")
    ax.set_ylabel("exponent so far, nat a token")
    if growth.shape[1] <= 8:
        legend(ax, loc="best")
    return ax
