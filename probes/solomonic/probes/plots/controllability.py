"""How far the last inputs can move the directions of a state."""

from __future__ import annotations

import xarray as xr
from matplotlib.axes import Axes

from ._spectrum import spectrum


def controllability(result: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    r"""Draw the singular values of the map from the last embeddings to each layer's state.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.controllability` returns.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        A line a layer over the directions, the easiest to move first; the mark is where the tolerance is.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset.

    Examples
    --------
    >>> import xarray as xr
    >>> result = xr.Dataset({"singular_value": (("layer", "direction"), [[3.0, 1.0, 0.1]]),
    ...                      "rank": ("layer", [2])}, {"layer": [0]})
    >>> controllability(result).get_xlabel()
    'direction of the state, the easiest to move first'
    """
    return spectrum(
        result,
        ax,
        x="direction of the state, the easiest to move first",
        y="move of the state for inputs of size 1",
        nothing="nothing moves it",
    )
