"""What an edit of the memory does to the predictions that follow."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ..edit import EditResult
from ..statistics import bootstrap_interval
from ._style import axes, bounds, colour, keep_curves_large, layer_lines, legend, plain, shade, variables

_VALUES = {"kl": "change of the prediction, bits", "effect": "effect on the logit difference, nats"}


def edit(
    result: EditResult | xr.Dataset, *, value: str = "kl", confidence: float | None = None, ax: Axes | None = None
) -> Axes:
    r"""Draw the mean effect of every intervention over the tokens after it.

    Parameters
    ----------
    result : EditResult or Dataset
        What :func:`solomonic.probes.edit` returns, or its ``.effects``.
    value : {"kl", "effect"}, default "kl"
        The divergence from the run without the edit, or the effect on the logit difference.
    confidence : float, optional
        Nominal coverage of the intervals; by default those of the Dataset, or 0.95 where it has none.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        A line an intervention, from its first edit on, with the band of the interval of the mean over prompts
        (studentized bootstrap, pointwise); a single prompt has no band.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such result, or the value is unknown.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> kl = np.array([[[0.0, 0.0, 0.4, 0.1], [0.0, 0.0, 0.6, 0.2]]])
    >>> data = {"kl": (("intervention", "prompt", "time"), kl)}
    >>> coords = {"edits": ("intervention", ["zero"]), "first_time": ("intervention", [1]), "time": range(4)}
    >>> edit(xr.Dataset(data, coords)).get_xlabel()
    'tokens after the edit'
    """
    effects = result.effects if isinstance(result, EditResult) else result
    if value not in _VALUES:
        raise ValueError(f"value: expected 'kl' or 'effect', got {value!r}")
    variables(effects, value, "edits", "first_time", "time")
    ax = axes(ax)
    plain(ax)
    time = effects["time"].to_numpy()
    table = effects[value].transpose("intervention", "prompt", "time").to_numpy()
    held = bounds(effects, f"{value}_mean_interval", "intervention", "time") if confidence is None else None
    names, starts = (effects[name].to_numpy() for name in ("edits", "first_time"))
    for row, (values, name, start) in enumerate(zip(table, names, starts, strict=True)):
        tint, style = layer_lines(row)
        after = time > start
        lag, shown = time[after] - start, values[:, after]
        if held is not None:
            shade(ax, lag, held[:, row, after], colour(tint))
        elif len(shown) > 1 and lag.size:
            limits = bootstrap_interval(shown, confidence=confidence or 0.95, rng=0)
            shade(ax, lag, np.maximum(limits, 0.0) if value == "kl" else limits, colour(tint))
        ax.plot(lag, shown.mean(0), color=colour(tint), linestyle=style, linewidth=1.4, label=str(name))
    means = np.concatenate([np.zeros(1), *(np.nanmean(v[:, time > s], 0) for v, s in zip(table, starts, strict=True))])
    keep_curves_large(ax, float(means.max()), float(means.min()))
    ax.axhline(0.0, color=colour("ink"), linewidth=0.6, alpha=0.5)
    ax.set_xlabel("tokens after the edit")
    ax.set_ylabel(_VALUES[value])
    if np.size(names) > 1:
        legend(ax, loc="best")
    return ax
