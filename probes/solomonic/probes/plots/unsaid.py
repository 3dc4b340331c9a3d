"""States that differ and say the same, beside changes of the same size that show."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import PowerFormatter, axes, colour, legend, plain, variables

_LOOKS = {
    "unsaid": ("blue", "-", "o"),
    "random": ("green", (0, (5, 1.5)), "s"),
    "said": ("orange", (0, (1.2, 1.2)), "^"),
}
_NAMES = {"unsaid": "unsaid part", "random": "random direction", "said": "most visible direction"}


def unsaid(result: xr.Dataset, *, ax: Axes | None = None) -> Axes:
    r"""Draw what three changes of a state of the same size do to the predictions that follow.

    Parameters
    ----------
    result : Dataset
        What :func:`solomonic.probes.unsaid` returns.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes
        A line a change over the tokens; a cross where the token that is said differs. Divergences of exactly 0 are
        drawn at the bottom.

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no such Dataset.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> kl = [[0.0, 1e-9], [1e-6, 1e-5], [0.1, 1.0]]
    >>> result = xr.Dataset({"kl": (("kind", "time"), kl), "token": ("time", [1, 2]),
    ...                      "token_changed": (("kind", "time"), [[1, 2], [1, 2], [3, 2]])},
    ...                     {"kind": ["unsaid", "random", "said"], "time": [10, 11]})
    >>> unsaid(result).get_ylabel()
    'divergence, bits'
    """
    variables(result, "kl", "token", "token_changed")
    ax = axes(ax)
    plain(ax)
    kl = result["kl"].transpose("kind", "time")
    positive = kl.to_numpy()[kl.to_numpy() > 0]
    floor = 10.0 ** np.floor(np.log10(positive.min()) - 0.5) if positive.size else 1e-16
    after = np.arange(1, kl.sizes["time"] + 1)
    for kind in kl["kind"].to_numpy():
        tint, line, marker = _LOOKS.get(kind, ("ink", "-", "o"))
        curve = np.maximum(kl.sel(kind=kind).to_numpy(), floor)
        ax.plot(
            after,
            curve,
            color=colour(tint),
            linestyle=line,
            marker=marker,
            markersize=3.5,
            label=_NAMES.get(kind, kind),
        )
        other = result["token_changed"].sel(kind=kind).to_numpy() != result["token"].to_numpy()
        ax.plot(after[other], curve[other], color=colour(tint), marker="x", markersize=9, linestyle="none")
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(PowerFormatter())
    ax.set_xlabel("tokens after the change")
    ax.set_ylabel("divergence, bits")
    legend(ax, loc="best")
    return ax
