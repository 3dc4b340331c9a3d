"""Where a difference between two texts is remembered, as a map over time and layer."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import axes, plain, variables


def causal_trace(result: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    r"""Draw the normalised effect of every patch: times along, sites (layer and part) up.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.causal_trace` returns.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        Blue moves the prediction towards the other text, red away from it, from -1 to 1; a dot marks a patch whose
        interval holds 0.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> result = xr.Dataset(
    ...     {"normalised": (("time", "site"), [[0.0, 0.4], [0.1, 0.9]]),
    ...      "normalised_interval": (("bound", "time", "site"), np.zeros((2, 2, 2)))},
    ...     {"time": [3, 9], "layer": ("site", [0, 0]), "part": ("site", ["conv", "state"])})
    >>> causal_trace(result).get_xlabel()
    'patched after token'
    """
    variables(result, "normalised", "normalised_interval", "layer", "part")
    ax = axes(ax)
    plain(ax)
    values = result["normalised"].transpose("site", "time").to_numpy()
    low, high = result["normalised_interval"].transpose("bound", "site", "time").to_numpy()
    count = values.shape[1]
    image = ax.imshow(values, aspect="auto", origin="lower", cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest")
    rows, columns = np.nonzero((low <= 0) & (high >= 0))
    ax.plot(columns, rows, ".", color="0.45", markersize=3)
    names = [f"{layer} {part}" for layer, part in zip(result["layer"].values, result["part"].values, strict=True)]
    ax.set_yticks(range(len(names)), names)
    shown = np.unique(np.linspace(0, count - 1, min(count, 8)).astype(int))
    ax.set_xticks(shown, [str(t) for t in result["time"].to_numpy()[shown]])
    ax.set_xlabel("patched after token")
    ax.set_ylabel("layer and part of the memory")
    ax.figure.colorbar(image, ax=ax, label="share of the difference that goes over")
    return ax
