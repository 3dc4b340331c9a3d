"""A layer's transition matrix as a picture: registers that shift, states that decay, and what feeds what."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ._style import KIND_COLOUR, axes, colour, variables

_NAMES = {
    "conv": "convolution",
    "state": "state",
    "window": "window",
    "fading_tokens": "fading tokens",
    "kv": "keys and values",
    "eidetic": "stored tokens",
}


def structure(result: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    r"""Draw the transition x_t = A x_(t-1) + B u_t of a layer as a block matrix, one cell an entry.

    Columns are the slots before a token, rows the slots after it. Diagonal blocks are framed in the colour of their
    kind: eidetic (blue: a shift, nilpotent, or a diagonal of ones, where stored tokens are held) and fading (orange: a
    diagonal of decays). A cell is darker the larger its entry is, and hatched where that is negative.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.structure` returns.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no structure Dataset.

    Examples
    --------
    >>> import xarray as xr
    >>> result = xr.Dataset({"transition": (("to", "from"), [[0, 0], [1, 0]]), "block": ("to", ["window", "window"])})
    >>> [text.get_text() for text in structure(result).get_yticklabels()]
    ['window']
    """
    variables(result, "transition", "block")
    ax = axes(ax, size=(4.6, 4.6))
    signed = result["transition"].transpose("to", "from").to_numpy()
    matrix = np.abs(signed)
    size = len(matrix)
    scale = matrix.max() or 1.0
    kinds = _kinds(result)
    blocks = [(part, len(list(group))) for part, group in groupby(result["block"].to_numpy().tolist())]
    first = np.cumsum([0, *(count for _, count in blocks)])
    slot_kind = [kinds.get(part, "eidetic") for part, count in blocks for _ in range(count)]
    for row, column in np.argwhere(matrix > 0):
        # What leaves a state fades, what leaves a register is exact.
        tint = colour(KIND_COLOUR[slot_kind[column]])
        strength = 0.25 + 0.75 * matrix[row, column] / scale
        ax.add_patch(Rectangle((column, row), 1, 1, facecolor=tint, alpha=strength, linewidth=0))
        if signed[row, column] < 0:
            ink = {"edgecolor": colour("ink"), "alpha": 0.6, "linewidth": 0, "hatch": "////"}
            ax.add_patch(Rectangle((column, row), 1, 1, fill=False, **ink))
    for edge in first[1:-1]:
        ax.axhline(edge, color=colour("ink"), linewidth=0.6, alpha=0.25)
        ax.axvline(edge, color=colour("ink"), linewidth=0.6, alpha=0.25)
    for (part, count), start in zip(blocks, first, strict=False):
        tint = colour(KIND_COLOUR[kinds.get(part, "eidetic")])
        ax.add_patch(Rectangle((start, start), count, count, fill=False, edgecolor=tint, linewidth=1.6, zorder=4))
    middles = (first[:-1] + first[1:]) / 2
    names = [str(_NAMES.get(part, part)) for part, _ in blocks]
    ax.set_yticks(middles, names)
    ax.set_xticks(middles, names, rotation=30, ha="left", rotation_mode="anchor")
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.tick_params(length=0)
    ax.set_xlim(0, size)
    ax.set_ylim(size, 0)
    ax.set_aspect("equal")
    ax.spines[:].set_alpha(0.35)
    ax.set_xlabel("from: slots before a token")
    ax.set_ylabel("to: slots after it")
    return ax


def _kinds(result: xr.Dataset) -> dict[str, str]:
    """Part -> kind, from the Dataset where it says so."""
    known = {"state": "fading"}
    if "kind" in result and "part" in result.coords:
        known.update(zip(result["part"].to_numpy().tolist(), result["kind"].to_numpy().tolist(), strict=True))
    return known
