"""What a part of the memory tells of later predictions, by layer, and what the last tokens add."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import axes, colour, legend, plain, variables

_LOOKS = {"part": ("blue", "o"), "tokens": ("ink", "x"), "both": ("green", "D")}


def extra_information(result: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    r"""Draw the share of later predictions that the part, the last tokens, and both tell, by layer.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.extra_information` returns.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        A dot with its interval for each layer and set of features.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset.

    Examples
    --------
    >>> import xarray as xr
    >>> share = [[0.4, 0.3, 0.5]]
    >>> result = xr.Dataset({"explained": (("layer", "features"), share),
    ...                      "explained_interval": (("bound", "layer", "features"), [share, share])},
    ...                     {"layer": [0], "features": ["part", "tokens", "both"]})
    >>> extra_information(result).get_xlabel()
    'layer'
    """
    variables(result, "explained", "explained_interval")
    ax = axes(ax)
    plain(ax)
    layers = np.arange(result.sizes["layer"])
    names = [str(name) for name in result["features"].to_numpy()]
    for place, name in enumerate(names):
        tint, marker = _LOOKS.get(name, ("ink", "o"))
        where = layers + 0.16 * (place - (len(names) - 1) / 2)
        chosen = result.sel(features=name)
        low, high = chosen["explained_interval"].transpose("bound", "layer").to_numpy()
        ax.vlines(where, low, high, color=colour(tint), linewidth=1.4, alpha=0.6)
        label = str(result.attrs.get("part", name)) if name == "part" else {"tokens": "last tokens"}.get(name, name)
        ax.plot(where, chosen["explained"].to_numpy(), color=colour(tint), marker=marker, linestyle="none", label=label)
    ax.set_xticks(layers, [str(layer) for layer in result["layer"].to_numpy()])
    ax.set_xlabel("layer")
    ax.set_ylabel("share of later predictions told, held out")
    legend(ax, loc="best")
    return ax
