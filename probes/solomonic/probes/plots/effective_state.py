"""Effective state sizes along a text, beside the size at hand."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import axes, bounds, colour, layer_lines, legend, plain, shade, variables


def effective_state(result: xr.Dataset, *, part: str | None = None, ax: Axes | None = None) -> Axes:
    r"""Draw how many directions of each head's memory a text uses at every cut, a colour a layer.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.effective_state` returns.
    part : {"state", "attention"}, optional
        Which part of the memory; by default the first that was measured.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        One thin line a head, the mean over prompts of ``order``; a thick one a layer, the mean of its heads, with the
        band of its interval over prompts. The dashed grey line is the size at hand.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset, or has no such part.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> dims = ("part", "prompt", "layer", "head", "cut")
    >>> size = np.full((1, 1, 1, 2, 4), 3.0)
    >>> result = xr.Dataset({"order": (dims, size), "nominal": (dims, size + 5)},
    ...                     {"part": ["state"], "layer": [0], "cut": [8, 16, 24, 32]})
    >>> effective_state(result).get_ylabel()
    'directions in use'
    """
    variables(result, "order", "nominal")
    offered = result["part"].to_numpy().tolist()
    part = offered[0] if part is None else part
    if part not in offered:
        raise ValueError(f"part: expected one of {', '.join(offered)}, got {part!r}")
    ax = axes(ax)
    plain(ax)
    order = result["order"].sel(part=part).mean("prompt")
    nominal = result["nominal"].sel(part=part).max(("prompt", "layer", "head"))
    cut = result["cut"].to_numpy()
    many = order.sizes["layer"] * order.sizes["head"] > 64
    for number, layer in enumerate(result["layer"].to_numpy()):
        curves = order.sel(layer=layer).transpose("head", "cut").to_numpy()
        if np.isnan(curves).all():
            continue
        tint, line = layer_lines(number)
        for curve in [] if many else curves:
            ax.plot(cut, curve, color=colour(tint), linewidth=0.7, alpha=0.45)
        shade(ax, cut, bounds(result, "order_curve_interval", "cut", part=part, layer=layer), colour(tint))
        ax.plot(cut, np.nanmean(curves, 0), color=colour(tint), linestyle=line, linewidth=1.8, label=f"layer {layer}")
    ax.plot(cut, nominal, color=colour("ink"), alpha=0.55, linewidth=1, linestyle=(0, (5, 3)), label="size at hand")
    ax.set_ylim(0, float(nominal.max()) * 1.08)
    ax.set_xlabel("cut, tokens")
    ax.set_ylabel("directions in use")
    if result.sizes["layer"] <= 8:
        legend(ax, loc="best", ncols=2)
    return ax
