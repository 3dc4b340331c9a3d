"""Bits a token of what was said before, against the distance to where it was said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from ._style import axes, colour
from .bits_by_position import draw, series


def recall(results: Mapping[str, Any], *, chance: float | None = None, ax: Axes | None = None) -> Axes:
    """Draw the mean bits a token, -log2 p, of tokens that repeat an earlier value, against the distance to it.

    Parameters
    ----------
    results : mapping
        ``{"edges": [...], "bits": [...]}``, as a checkpoint's card has it under ``recall``, or a mapping from names to
        such mappings. Bits of the bin from one edge to the next, distances in tokens (None where a bin is empty); or
        ``"distance"`` in the place of the edges, one for each entry of ``bits``.
    chance : float or None
        Bits a token of a guess that recalls nothing, drawn as a dashed line.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError, TypeError
        If ``results`` has other keys, or lists of different lengths.

    Examples
    --------
    >>> ax = recall({"edges": [32, 64, 128, 256], "bits": [0.4, 0.9, 3.3]})
    >>> ax.get_xlabel()
    'distance to where the value last stood, tokens'
    """
    ax = axes(ax)
    tables = series(results, "distance")
    if chance is not None:
        ax.axhline(chance, color=colour("ink"), linewidth=0.9, alpha=0.7, linestyle=(0, (2, 2)))
        ax.annotate("nothing recalled", (0.01, chance), xycoords=("axes fraction", "data"), xytext=(0, 3),
                    textcoords="offset points", ha="left", va="bottom", fontsize="small")  # fmt: skip
    draw(ax, tables, from_zero=True)
    ax.set_xlabel("distance to where the value last stood, tokens")
    return ax
