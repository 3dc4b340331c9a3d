"""Plots of identification and of stochastic realization: each takes ``ax=`` and returns it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._validate import Array
from .identification.model import InnovationModel
from .identification.whiteness import Whiteness
from .stochastic.faurre import FaurreInterval

__all__ = ["plot_faurre", "plot_order", "plot_whiteness"]


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots()[1]


def plot_order(model: InnovationModel, *, ax: Any = None) -> Any:
    """Draw the singular values of an identified model's past and future, with the chosen order.

    Parameters
    ----------
    model : InnovationModel
        From ``identify``.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        The axes, logarithmic.

    Examples
    --------
    >>> ax = plot_order(model)  # doctest: +SKIP
    """
    if model.report is None:
        raise ValueError("model: expected a model that identify found, got one without a report")
    evidence, ax = model.report.order, _axes(ax)
    values = evidence.singular_values[:40]
    ax.semilogy(np.arange(1, len(values) + 1), np.maximum(values, 1e-16), "ko-", ms=4)
    ax.axvline(evidence.chosen + 0.5, ls="--", color="0.4", label=f"order {evidence.chosen} ({evidence.rule})")
    ax.set(xlabel="number", ylabel="singular value")
    ax.legend(fontsize=8)
    return ax


def plot_faurre(interval: FaurreInterval, *, members: int = 3, ax: Any = None) -> Any:
    """Draw the ellipses x' P^-1 x = 1 of P-, P+ and members between, in the first two states.

    Parameters
    ----------
    interval : FaurreInterval
        Of a process with at least two states.
    members : int
        Number of members between.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        The axes; a smaller covariance lies inside a larger one.

    Examples
    --------
    >>> ax = plot_faurre(interval)  # doctest: +SKIP
    """
    if len(interval.P_minus) < 2:
        raise ValueError("interval: expected at least two states, got 1")
    ax = _axes(ax)
    turn = np.linspace(0, 2 * np.pi, 181)
    circle = np.stack([np.cos(turn), np.sin(turn)])

    def draw(P: Array, style: str, label: str | None, width: float) -> None:
        x, y = np.linalg.cholesky(P[:2, :2]) @ circle
        ax.plot(x, y, style, color="0.2" if label else "0.6", lw=width, label=label)

    draw(interval.P_minus, "-", "$P_-$", 2.0)
    for theta in np.linspace(0, 1, members + 2)[1:-1]:
        draw(interval.between(theta), "-", None, 0.8)
    draw(interval.P_plus, "--", "$P_+$", 2.0)
    ax.set(xlabel="state 1", ylabel="state 2", aspect="equal")
    ax.legend(fontsize=8)
    return ax


def plot_whiteness(test: Whiteness, *, channel: int = 0, ax: Any = None) -> Any:
    """Draw the autocorrelation of a channel with the band that white noise stays in at 95 % a lag.

    Parameters
    ----------
    test : Whiteness
        From ``whiteness`` or a model's ``.whiteness()``.
    channel : int
        Which channel.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        The axes; the title holds both p-values.

    Examples
    --------
    >>> ax = plot_whiteness(test)  # doctest: +SKIP
    """
    ax = _axes(ax)
    band = 1.96 / np.sqrt(test.samples)
    ax.axhspan(-band, band, color="0.88", label="95 % of white noise")
    ax.stem(np.arange(1, test.lags + 1), test.autocorrelation[1:, channel, channel], linefmt="k-", markerfmt="ko")
    ax.set(xlabel="lag (samples)", ylabel="autocorrelation")
    ax.set_title(f"p = {test.p_value:.3g}, by permutation {test.permutation_p_value:.3g}", fontsize=9)
    ax.legend(fontsize=8)
    return ax
