"""How much of the beliefs each layer tells, beside the controls."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import axes, colour, legend, plain, variables

_LOOKS = {
    "model": ("blue", "o", "-"),
    "random weights": ("orange", "s", (0, (5, 1.5))),
    "shuffled beliefs": ("ink", "x", (0, (1.2, 1.2))),
}


def belief_states(result: xr.Dataset, *, source: str = "residual", ax: Axes | None = None) -> Axes:
    r"""Draw the share of the beliefs that a read-out tells, by layer, of the model and its controls.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.belief_states` returns.
    source : str, default "residual"
        The part of the memory, or the residual stream.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        A line for the model and each control, with the bands of their intervals.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset, or has no such source.

    Examples
    --------
    >>> import xarray as xr
    >>> result = xr.Dataset({"r2": (("layer", "source", "control"), [[[0.9]]]),
    ...                      "r2_interval": (("bound", "layer", "source", "control"), [[[[0.8]]], [[[0.95]]]])},
    ...                     {"layer": [0], "source": ["state"], "control": ["model"]})
    >>> belief_states(result, source="state").get_xlabel()
    'layer'
    """
    variables(result, "r2", "r2_interval")
    known = [str(name) for name in result["source"].to_numpy()]
    if source not in known:
        raise ValueError(f"source: expected one of {known}, got {source!r}")
    ax = axes(ax)
    plain(ax)
    layers = result["layer"].to_numpy()
    for name in (str(each) for each in result["control"].to_numpy()):
        tint, marker, style = _LOOKS.get(name, _LOOKS["model"])
        chosen = result.sel(source=source, control=name)
        low, high = chosen["r2_interval"].transpose("bound", "layer").to_numpy()
        ax.fill_between(layers, low, high, color=colour(tint), alpha=0.15, linewidth=0)
        ax.plot(layers, chosen["r2"].to_numpy(), color=colour(tint), marker=marker, linestyle=style, label=name)
    ax.set_xticks(np.unique(layers))
    ax.set_ylim(top=1.02)
    ax.set_xlabel("layer")
    ax.set_ylabel(f"R² of the beliefs, {source}")
    legend(ax, loc="best")
    return ax
