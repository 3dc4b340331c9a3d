"""Over which sizes of a difference the derivative can be trusted."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import PowerFormatter, axes, colour, legend, plain, variables

_LOOKS = {"observability": ("blue", "o", "-"), "controllability": ("orange", "s", (0, (6, 1.5)))}


def empirical_gramians(result: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    r"""Draw how far empirical Gramians are from those of the derivative, against the size of the differences.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.empirical_gramians` returns.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        A line a side on logarithmic axes; the dotted line is the tolerance below which the plateau lies. Deviations of
        exactly 0 are left out.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset.

    Examples
    --------
    >>> import xarray as xr
    >>> result = xr.Dataset({"deviation": (("side", "scale"), [[1e-6, 0.1], [1e-4, 0.5]])},
    ...                     {"side": ["observability", "controllability"], "scale": [0.001, 1.0]}, {"tol": 0.05})
    >>> empirical_gramians(result).get_ylabel()
    'distance from the Gramian of the derivative'
    """
    variables(result, "deviation")
    ax = axes(ax)
    plain(ax)
    scale = result["scale"].to_numpy()
    for side in result["side"].to_numpy():
        tint, marker, line = _LOOKS.get(str(side), ("ink", "D", "-"))
        value = result["deviation"].sel(side=side).to_numpy()
        seen = np.isfinite(value) & (value > 0)
        ax.plot(scale[seen], value[seen], color=colour(tint), marker=marker, markersize=4.5, linestyle=line, label=side)
    if "tol" in result.attrs:
        ax.axhline(float(result.attrs["tol"]), color=colour("ink"), linewidth=0.8, alpha=0.6, linestyle=(0, (2, 2)))
    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PowerFormatter())
    ax.set_xlabel("size of the difference, relative")
    ax.set_ylabel("distance from the Gramian of the derivative")
    legend(ax, loc="best")
    return ax
