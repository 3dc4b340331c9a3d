"""What stored tokens are worth, against the score that they were stored for."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import PowerFormatter, axes, bounds, colour, layer_lines, legend, plain, variables, whiskers

_MARKERS = "os^Dv<>P"


def eviction(result: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    r"""Draw the effect of every token against its innovation.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.eviction` returns.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        A mark for each token of each prompt, filled where it is stored; colour and shape say the layer. Divergences
        stand on a log axis, from which those that are exactly 0 are left out; changes of the loss on a linear one. To
        the right of them the means of stored tokens and of others over prompts, with the bars of their intervals.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset.

    Examples
    --------
    >>> import xarray as xr
    >>> dims = ("layer", "prompt", "token")
    >>> data = {"score": (dims, [[[3.0, 1.0]]]), "effect": (dims, [[[0.5, 0.01]]]), "stored": (dims, [[[True, False]]])}
    >>> eviction(xr.Dataset(data, {"layer": [0]}, {"by": "kl"})).get_xlabel()
    'innovation of the token'
    """
    variables(result, "score", "effect", "stored", "layer")
    ax = axes(ax)
    plain(ax)
    divergence = result.attrs.get("by", "kl") == "kl"
    for place, layer in enumerate(result["layer"].to_numpy()):
        here = result.isel(layer=place)
        score, effect, stored = (here[name].to_numpy().ravel() for name in ("score", "effect", "stored"))
        tint = colour(layer_lines(place)[0])
        for which, face, name in ((stored, tint, "stored"), (~stored, "none", "not stored")):
            shown = which & (effect > 0) if divergence else which
            ax.plot(
                score[shown],
                effect[shown],
                linestyle="none",
                marker=_MARKERS[place % len(_MARKERS)],
                markersize=3.5,
                color=tint,
                markerfacecolor=face,
                alpha=0.7,
                label=f"layer {layer}, {name}",
            )
    if divergence and np.any(result["effect"].to_numpy() > 0):
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(PowerFormatter())
    if "stored_effect_mean" in result:
        _means(ax, result, divergence)
    ax.set_xlabel("innovation of the token")
    ax.set_ylabel("change of what follows, bits" if divergence else "loss without the token minus with it, bits")
    legend(ax, loc="best")
    return ax


def _means(ax: Axes, result: xr.Dataset, divergence: bool) -> None:
    """Means over prompts beside the right edge, filled for stored tokens, with their intervals."""
    beside = ax.get_yaxis_transform()
    step = 0.028
    for place in range(result.sizes["layer"]):
        tint = colour(layer_lines(place)[0])
        for side, (name, face) in enumerate((("stored", tint), ("other", "none"))):
            mean = float(result[f"{name}_effect_mean"][place])
            if not np.isfinite(mean) or (divergence and mean <= 0):
                continue
            x = 1.03 + step * (2 * place + side) + 0.02 * place
            limits = bounds(result.isel(layer=[place]), f"{name}_effect_mean_interval", "layer")
            if limits is not None and divergence:
                limits = np.maximum(limits, 1e-3 * mean)
            whiskers(ax, [x], limits, tint, transform=beside, clip_on=False)
            ax.plot(
                [x],
                [mean],
                transform=beside,
                clip_on=False,
                linestyle="none",
                marker=_MARKERS[place % len(_MARKERS)],
                markersize=6,
                color=tint,
                markerfacecolor=face,
            )
    ax.text(1.03, 1.02, "means", transform=ax.transAxes, fontsize="small", parse_math=False)
