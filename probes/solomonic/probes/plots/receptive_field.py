"""How far back every head reads."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from ._style import PowerFormatter, axes, bands, bounds, colour, legend, variables, whiskers

_LOOKS = {"state": ("orange", "o", "state"), "attention": ("blue", "s", "attention")}


def receptive_field(result: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    r"""Draw the mean distance of what each head reads, tokens, on a log axis; a band a layer.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.receptive_field` returns.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        A mark a head at its mean distance, with the bar of its interval over prompts, and a faint line to the lag
        within which the share of its weights lies. Distances below half a token are drawn there.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> dims = ("part", "prompt", "layer", "head")
    >>> far = np.array([[[[4.0, 60.0]]]])
    >>> result = xr.Dataset({"distance": (dims, far), "span": (dims, 2 * far)}, {"part": ["state"], "layer": [0]})
    >>> receptive_field(result).get_xlabel()
    'how far back a head reads, tokens'
    """
    variables(result, "distance", "span")
    distance = result["distance"].mean("prompt").transpose("part", "layer", "head")
    span = result["span"].mean("prompt").transpose("part", "layer", "head").to_numpy()
    ax = axes(ax, size=(6.4, 1.2 + 0.7 * distance.sizes["layer"]))
    parts = distance["part"].to_numpy().tolist()
    heads = distance.sizes["head"]
    where = bands(ax, distance["layer"].to_numpy(), heads * len(parts))
    values = distance.to_numpy()
    ax.set_xscale("log")
    far = np.concatenate([values[np.isfinite(values)], span[np.isfinite(span)], [2.0]])
    ax.set_xlim(0.45, float(far.max()) * 1.3)
    ax.xaxis.set_major_formatter(PowerFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())
    limits = bounds(result, "distance_mean_interval", "part", "layer", "head")
    for number, part in enumerate(parts):
        tint, marker, name = _LOOKS.get(part, ("green", "D", str(part)))
        label: str | None = name
        for layer, head in np.ndindex(*values.shape[1:]):
            value = float(values[number, layer, head])
            if np.isnan(value):
                continue
            y = where[layer, number * heads + head]
            start, end = max(value, 0.5), max(float(span[number, layer, head]), 0.5)
            ax.plot([start, end], [y, y], color=colour(tint), linewidth=1.0, alpha=0.4)
            if limits is not None:
                known = np.maximum(limits[:, number, layer, [head]], 0.5)
                whiskers(ax, [y], known, colour(tint), across=True, linewidth=3.0, alpha=0.5)
            ax.plot([start], [y], color=colour(tint), marker=marker, markersize=4.5, linestyle="none", label=label)
            label = None
    ax.set_xlabel("how far back a head reads, tokens")
    if len(parts) > 1:
        legend(ax, loc="lower right")
    return ax
