"""Plots of identification and of stochastic realization: each takes ``ax=`` and returns it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._validate import Array
from .identification.model import InnovationModel
from .identification.whiteness import Whiteness
from .stochastic.faurre import FaurreInterval
from .stochastic.model import StochasticModel

__all__ = ["plot_faurre", "plot_innovations", "plot_order", "plot_simulation", "plot_whiteness"]


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
    ax.xaxis.get_major_locator().set_params(integer=True)
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
    ax.stem(
        np.arange(1, test.lags + 1),
        test.autocorrelation[1:, channel, channel],
        linefmt="k-",
        markerfmt="ko",
        basefmt="k-",
    )
    ax.set(xlabel="lag (samples)", ylabel="autocorrelation")
    ax.set_title(f"p = {test.p_value:.3g}, by permutation {test.permutation_p_value:.3g}", fontsize=9)
    ax.legend(fontsize=8)
    return ax


def plot_innovations(model: InnovationModel, *, record: int = 0, channel: int = 0, ax: Any = None) -> Any:
    """Draw the innovations of an identified model with the band of two standard deviations.

    Parameters
    ----------
    model : InnovationModel
        From ``identify``, or another that holds innovations.
    record : int
        Which record.
    channel : int
        Which output.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default. Beside it goes ``plot_whiteness(model.whiteness())``.

    Returns
    -------
    matplotlib.axes.Axes
        The axes, in the unit of the output.

    Examples
    --------
    >>> ax = plot_innovations(model)  # doctest: +SKIP
    """
    if not model.innovations:
        raise ValueError("model: expected a model that holds innovations, got none; identify one from data")
    ax, errors = _axes(ax), model.innovations[record][:, channel]
    spread = float(np.sqrt(model.innovation_covariance[channel, channel]))
    ax.axhspan(-2 * spread, 2 * spread, color="0.88", label="two standard deviations")
    ax.plot(errors, color="0.2", lw=0.7)
    ax.set(xlabel="time (samples)", ylabel="innovation (unit of y)", xlim=(0, len(errors)))
    ax.set_title(f"{100 * np.mean(np.abs(errors) > 2 * spread):.1f} % outside", fontsize=9)
    ax.legend(fontsize=8, loc="lower left")
    return ax


def plot_simulation(
    model: StochasticModel,
    steps: int = 120,
    *,
    channel: int = 0,
    x0: Any = None,
    rng: int | np.random.Generator | None = 0,
    ax: Any = None,
) -> Any:
    """Draw a simulated path, with a dot where the run starts and an arrow along its direction in time.

    Parameters
    ----------
    model : StochasticModel
        Forward (the run starts at the left) or backward (at the right).
    steps : int
        Samples.
    channel : int
        Which output.
    x0 : array_like [n], optional
        State where the run starts; drawn from the stationary law by default.
    rng : int or numpy.random.Generator, optional
        Source of randomness.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        The axes, with the band of two standard deviations of the output.

    Examples
    --------
    >>> ax = plot_simulation(model)  # doctest: +SKIP
    """
    ax, path = _axes(ax), model.simulate(steps, rng=rng, x0=x0).y[:, channel]
    spread = float(np.sqrt(model.covariances().L0[channel, channel]))
    ax.axhspan(-2 * spread, 2 * spread, color="0.92")
    style = "-" if model.forward else "--"
    ax.plot(path, style, color="0.1" if model.forward else "0.35", lw=1.1, label=f"run {model.direction}")
    ax.plot([0 if model.forward else steps - 1], [path[0 if model.forward else -1]], "ko", ms=6)
    tail, head = (0.4, 0.6) if model.forward else (0.6, 0.4)
    ax.annotate(
        "", (head, 0.06), (tail, 0.06), xycoords="axes fraction", arrowprops={"arrowstyle": "-|>", "color": "0.1"}
    )
    ax.set(xlabel="time (samples)", ylabel="y")
    ax.legend(fontsize=8, loc="upper right")
    return ax
