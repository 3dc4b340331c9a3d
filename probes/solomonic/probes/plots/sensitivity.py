"""The whole derivative beside that at frozen gates, against lag."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import axes, bounds, colour, in_bins, layer_lines, legend, log_bits, log_lags, plain, shade, variables


def sensitivity(result: xr.Dataset, *, targets: list[str] | None = None, ax: Axes | None = None) -> Axes:
    r"""Draw the norm of the derivative of states and logits by the embedding a lag ago, full and at frozen gates.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.sensitivity` returns.
    targets : list of str, optional
        Which targets to draw; by default the logits alone.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        Solid lines are the whole derivative, dotted ones that at frozen gates; root mean squares over bins of lags.
        The bands are those of the intervals over prompts, and in a bin the root mean square of their bounds.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset, or has no such target.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> norm = np.array([[[1.0, 0.5, 0.2]], [[0.8, 0.3, 0.1]]])
    >>> result = xr.Dataset({"norm_mean": (("jacobian", "target", "lag"), norm)},
    ...                     {"jacobian": ["full", "frozen"], "target": ["logits"], "lag": [1, 2, 3]})
    >>> sensitivity(result).get_ylabel()
    'norm of the derivative'
    """
    variables(result, "norm_mean")
    there = [str(t) for t in result["target"].to_numpy()]
    chosen = there[-1:] if targets is None else list(targets)
    for target in chosen:
        if target not in there:
            raise ValueError(f"targets: expected some of {', '.join(there)}, got {target!r}")
    ax = axes(ax)
    plain(ax)
    seen = result.sel(lag=result["lag"] >= 1)
    lag = seen["lag"].to_numpy()
    log_lags(ax, float(lag[-1]), smallest=float(lag[0]))
    low, high = np.inf, 0.0
    for number, target in enumerate(chosen):
        tint, _ = layer_lines(number)
        for kind, line in (("full", "-"), ("frozen", (0, (1.2, 1.2)))):
            x, y = in_bins(lag, seen["norm_mean"].sel(jacobian=kind, target=target).to_numpy(), ())
            y = np.where(y > 0, y, np.nan)
            if np.isfinite(y).any():
                low, high = min(low, float(np.nanmin(y))), max(high, float(np.nanmax(y)))
            limits = bounds(seen, "norm_mean_interval", "lag", jacobian=kind, target=target)
            if limits is not None:
                shade(ax, x, np.stack([in_bins(lag, each, ())[1] for each in limits]), colour(tint))
            name = kind if len(chosen) == 1 else f"{target}, {kind}"
            ax.plot(x, y, color=colour(tint), linestyle=line, linewidth=1.6, label=name)
    if high > 0:
        log_bits(ax, low / 2, high * 2)
    ax.set_ylabel("norm of the derivative")
    legend(ax, loc="best")
    return ax
