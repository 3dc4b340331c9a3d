"""Which memory carries an influence, against how long ago it was."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import axes, colour, legend, log_lags, plain, variables

_LOOKS = {
    "conv": ("purple", "..."),
    "state": ("orange", "//"),
    "window": ("blue", ""),
    "fading_tokens": ("green", "\\\\"),
    "eidetic": ("red", "xx"),
    "kv": ("blue", "--"),
}


def fading_by_memory(result: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    r"""Draw the share of each part of the memory in the influence of a token, against its lag.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.fading_by_memory` returns.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        Bands that fill the height from 0 to 1: Shapley values over the whole, negative ones counted as 0. Lags from
        which nothing arrives are left blank.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset.

    Examples
    --------
    >>> import xarray as xr
    >>> result = xr.Dataset({"share": (("part", "lag"), [[0.2, 0.9, 1.0], [0.8, 0.1, 0.0]])},
    ...                     {"part": ["state", "window"], "lag": [1, 8, 64]})
    >>> fading_by_memory(result).get_ylabel()
    'share of the influence'
    """
    variables(result, "share")
    ax = axes(ax)
    plain(ax)
    share = np.maximum(result["share"].transpose("part", "lag").to_numpy(), 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = share / share.sum(0)
    lag = result["lag"].to_numpy()
    log_lags(ax, float(lag[-1]), smallest=float(lag[0]))
    below = np.zeros(lag.size)
    for name, each in zip(result["part"].to_numpy(), share, strict=True):
        tint, hatch = _LOOKS.get(str(name), ("ink", "++"))
        above = below + each
        ax.fill_between(
            lag,
            below,
            above,
            facecolor=(*_rgb(colour(tint)), 0.45),
            edgecolor=colour(tint),
            hatch=hatch,
            linewidth=0.6,
            label=str(name).replace("_", " "),
        )
        below = above
    ax.set_ylim(0, 1)
    ax.set_ylabel("share of the influence")
    legend(ax, loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=len(share))
    return ax


def _rgb(tint: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(tint)
