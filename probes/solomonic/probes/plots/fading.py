"""Fading curves: how far a replaced token moves the prediction, against how long ago it was."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from ._style import (
    axes,
    colour,
    end_labels,
    legend,
    log_bits,
    log_lags,
    looks,
    mark,
    named,
    plain,
    sparse,
    variables,
)


class Curve(NamedTuple):
    """The numbers of one fading curve; lags in tokens, ascending, the rest in bits."""

    lag: np.ndarray
    median: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    mean: np.ndarray


def fading(result: xr.Dataset | Mapping[str, xr.Dataset], *, means: bool | None = None, ax: Axes | None = None) -> Axes:
    """Draw fading curves: KL(p || p with the token at a lag replaced), bits, against the lag, both on log axes.

    The line is the median over prompts, the band its interval, the dashed line the mean. Where a curve is exactly 0.0
    from some lag on, it drops to the line "exactly 0" and ends. Upright lines mark the window W, 2W, and the lag from
    which a model's influence is exactly zero.

    Parameters
    ----------
    result : Dataset, or mapping from names to Datasets
        What :func:`solomonic.probes.fading` returns.
    means : bool or None
        Whether to draw means; None draws them where there is one model.
    ax : Axes or None
        Where to draw; None makes a figure.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError, ValueError
        If ``result`` is no fading Dataset.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> lag = np.array([1, 2, 4, 8])
    >>> result = xr.Dataset({"kl_median": ("lag", 2.0**-lag), "kl_mean": ("lag", 2.1**-lag)}, {"lag": lag})
    >>> ax = fading(result)
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('lag, tokens', 'influence on the prediction, bits')
    """
    results = named(result)
    curves = {name: curve(one) for name, one in results.items()}
    ax = axes(ax, size=(7.2, 4.4))
    if means is None:
        means = len(curves) == 1
    largest = max(float(c.lag[-1]) for c in curves.values())
    smallest = min(float(c.lag[0]) for c in curves.values())
    floor, low, high = limits(curves.values())
    plain(ax)
    log_lags(ax, largest, smallest=smallest)
    log_bits(ax, low, high)
    style = looks(curves)
    ends = []
    for number, (name, c) in enumerate(curves.items()):
        look = style[name]
        tint = colour(look.colour)
        shown = c.median > 0
        ax.fill_between(
            c.lag,
            np.clip(c.lower, floor, None),
            np.clip(c.upper, floor, None),
            where=shown,
            color=tint,
            alpha=0.16,
            linewidth=0,
        )
        ax.plot(
            c.lag,
            np.where(shown, c.median, np.nan),
            color=tint,
            linestyle=look.linestyle,
            marker=look.marker,
            markevery=sparse(c.lag, shift=number / len(curves)),
            markersize=5,
            label=name if len(curves) > 1 else "median",
        )
        ends.append((*_drop(ax, c.lag, c.median, floor, tint, look.marker), name, tint))
        if means:
            ax.plot(
                c.lag,
                np.where(c.mean > 0, c.mean, np.nan),
                color=tint,
                linestyle=(0, (3, 2)),
                linewidth=1.1,
                alpha=0.8,
                label=f"{name} mean" if len(curves) > 1 else "mean",
            )
            _drop(ax, c.lag, c.mean, floor, tint, "x")
    _zero_line(ax, curves, floor)
    _marks(ax, results, smallest, largest, floor)
    ax.set_ylabel("influence on the prediction, bits")
    if len(curves) > 1:
        end_labels(ax, ends)
    elif means:
        legend(ax)
    return ax


def curve(result: xr.Dataset) -> Curve:
    """The curve of a fading Dataset; without intervals the band has no width."""
    variables(result, "kl_median", "kl_mean", what="result")
    result = result.sortby("lag")
    median = result["kl_median"].to_numpy()
    band = result.get("kl_median_interval")
    lower, upper = (band.sel(bound=b).to_numpy() for b in ("lower", "upper")) if band is not None else (median, median)
    return Curve(result["lag"].to_numpy(), median, lower, upper, result["kl_mean"].to_numpy())


def cut(values: np.ndarray) -> int | None:
    """Index from which on every value is exactly 0.0; None where the last one is not.

    >>> cut(np.array([1.0, 0.0, 0.1, 0.0, 0.0]))
    3
    """
    positive = np.flatnonzero(values != 0)
    first = int(positive[-1]) + 1 if len(positive) else 0
    return first if first < len(values) else None


def limits(curves: Any) -> tuple[float, float, float]:
    """(floor line, lowest, highest) of the axis of bits."""
    curves = list(curves)
    values = np.concatenate([np.concatenate([c.median, c.mean]) for c in curves])
    positive = values[values > 0]
    if not len(positive):
        return 1e-16, 1e-17, 1.0
    bottom = math.floor(math.log10(positive.min()))
    top = math.log10(max(positive.max(), *(np.nanmax(c.upper, initial=0.0) for c in curves)))
    span = max(top - bottom, 1.0)
    room = 0.15 if (values == 0).any() else 0.03
    return 10 ** (bottom - 0.06 * span), 10 ** (bottom - room * span), 10 ** (top + 0.06 * span)


def _drop(ax: Axes, lag: np.ndarray, values: np.ndarray, floor: float, tint: Any, marker: str) -> tuple[float, float]:
    """Let a curve that becomes exactly 0 fall to the floor; returns where it ends."""
    first = cut(values)
    if first is None:
        return float(lag[-1]), float(values[-1])
    if first > 0:
        ax.plot(
            [lag[first - 1], lag[first]], [values[first - 1], floor], color=tint, linestyle=(0, (1, 1.5)), linewidth=1.2
        )
    ax.plot([lag[first]], [floor], color=tint, marker=marker, markersize=6, clip_on=False, zorder=5)
    return float(lag[first]), floor


def _zero_line(ax: Axes, curves: Mapping[str, Curve], floor: float) -> None:
    """The floor that stands for exactly 0, and from which lag on each curve lies on it."""
    found = sorted({int(c.lag[first]) for c in curves.values() if (first := cut(c.mean)) is not None})
    if not found and not any((c.median == 0).any() for c in curves.values()):
        return
    ax.axhline(floor, color=colour("ink"), linewidth=0.8, alpha=0.6)
    middle = math.prod(ax.get_xlim()) ** 0.5
    if len(found) != 1:
        _on_floor(ax, "exactly 0", ax.get_xlim()[0], floor, left=False)
    for lag in found:
        text = f"exactly 0 from lag {lag}" if len(found) == 1 else f"from {lag}"
        _on_floor(ax, text, lag, floor, left=lag > middle)


def _on_floor(ax: Axes, text: str, lag: float, floor: float, *, left: bool) -> None:
    ax.annotate(
        text,
        (lag, floor),
        xytext=(5 if left else -5, -7),
        textcoords="offset points",
        ha="right" if left else "left",
        va="top",
        fontsize="small",
    )


def _marks(ax: Axes, results: Mapping[str, xr.Dataset], smallest: float, largest: float, floor: float) -> None:
    """W and 2W, each once."""
    names: dict[int, str] = {}
    for result in results.values():
        for window in sorted({int(w) for w in result.coords.get("window", xr.DataArray([])).to_numpy().ravel() if w}):
            names.setdefault(window, "W")
            names.setdefault(2 * window, "2W")
    for lag, name in sorted(names.items()):
        if smallest <= lag <= largest:
            mark(ax, lag, name, bottom=floor)
