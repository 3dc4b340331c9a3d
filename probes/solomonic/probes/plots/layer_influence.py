"""How strongly one layer's output depends on its input a lag ago, path by path."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import (
    axes,
    bounds,
    colour,
    in_bins,
    layer_lines,
    legend,
    log_bits,
    log_lags,
    mark,
    named,
    plain,
    shade,
    variables,
)

_PATHS = {
    "all": ("ink", "-", "both paths"),
    "window": ("blue", (0, (5, 1.5)), "through the window"),
    "fading": ("orange", (0, (1.2, 1.2)), "through fading tokens"),
}


def layer_influence(result: xr.Dataset | Mapping[str, xr.Dataset], *, ax: Axes | None = None) -> Axes:
    r"""Draw the norm of the Jacobian of a mixer, || d output_T / d input_(T - lag) ||, against the lag, on log axes.

    Parameters
    ----------
    result : Dataset, or mapping from names to Datasets
        What :func:`solomonic.probes.layer_influence` returns. One: a curve for each of its paths. A mapping, from the
        names of layers, say: a curve over all paths for each.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        Upright lines mark W and 2W; a curve ends where the influence is exactly 0. More than 40 lags are drawn as root
        mean squares over bins, which never reach across W and 2W. The bands are those of the intervals over prompts.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset.

    Examples
    --------
    >>> import xarray as xr
    >>> result = xr.Dataset({"influence_mean": (("path", "lag"), [[1.0, 0.5, 0.2, 0.0]])},
    ...                     {"path": ["all"], "lag": [1, 2, 3, 4]}, {"window": 4})
    >>> ax = layer_influence(result)
    >>> ax.get_ylabel()
    'norm of the Jacobian'
    """
    results = named(result)
    ax = axes(ax)
    drawn: list[tuple[str, str, object, np.ndarray, np.ndarray, np.ndarray | None]] = []
    single = isinstance(result, xr.Dataset)
    for number, (name, one) in enumerate(results.items()):
        variables(one, "influence_mean")
        window = int(one.attrs.get("window", 0))
        paths = [str(path) for path in one["path"].to_numpy()] if single else ["all"]
        for path in paths:
            tint, line, label = _PATHS.get(path, ("purple", "-", path))
            if not single:
                (tint, line), label = layer_lines(number), name
            values = one["influence_mean"].sel(path=path).sortby("lag")
            values = values.sel(lag=values["lag"] >= 1)
            place, edges = values["lag"].to_numpy(), (window, 2 * window)
            lag, height = in_bins(place, values.to_numpy(), edges)
            limits = bounds(one.sel(lag=place), "influence_mean_interval", "lag", path=path)
            if limits is not None:
                limits = np.stack([in_bins(place, each, edges)[1] for each in limits])
            drawn.append((label, tint, line, lag, height, limits))
    positive = np.concatenate([v[v > 0] for *_, v, _ in drawn])
    largest = max(float(lag[-1]) for *_, lag, _, _ in drawn)
    smallest = min(float(lag[0]) for *_, lag, _, _ in drawn)
    top = float(positive.max()) if positive.size else 1.0
    low = max(float(positive.min()), top * 1e-8) if positive.size else 1e-3
    plain(ax)
    log_lags(ax, largest, smallest=smallest)
    log_bits(ax, low / 2, top * 2)
    for label, tint, line, lag, values, limits in drawn:
        shown = np.where(values > 0, values, np.nan)
        if limits is not None:
            shade(ax, lag, np.where(values > 0, limits, np.nan), colour(tint))
        ax.plot(lag, shown, color=colour(tint), linestyle=line, linewidth=1.5, label=label)
    for window in sorted({int(one.attrs.get("window", 0)) for one in results.values()} - {0}):
        for lag, name in ((window, "W"), (2 * window, "2W")):
            if smallest <= lag <= largest:
                mark(ax, lag, name)
    ax.set_ylabel("norm of the Jacobian")
    if len(drawn) > 1:
        legend(ax, loc="lower left")
    return ax
