"""Plots of certificates: each takes ``ax=`` and returns it; matplotlib is imported when a plot is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._linalg import norm2
from ._plots_stochastic import plot_faurre, plot_innovations, plot_order, plot_simulation, plot_whiteness
from ._validate import as_array, as_square
from .gramians import hankel_singular_values
from .nilpotency import NilpotencyCertificate, nilpotency
from .pseudospectrum import Pseudospectrum, pseudospectrum

__all__ = [
    "plot_faurre",
    "plot_hankel_singular_values",
    "plot_innovations",
    "plot_order",
    "plot_pseudospectrum",
    "plot_simulation",
    "plot_weyr_staircase",
    "plot_whiteness",
]


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots()[1]


def plot_pseudospectrum(
    A: Any, *, levels: Any = (1e-12, 1e-9, 1e-6, 1e-3), circle: bool = True, points: int = 81, ax: Any = None
) -> Any:
    r"""Draw pseudospectra with, for each level, the circle of radius eps^(1/n) a Jordan block would have.

    .. math:: \Lambda_\epsilon(A) = \{z : \sigma_{\min}(A - zI) \le \epsilon\},
              \qquad |z| = s\,(\epsilon / s)^{1/n},\ s = \|A\|_2.

    Parameters
    ----------
    A : array_like [n, n] or Pseudospectrum
        The matrix, or its portrait.
    levels : array_like
        Levels eps, in the unit of A.
    circle : bool
        Draw the circles (dashed).
    points : int
        Points a side of the grid, where A is a matrix.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        The axes.

    Notes
    -----
    An eigenvalue inside the line of a level can be moved anywhere inside it by a change of that norm. Cost: that of
    ``pseudospectrum``.

    References
    ----------
    .. [1] L. N. Trefethen, M. Embree, *Spectra and Pseudospectra*, Princeton 2005.

    Examples
    --------
    >>> ax = plot_pseudospectrum(np.eye(8, k=1), points=11)  # doctest: +SKIP
    """
    eps = np.sort(as_array(levels, "levels", ndim=1, real=True))
    if eps[0] <= 0:
        raise ValueError(f"levels: expected positive levels, got {eps.tolist()}")
    if isinstance(A, Pseudospectrum):
        portrait = A
    else:
        a = as_square(A, "A")
        reach = 1.3 * pseudospectrum(a, points=2).radius(float(eps[-1]))
        portrait = pseudospectrum(a, box=(-reach, reach, -reach, reach), points=points)
    ax = _axes(ax)
    from matplotlib import colormaps

    viridis = colormaps["viridis"]
    log = np.log10(np.maximum(portrait.sigma, 1e-300))
    dark = [viridis(x) for x in np.linspace(0, 0.75, len(eps))]  # the light end would vanish on white
    lines = ax.contour(portrait.real, portrait.imag, log, levels=np.log10(eps), colors=dark)
    ax.clabel(lines, fmt=lambda v: f"$10^{{{v:.0f}}}$", fontsize=8)
    ax.plot(np.real(portrait.eigenvalues), np.imag(portrait.eigenvalues), "k.", ms=4, label="computed eigenvalues")
    if circle:
        size, n = norm2(portrait.schur), len(portrait.eigenvalues)
        turn = np.exp(1j * np.linspace(0, 2 * np.pi, 181))
        for k, level in enumerate(eps):
            z = size * (level / size) ** (1 / n) * turn if size else 0 * turn
            label = r"$\epsilon^{1/n}$ circles" if k == 0 else None
            ax.plot(np.real(z), np.imag(z), "--", color="0.5", lw=0.8, label=label)
    ax.set(xlabel="real part", ylabel="imaginary part", aspect="equal")
    ax.legend(fontsize=8, loc="upper right", framealpha=0.9)
    return ax


def plot_weyr_staircase(A: Any, *, uncertainty: float | None = None, ax: Any = None) -> Any:
    r"""Draw the index of nilpotency that the staircase finds against the tolerance.

    .. math:: \tau \mapsto \mathrm{index}(\tau)

    Parameters
    ----------
    A : array_like [n, n] or NilpotencyCertificate
        The matrix, or its certificate.
    uncertainty : float, optional
        Bound on the norm of the error of A, where A is a matrix.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        The axes. A long tread is a structure that a gap supports, and what no gap supports is left out; the bracket of
        the distance is shaded.

    Notes
    -----
    Costs what ``nilpotency`` costs.

    References
    ----------
    .. [1] G. H. Golub, J. H. Wilkinson, SIAM Review 18 (1976), section 10.

    Examples
    --------
    >>> ax = plot_weyr_staircase(np.eye(8, k=1))  # doctest: +SKIP
    """
    found = A if isinstance(A, NilpotencyCertificate) else nilpotency(A, uncertainty=uncertainty)
    ax = _axes(ax)
    smallest = min((row.discarded for row in found.table if row.discarded > 0), default=1e-17)
    for row in found.table:
        low = max(row.discarded, smallest / 10)
        high = row.kept if np.isfinite(row.kept) else max(1.0, row.tolerance * 10)
        if high <= low:  # no gap: no tread
            continue
        ax.plot([low, high], [row.index, row.index], "k-", lw=2)
        ax.annotate(f"{row.nil_order}", (low, row.index), fontsize=7, xytext=(2, 3), textcoords="offset points")
    lower, upper = found.distance
    if upper > 0:
        ax.axvspan(max(lower, smallest / 10), upper, color="0.85", label="distance to nilpotent")
    ax.axvline(found.uncertainty, ls=":", color="k", label="uncertainty")
    ax.set(xscale="log", xlabel="tolerance (unit of A)", ylabel="index (number: nilpotent order)")
    ax.yaxis.get_major_locator().set_params(integer=True)
    ax.margins(y=0.2)
    ax.legend(fontsize=8, loc="lower right", framealpha=0.9)
    return ax


def plot_hankel_singular_values(sys: Any, *, ax: Any = None) -> Any:
    r"""Draw the Hankel singular values of a stable system, or of a cut of a time-varying one.

    .. math:: \sigma_1 \ge \sigma_2 \ge \dots

    Parameters
    ----------
    sys : control.StateSpace, tuple of array_like or ndarray [n]
        The system, or singular values already computed.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        The axes: relative singular values, logarithmic.

    Notes
    -----
    Costs what ``hankel_singular_values`` costs.

    References
    ----------
    .. [1] B. C. Moore, *Principal component analysis in linear systems*, IEEE Trans. Autom. Control 26 (1981).

    Examples
    --------
    >>> ax = plot_hankel_singular_values(np.array([1.0, 0.1, 1e-6]))  # doctest: +SKIP
    """
    values = as_array(sys, "sys", ndim=1, real=True) if isinstance(sys, np.ndarray) else hankel_singular_values(sys)
    ax = _axes(ax)
    top = values.max() if values.size and values.max() > 0 else 1.0
    ax.semilogy(np.arange(1, len(values) + 1), np.maximum(values / top, 1e-18), "ko-", ms=4)
    ax.set(xlabel="order", ylabel="Hankel singular value / largest")
    ax.axhline(len(values) * np.finfo(float).eps, ls=":", color="0.5", label="rounding")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(fontsize=8)
    return ax
