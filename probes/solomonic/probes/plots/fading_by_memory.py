"""Which memory carries an influence, against how long ago it was."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import axes, bounds, colour, legend, log_lags, plain, shade, variables, whiskers

_LOOKS = {
    "conv": ("purple", "..."),
    "state": ("orange", "//"),
    "window": ("blue", ""),
    "fading_tokens": ("green", "\\\\"),
    "eidetic": ("red", "xx"),
    "kv": ("blue", "--"),
}

_MARKS = "osD^vP"
#: Shares up to this have no bar where they stand on each other.
_THIN = 0.01


def fading_by_memory(result: xr.Dataset, *, stacked: bool = True, ax: Axes | None = None) -> Axes:
    r"""Draw the share of each part of the memory in the influence of a token, against its lag.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.fading_by_memory` returns.
    stacked : bool, default True
        Whether the shares stand on each other. Else each is a curve with the band of its interval over prompts.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        Bands that fill the height from 0 to 1: Shapley values over the whole, negative ones counted as 0. Lags from
        which nothing arrives are left blank. The bar at the upper edge of a band is the interval of its share: how
        thick the band may be. Curves show shares as they are, negative ones too.

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
    if not stacked:
        return _curves(result, ax)
    share = np.maximum(result["share"].transpose("part", "lag").to_numpy(), 0)
    limits = bounds(result, "share_interval", "part", "lag")
    with np.errstate(invalid="ignore", divide="ignore"):
        share = share / share.sum(0)
    lag = result["lag"].to_numpy()
    log_lags(ax, float(lag[-1]), smallest=float(lag[0]))
    below = np.zeros(lag.size)
    barred = [row for row in range(len(share) - 1) if (share[row] > _THIN).any()]
    for row, (name, each) in enumerate(zip(result["part"].to_numpy(), share, strict=True)):
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
        if limits is not None and row in barred:
            moved = lag * 1.025 ** (barred.index(row) - (len(barred) - 1) / 2)  # beside those of the other parts
            ends = np.where(each > _THIN, np.clip(below + limits[:, row], 0, 1), np.nan)
            whiskers(ax, moved, ends, colour("ink"), linewidth=0.9, zorder=4)
        below = above
    ax.set_ylim(0, 1)
    ax.set_ylabel("share of the influence")
    legend(ax, loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=len(share))
    return ax


def _curves(result: xr.Dataset, ax: Axes) -> Axes:
    """Shares side by side, each with its band."""
    share = result["share"].transpose("part", "lag").to_numpy()
    lag = result["lag"].to_numpy()
    log_lags(ax, float(lag[-1]), smallest=float(lag[0]))
    limits = bounds(result, "share_interval", "part", "lag")
    for row, name in enumerate(result["part"].to_numpy()):
        tint = colour(_LOOKS.get(str(name), ("ink", ""))[0])
        shade(ax, lag, None if limits is None else limits[:, row], tint)
        ax.plot(lag, share[row], color=tint, marker=_MARKS[row % len(_MARKS)], markersize=4, linewidth=1.4,
                label=str(name).replace("_", " "))  # fmt: skip
    for level in (0.0, 1.0):
        ax.axhline(level, color=colour("ink"), linewidth=0.6, alpha=0.4)
    ax.set_ylabel("share of the influence")
    legend(ax, loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=len(share))
    return ax


def _rgb(tint: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(tint)
