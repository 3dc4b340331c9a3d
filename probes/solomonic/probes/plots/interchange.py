"""Interchange accuracy of a learned subspace, beside its controls."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import axes, colour, plain, variables


def interchange(result: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw how often an interchange flips the answer on held-out pairs, a line for each case, with its interval.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.interchange_subspace` returns.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        The learned subspace is filled, all that it is compared with is not.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset.

    Examples
    --------
    >>> import xarray as xr
    >>> result = xr.Dataset({"accuracy": ("case", [0.9, 0.1]),
    ...     "accuracy_interval": (("bound", "case"), [[0.8, 0.0], [1.0, 0.2]])}, {"case": ["learned", "none"]})
    >>> interchange(result).get_xlabel()
    'held-out pairs whose answer flips'
    """
    variables(result, "accuracy", "accuracy_interval", "case")
    ax = axes(ax, size=(6.4, 3.0))
    plain(ax)
    ax.grid(False, axis="y")
    names = [str(name) for name in result["case"].to_numpy()]
    y = np.arange(len(names))
    low, high = np.clip(result["accuracy_interval"].transpose("bound", "case").to_numpy(), 0, 1)
    ax.hlines(y, low, high, color=colour("ink"), linewidth=1.2)
    for row, (name, value) in enumerate(zip(names, result["accuracy"].to_numpy(), strict=True)):
        tint = colour("orange" if name == "learned" else "ink")
        face = tint if name == "learned" else "white"
        ax.plot([value], [row], marker="o", markersize=7, color=tint, markerfacecolor=face)
    ax.set_yticks(y, names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(-0.03, 1.03)
    ax.set_xlabel("held-out pairs whose answer flips")
    return ax
