"""What is left of the difference between two pasts when parts of the memory travel."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import axes, colour, plain, variables


def sufficiency(result: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    r"""Draw the divergence from the donor's own future for each set of parts that travels.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.sufficiency` returns.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        A dot a set, with its interval.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset.

    Examples
    --------
    >>> import xarray as xr
    >>> result = xr.Dataset({"kl_mean": ("travels", [0.5, 0.0]),
    ...                      "kl_mean_interval": (("bound", "travels"), [[0.4, 0.0], [0.6, 0.0]])},
    ...                     {"travels": ["nothing", "everything"]})
    >>> [label.get_text() for label in sufficiency(result).get_yticklabels()]
    ['nothing', 'everything']
    """
    variables(result, "kl_mean", "kl_mean_interval")
    ax = axes(ax)
    plain(ax)
    names = [str(name) for name in result["travels"].to_numpy()]
    where = np.arange(len(names))
    low, high = result["kl_mean_interval"].transpose("bound", "travels").to_numpy()
    ax.hlines(where, low, high, color=colour("blue"), linewidth=1.6, alpha=0.6)
    ax.plot(result["kl_mean"].to_numpy(), where, color=colour("blue"), marker="o", linestyle="none")
    ax.set_yticks(where, names)
    for text in ax.get_yticklabels():
        text.set_parse_math(False)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.set_xlabel("divergence from the donor's future, bits a token")
    ax.set_ylabel("what travels")
    return ax
