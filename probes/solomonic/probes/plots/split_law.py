"""The error of the split law against the place of the split."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from ._style import PowerFormatter, axes, colour, layer_lines, legend, plain, variables


def split_law(result: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    r"""Draw how far model(a + b) and model(b, memory after a) differ, against the length of a, on a log axis.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.split_law` returns.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        A line a layer; splits where a layer has no error at all lie on the axis's lower edge.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no split law Dataset.

    Examples
    --------
    >>> import xarray as xr
    >>> result = xr.Dataset({"error": (("split", "layer"), [[1e-7, 0.0], [2e-7, 1e-7]])}, {"split": [1, 2]})
    >>> ax = split_law(result)
    >>> ax.get_yscale(), ax.get_xlabel()
    ('log', 'tokens before the split')
    """
    variables(result, "error")
    ax = axes(ax, size=(6.4, 3.2))
    error = result["error"].transpose("split", "layer")
    values = error.to_numpy()
    positive = values[values > 0]
    floor = 10 ** (np.floor(np.log10(positive.min())) - 0.5) if positive.size else 1e-17
    split = error["split"].to_numpy()
    names = error["layer"].to_numpy() if "layer" in error.coords else np.arange(values.shape[1])
    plain(ax)
    for number, name in enumerate(names):
        tint, line = layer_lines(number)
        ax.plot(
            split,
            np.maximum(values[:, number], floor),
            color=colour(tint),
            linestyle=line,
            linewidth=1.3,
            marker="." if len(split) < 3 else None,
            label=f"layer {name}" if not isinstance(name, str) else name,
        )
    top = max(float(positive.max()) if positive.size else 1e-15, floor * 10)
    tolerance = result.attrs.get("tolerance")
    if isinstance(tolerance, float) and tolerance > 0:
        ax.axhline(tolerance, color=colour("ink"), linewidth=0.9, alpha=0.7, linestyle=(0, (2, 2)))
        ax.annotate("allowed", (1.0, tolerance), xycoords=("axes fraction", "data"), xytext=(0, 2),
                    textcoords="offset points", ha="right", va="bottom", fontsize="small")  # fmt: skip
        top = max(top, tolerance * 3)
    ax.set_yscale("log")
    ax.set_ylim(floor, top * 3)
    ax.yaxis.set_major_formatter(PowerFormatter())
    ax.yaxis.set_minor_locator(NullLocator())
    if (values == 0).any():
        ax.annotate("exactly 0", (0.99, 0), xycoords="axes fraction", xytext=(0, 2), textcoords="offset points",
                    ha="right", va="bottom", fontsize="small")  # fmt: skip
    ax.set_xlabel("tokens before the split")
    ax.set_ylabel("error, share of the scale")
    if len(names) <= 8:
        legend(ax, loc="upper left", ncols=len(names) if len(names) <= 4 else 4)
    return ax
