"""Retention curves: what share of a state is left after a lag, head by head."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import axes, bounds, colour, layer_lines, legend, log_lags, plain, shade, variables


def retention(result: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    r"""Draw the share of a state that is left after a lag, exp(sum of log decays), one line a head, a colour a layer.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.retention` returns.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        With the bands of the intervals over prompts. Of more than 64 heads only the median of each layer is drawn,
        without.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no retention Dataset.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> lag = np.arange(1, 65)
    >>> share = 0.9 ** lag[None, None, :] ** np.array([1.0, 0.5])[None, :, None]
    >>> ax = retention(xr.Dataset({"retention": (("layer", "head", "lag"), share)}, {"layer": [0], "lag": lag}))
    >>> len(ax.lines)
    3
    """
    variables(result, "retention")
    ax = axes(ax)
    share = result["retention"].transpose("layer", "head", "lag")
    lag = share["lag"].to_numpy()
    plain(ax)
    shown = lag >= 1
    log_lags(ax, float(lag[-1]), smallest=float(lag[shown][0]))
    ax.axhline(0.5, color=colour("ink"), linewidth=0.8, alpha=0.5, linestyle=(0, (2, 2)))
    many = share.sizes["layer"] * share.sizes["head"] > 64
    for number, layer in enumerate(share["layer"].to_numpy()):
        tint, line = layer_lines(number)
        limits = None if many else bounds(result, "retention_interval", "head", "lag", layer=layer)
        for each in [] if limits is None else np.moveaxis(limits, 1, 0):
            shade(ax, lag[shown], each[:, shown], colour(tint), alpha=0.09)
        curves = share.sel(layer=layer).to_numpy()
        for i, curve in enumerate(np.nanmedian(curves, 0, keepdims=True) if many else curves):
            if np.isfinite(curve).any():
                label = f"layer {layer}" if i == 0 else None
                ax.plot(lag[shown], curve[shown], color=colour(tint), linestyle=line, linewidth=1.3, label=label)
    ax.set_ylim(-0.02, 1.02)
    ax.set_ylabel("share of the state that is left")
    if share.sizes["layer"] <= 8:
        legend(ax, loc="upper right")
    return ax
