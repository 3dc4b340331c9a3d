"""Half-lives of the state, head by head, with their intervals; what was cut off is an arrow."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from ._style import PowerFormatter, axes, bands, colour, variables


def half_lives(result: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    r"""Draw the half-life of every head, min {tau : R(s + tau, s) <= 1/2}, tokens, on a log axis; a band a layer.

    Dots are Kaplan-Meier medians with their intervals over prompts, or, of one prompt, over starting points. An arrow
    stands where half of the states outlived the run (the half-life is longer than what could be seen), and at an
    interval that has no upper end.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.retention` returns.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no retention Dataset.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> result = xr.Dataset({"half_life": (("layer", "head"), [[4.0, 60.0, np.inf]])}, {"layer": [0], "lag": [1, 511]})
    >>> ax = half_lives(result)
    >>> ax.get_xlabel()
    'half-life, tokens'
    """
    variables(result, "half_life")
    found = result["half_life"].transpose("layer", "head")
    ax = axes(ax, size=(6.4, 1.2 + 0.7 * found.sizes["layer"]))
    where = bands(ax, found["layer"].to_numpy(), found.sizes["head"])
    values = found.to_numpy()
    band = result.get("half_life_prompt_interval")
    if band is None or bool(band.isnull().all()):
        band = result.get("half_life_interval")
    lower, upper = (
        (band.sel(bound=b).transpose("layer", "head").to_numpy() for b in ("lower", "upper"))
        if band is not None
        else (values, values)
    )
    seen = np.concatenate([v[np.isfinite(v)] for v in (values, lower, upper)])
    end = max(float(result["lag"].max()) if "lag" in result.coords else 0.0, float(seen.max(initial=1.0))) * 1.3
    start = max(min(0.7, float(seen[seen > 0].min(initial=1.0)) * 0.7), 1e-3)
    ax.set_xscale("log")
    ax.set_xlim(start, end)
    ax.xaxis.set_major_formatter(PowerFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())
    tint = colour("orange")
    for place in np.ndindex(values.shape):
        y, value = float(where[place]), float(values[place])
        if np.isnan(value):
            continue
        low = max(float(lower[place]), start) if np.isfinite(lower[place]) else start
        high = float(upper[place])
        if np.isfinite(high):
            ax.plot([low, high], [y, y], color=tint, linewidth=1.4, alpha=0.7, solid_capstyle="butt")
        else:
            ax.annotate(
                "",
                (end, y),
                (low, y),
                arrowprops={"arrowstyle": "->", "color": tint, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0},
                annotation_clip=False,
            )
        if np.isfinite(value):
            ax.plot([value], [y], color=tint, marker="o", markersize=5)
    ax.set_xlabel("half-life, tokens")
    return ax
