"""Accuracy of the recall study, by the distance to the answer or by the number of stored tokens."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import axes, colour, end_labels, looks, whiskers

_LABELS = {
    "lag": "distance to the answer, tokens",
    "pairs": "pairs of key and value in a row",
    "stored": "tokens stored when it is read out",
}


def recall_study(table: xr.Dataset, *, by: str = "lag", pairs: int | None = None, ax: Axes | None = None) -> Axes:
    """Draw mean accuracy with its interval over seeds, a curve for every model.

    Parameters
    ----------
    table : xarray.Dataset
        From :func:`solomonic.probes.recall_table`.
    by : {"lag", "pairs", "stored"}
        What to draw against: the distance to the answer, the number of pairs, or, for models that store tokens, how
        many they may store when they are read out (accuracy at the farthest distances; dotted, if tokens were chosen
        at random then).
    pairs : int or None
        Rows of which number of pairs; the largest if not given. Not used with ``by="pairs"``.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If ``by`` is unknown, the table has no rows of that many pairs, or no model stores tokens.

    Examples
    --------
    >>> from solomonic.probes import recall_table
    >>> run = {"model": "swa", "pairs": 4, "decay": "slow", "seed": 0, "accuracy": 0.3, "choice": 0.3,
    ...        "by_lag": {"to 16": 0.9, "over 16": 0.1}, "by_budget": {}, "memory_nbytes": 1024}
    >>> recall_study(recall_table([run])).get_xlabel()
    'distance to the answer, tokens'
    """
    if by not in _LABELS:
        raise ValueError(f"by: expected one of {', '.join(_LABELS)}, got {by!r}")
    if by == "pairs":
        values = table["accuracy"]
    else:
        counts = table["pairs"].values.tolist()
        pairs = counts[-1] if pairs is None else pairs
        if pairs not in counts:
            raise ValueError(f"pairs: expected one of {counts}, got {pairs!r}")
        values = table["by_lag" if by == "lag" else "far_by_budget"].sel(pairs=pairs)
    known = [str(m) for m in table["model"].values if np.isfinite(values.sel(model=m, bound="mean")).any()]
    if not known:
        raise ValueError(f"table: no model has an accuracy by {by}" + "; none stores tokens" * (by == "stored"))
    ax = axes(ax, size=(6.8, 4.2))
    ticks = [str(x) for x in table[by].values]
    x, ends = np.arange(len(ticks), dtype=float), []
    style = looks([str(m) for m in table["model"].values])
    for i, model in enumerate(known):
        mean, low, high = (values.sel(model=model, bound=b).values for b in ("mean", "low", "high"))
        look, tint = style[model], colour(style[model].colour)
        at = x + 0.3 * ((i + 0.5) / len(known) - 0.5)  # intervals beside each other
        ax.plot(at, mean, color=tint, marker=look.marker, linestyle=look.linestyle, linewidth=1.4, markersize=5)
        whiskers(ax, at, np.stack([low, high]), tint, linewidth=0.9, alpha=0.7)
        last = np.flatnonzero(np.isfinite(mean))[-1]
        ends.append((float(at[last]), float(mean[last]), model, tint))
        if by == "stored" and "random" not in model:
            random = table["far_by_random"].sel(pairs=pairs, model=model)
            chance, *limits = (random.sel(bound=b).values for b in ("mean", "low", "high"))
            ax.plot(at, chance, color=tint, linewidth=0.9, alpha=0.8, linestyle=(0, (1, 2)))
            whiskers(ax, at + 0.02, np.stack(limits), tint, linewidth=0.9, alpha=0.5, linestyle=(0, (1, 2)))
    ax.set_xticks(x, ticks)
    ax.set_xlabel(_LABELS[by])
    ax.set_ylabel("share of questions answered" + (", farthest distances" if by == "stored" else " rightly"))
    ax.set_ylim(-0.03, 1.03)
    end_labels(ax, ends)
    return ax
