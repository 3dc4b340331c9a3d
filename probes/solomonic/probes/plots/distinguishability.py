"""Which share of the pairs of memories still says the same."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import axes, colour, legend, looks, named, plain, sparse, variables


def distinguishability(result: xr.Dataset | Mapping[str, xr.Dataset], *, ax: Axes | None = None) -> Axes:
    r"""Draw the share of the pairs of memories that have said the same, against the tokens said.

    Parameters
    ----------
    result : Dataset, or mapping from names to Datasets
        What :func:`solomonic.probes.distinguishability` returns.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        A line a result with the band of its interval.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset.

    Examples
    --------
    >>> import xarray as xr
    >>> result = xr.Dataset({"alike": ("after", [1.0, 0.4, 0.1]),
    ...                      "alike_interval": (("bound", "after"), [[1.0, 0.3, 0.0], [1.0, 0.5, 0.2]])},
    ...                     {"after": [0, 1, 2]})
    >>> distinguishability(result).get_xlabel()
    'tokens said'
    """
    found = named(result)
    for name, each in found.items():
        variables(each, "alike", "alike_interval", what=f"result[{name!r}]" if name else "result")
    ax = axes(ax)
    plain(ax)
    for name, look in looks(found).items():
        after = found[name]["after"].to_numpy()
        low, high = found[name]["alike_interval"].transpose("bound", "after").to_numpy()
        tint = colour(look.colour)
        if np.isfinite(low).any():
            ax.fill_between(after, low, high, color=tint, alpha=0.15, linewidth=0)
        ax.plot(
            after,
            found[name]["alike"].to_numpy(),
            color=tint,
            linestyle=look.linestyle,
            marker=look.marker,
            markersize=4.5,
            markevery=sparse(after + 1.0),
            label=name or None,
        )
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlabel("tokens said")
    ax.set_ylabel("pairs of memories not yet told apart")
    if len(found) > 1:
        legend(ax, loc="best")
    return ax
