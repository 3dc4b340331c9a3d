"""Fisher memory curves: what a state tells of an input that long ago."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import PowerFormatter, axes, bounds, colour, layer_lines, legend, log_lags, plain, shade, variables

_NAMES = {
    "fisher": "Fisher information about the input",
    "linear": "share of a white input that is told",
    "decoded": "share of the text's input that is told",
}


def memory_curve(result: xr.Dataset, *, kind: str = "fisher", ax: Axes | None = None) -> Axes:
    r"""Draw a memory curve of each layer, the mean over prompts and heads.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.memory_curve` returns.
    kind : {"fisher", "linear", "decoded"}, default "fisher"
        Which curve.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        A line a layer and part; registers are dashed. The place of lag 0 is that of lag 1, moved to the left by one:
        the axis shows the number of steps that the input has been held. Bands are the intervals over prompts.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset, or ``kind`` is none of the three.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> curve = 0.1 * 0.9 ** np.arange(20)
    >>> result = xr.Dataset({"fisher": (("part", "prompt", "layer", "head", "lag"), curve[None, None, None, None])},
    ...                     {"part": ["state"], "layer": [0], "lag": np.arange(20)})
    >>> memory_curve(result).get_ylabel()
    'Fisher information about the input'
    """
    if kind not in _NAMES:
        raise ValueError(f"kind: expected one of {', '.join(_NAMES)}, got {kind!r}")
    variables(result, kind)
    ax = axes(ax)
    plain(ax)
    if kind == "decoded":
        curves = result[kind].mean("head").expand_dims(part=["state"]).transpose("part", "layer", "decoded_lag")
        held = result["decoded_lag"].to_numpy() + 1
    else:
        curves = result[kind].mean(("prompt", "head")).transpose("part", "layer", "lag")
        held = result["lag"].to_numpy() + 1
    log_lags(ax, float(held[-1]), smallest=float(held[0]))
    for row, part in enumerate(curves["part"].to_numpy()):
        for number, layer in enumerate(curves["layer"].to_numpy()):
            curve = curves.to_numpy()[row, number]
            if np.isnan(curve).all():
                continue
            tint, _ = layer_lines(number)
            line = (0, (5, 1.5)) if part == "register" else "-"
            name = f"layer {layer}" + (", register" if part == "register" else "")
            chosen = {"layer": layer} if kind == "decoded" else {"layer": layer, "part": part}
            dim = "decoded_lag" if kind == "decoded" else "lag"
            shade(ax, held, bounds(result, f"{kind}_curve_interval", dim, **chosen), colour(tint))
            shown = np.where(curve > 0, curve, np.nan) if kind == "fisher" else curve
            ax.plot(held, shown, color=colour(tint), linestyle=line, linewidth=1.5, label=name)
    if kind == "fisher":
        top = float(np.nanmax(curves.to_numpy()))
        ax.set_yscale("log")
        ax.set_ylim(top * 1e-6, top * 2)
        ax.yaxis.set_major_formatter(PowerFormatter())
    else:
        ax.axhline(0, color=colour("ink"), linewidth=0.6, alpha=0.4)
    ax.set_xlabel("tokens that the input is held")
    ax.set_ylabel(_NAMES[kind])
    if curves.sizes["layer"] <= 8:
        legend(ax, loc="best")
    return ax
