"""Where and when a difference between two prompts is held: a map over layers and times."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from ._style import axes, colour, diverging_colours, title, variables


def causal_trace(
    result: xr.Dataset, *, part: str = "all", path: str = "total", value: str = "normalised", ax: Axes | None = None
) -> Axes:
    r"""Draw the mean effects of patches of one part of the memory, over the tokens after which they were made.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.causal_trace` returns.
    part : str, default "all"
        The part of the memory; where it is not in the result, the only one there is.
    path : {"total", "direct", "indirect"}
        Which effect.
    value : {"normalised", "effect"}
        The effect over the difference between the two runs, or in nat.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        A cell for each layer and time, from blue (negative) over white to orange, with a bar. A dot marks cells whose
        interval over prompts holds 0; layers that do not have the part are left blank.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset, or does not have that part or path.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> dims = ("path", "part", "layer", "time")
    >>> effect = np.array([[[[0.1, 0.9], [0.0, 0.4]]]])
    >>> data = {"normalised_mean": (dims, effect),
    ...         "normalised_mean_interval": (("bound", *dims), np.stack([effect - 0.2, effect + 0.2]))}
    >>> result = xr.Dataset(data, {"path": ["total"], "part": ["all"], "layer": [0, 1], "time": [3, 4]})
    >>> causal_trace(result).get_xlabel()
    'patched after token'
    """
    if value not in ("normalised", "effect"):
        raise ValueError(f"value: expected 'normalised' or 'effect', got {value!r}")
    variables(result, f"{value}_mean", f"{value}_mean_interval")
    known = [str(each) for each in result["part"].to_numpy()]
    if part not in known and len(known) == 1 and part == "all":
        part = known[0]
    if part not in known:
        raise ValueError(f"part: expected one of {known}, got {part!r}")
    paths = [str(each) for each in result["path"].to_numpy()]
    if path not in paths:
        raise ValueError(f"path: expected one of {paths}, got {path!r}")
    chosen = result.sel(part=part, path=path)
    mean = chosen[f"{value}_mean"].transpose("layer", "time").to_numpy()
    low, high = chosen[f"{value}_mean_interval"].transpose("bound", "layer", "time").to_numpy()
    known_values = np.abs(mean[np.isfinite(mean)])
    limit = float(known_values.max()) if known_values.size and known_values.max() > 0 else 1.0
    ax = axes(ax)
    cells = np.ma.masked_invalid(mean)
    edges = [np.arange(n + 1) - 0.5 for n in mean.shape[::-1]]
    shown = ax.pcolormesh(*edges, cells, cmap=ListedColormap(list(diverging_colours())), vmin=-limit, vmax=limit)
    for row, column in np.argwhere((low <= 0) & (high >= 0) & np.isfinite(mean)):
        ax.plot(column, row, ".", color=colour("ink"), markersize=3)
    ax.invert_yaxis()
    times, layers = result["time"].to_numpy(), result["layer"].to_numpy()
    ticks = np.unique(np.linspace(0, times.size - 1, min(times.size, 8)).round().astype(int))
    ax.set_xticks(ticks, [str(times[i]) for i in ticks])
    symbols = result["symbol"].to_numpy() if "symbol" in result.coords else [""] * layers.size
    ax.set_yticks(range(layers.size), [f"layer {n} {s}".strip() for n, s in zip(layers, symbols, strict=True)])
    ax.set_xlabel("patched after token")
    title(ax, f"{path} effect, {part.replace('_', ' ')}")
    unit = "share of the difference" if value == "normalised" else "nat"
    ax.figure.colorbar(shown, ax=ax, label=f"{path} effect, {unit}")
    return ax
