"""Scores of linear probes beside those of their controls."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import axes, bands, colour, legend, variables

_CONTROLS = (("blue", "s"), ("orange", "^"), ("purple", "v"), ("red", "P"))


def linear_probe(result: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    """Draw the score of every head, in a band for each layer, with its interval and the controls.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.state_probe` or :func:`solomonic.probes.linear_probe` returns.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        A round mark a head with its interval, filled where it is selective; small marks are the controls.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset.

    Examples
    --------
    >>> import numpy as np
    >>> from solomonic.probes import linear_probe as probe
    >>> x = np.random.default_rng(0).normal(size=(30, 4))
    >>> linear_probe(probe(x, x[:, 0] > 0)).get_xlabel()
    'held-out score'
    """
    variables(result, "score_mean", "score_interval", "control_score", "selective")
    if "unit" in result.dims:
        result = result.rename(unit="head").expand_dims(layer=[0], axis=-1)
    score = result["score_mean"].transpose("layer", "head").to_numpy()
    low, high = result["score_interval"].transpose("bound", "layer", "head").to_numpy()
    selective = result["selective"].transpose("layer", "head").to_numpy()
    control = result["control_score"].mean("prompt").transpose("control", "layer", "head").to_numpy()
    ax = axes(ax)
    y = bands(ax, result["layer"].to_numpy(), score.shape[1])
    for number, name in enumerate(result["control"].to_numpy()):
        tint, marker = _CONTROLS[number % len(_CONTROLS)]
        style = {"color": colour(tint), "marker": marker, "markersize": 4, "linestyle": ""}
        ax.plot(control[number].ravel(), y.ravel(), label=str(name), **style)
    ax.hlines(y.ravel(), low.ravel(), high.ravel(), color=colour("ink"), linewidth=1.0)
    for chosen, fill, name in ((selective, "ink", "probe, selective"), (~selective, "white", "probe")):
        if chosen.any():
            face = colour(fill) if fill == "ink" else fill
            ax.plot(
                score[chosen],
                y[chosen],
                marker="o",
                linestyle="",
                color=colour("ink"),
                markerfacecolor=face,
                markersize=6,
                label=name,
            )
    ax.set_xlim(min(0.0, float(np.nanmin([np.nanmin(score), np.nanmin(control)]))) - 0.02, 1.04)
    ax.set_xlabel("held-out score")
    legend(ax, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax
