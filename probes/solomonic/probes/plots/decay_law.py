"""Which law a fading curve follows, and how far the others are behind."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import axes, bounds, colour, plain, variables, whiskers


def decay_law(result: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    r"""Draw how far the held-out likelihood of each law is behind that of the best one.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.decay_law` returns.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        A row a law, the best at the top, with its interval over prompts (two standard errors to both sides where the
        Dataset has none). Laws whose line touches 0 cannot be told from the best one.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset.

    Examples
    --------
    >>> import xarray as xr
    >>> result = xr.Dataset({"behind": ("law", [0.0, 0.4]), "behind_error": ("law", [0.0, 0.1])},
    ...                     {"law": ["power", "exponential"]})
    >>> [text.get_text() for text in decay_law(result).get_yticklabels()]
    ['power', 'exponential']
    """
    variables(result, "behind", "behind_error")
    ax = axes(ax, size=(6.0, 1.0 + 0.35 * result.sizes["law"]))
    plain(ax)
    order = np.argsort(result["behind"].to_numpy(), kind="stable")
    behind, error = (result[name].to_numpy()[order] for name in ("behind", "behind_error"))
    row = np.arange(order.size)
    limits = bounds(result, "behind_interval", "law")
    limits = np.stack([behind - 2 * error, behind + 2 * error]) if limits is None else limits[:, order]
    whiskers(ax, row, limits, colour("blue"), across=True, linewidth=1.6)
    ax.plot(behind, row, color=colour("blue"), marker="o", markersize=5, linestyle="none")
    ax.axvline(0, color=colour("ink"), linewidth=0.8, alpha=0.5)
    ax.set_yticks(row, [str(name).replace("+", " and ") for name in result["law"].to_numpy()[order]])
    ax.set_ylim(order.size - 0.5, -0.5)
    if behind.max() > 0:
        ax.set_xscale("symlog", linthresh=max(float(behind[behind > 0].min()), 1e-3))
    ax.set_xlabel("behind the best law, nat an observation")
    return ax
