"""How visible the directions of a state are."""

from __future__ import annotations

import xarray as xr
from matplotlib.axes import Axes

from ._spectrum import spectrum


def observability(result: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    r"""Draw the singular values of the map from each layer's state to the next logits.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.observability` returns.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        A line a layer over the directions, the most visible first; the mark is where the tolerance is. A layer of
        which nothing is seen is named in the legend and not drawn.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset.

    Examples
    --------
    >>> import xarray as xr
    >>> result = xr.Dataset({"singular_value": (("layer", "direction"), [[3.0, 1.0, 0.1]]),
    ...                      "rank": ("layer", [2])}, {"layer": [0]})
    >>> observability(result).get_xlabel()
    'direction of the state, the most visible first'
    """
    return spectrum(
        result,
        ax,
        x="direction of the state, the most visible first",
        y="change of the next logits, nat",
        nothing="nothing is seen",
    )
