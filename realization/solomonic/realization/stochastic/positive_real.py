"""Is it a covariance sequence? The least eigenvalue of the density over all frequencies, and the repair."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from .._html import table
from .._repair import RepairWarning
from .._results import Result
from .._validate import Array, as_number
from .covariances import Covariances, as_covariances

__all__ = ["PositiveReal", "positive_real"]

REPAIRS = ("shrink", "lift")


@dataclass(frozen=True, eq=False)
class PositiveReal(Result):
    r"""Whether (A, C, Cbar, L0) belongs to a process, by how much, and the repair.

    Parameters
    ----------
    verdict : bool or None
        True where the spectral density is positive at every frequency, False where it is negative at some, None where
        its minimum is zero to rounding.
    margin : float
        Least eigenvalue over all frequencies of the density of the whitened process (:math:`L_0 = 1`); dimensionless.
    frequency : float
        Where, in radians a sample.
    repair : str or None
        "shrink" or "lift" where a repair was asked for and needed.
    amount : float
        Size of the repair: :math:`1 - \gamma` for "shrink" (covariances of all lags but 0 times :math:`\gamma`), the
        relative rise of L0 for "lift". 0 without one.
    covariances : Covariances
        (A, C, Cbar, L0), repaired where that was asked for and needed.
    """

    verdict: bool | None
    margin: float
    frequency: float
    repair: str | None
    amount: float
    covariances: Covariances

    def __bool__(self) -> bool:
        return self.verdict is True

    def __repr__(self) -> str:
        mended = f", {self.repair} by {self.amount:.3g}" if self.repair else ""
        return f"PositiveReal({self.verdict}, margin={self.margin:.3g} at {self.frequency:.3f} rad{mended})"

    def _repr_html_(self) -> str:
        rows = [
            ["least eigenvalue of the density, relative to the variance", f"{self.margin:.4g}"],
            ["at", f"{self.frequency:.4g} rad a sample"],
            ["repair", f"{self.repair} by {self.amount:.3g}" if self.repair else "none"],
        ]
        return table(["", ""], rows, caption=repr(self))


def least_density(cov: Covariances) -> tuple[float, float]:
    """Least eigenvalue of the density over the unit circle, and its angle, by level sets.

    At each level the frequencies where the density has that eigenvalue are the eigenvalues on the unit circle of a
    structured pencil; between two of them it lies below or above. Converges quadratically, and misses no dip.
    """
    a, c, cbar, l0 = cov
    n, p = len(a), len(l0)
    angles = np.concatenate([np.angle(np.linalg.eigvals(a)), np.linspace(0, np.pi, 33)])
    level, where = _least_at(cov, np.abs(angles))
    scale = float(np.linalg.norm(l0, 2))
    for _ in range(40):
        target = level - 1e-12 * max(scale, abs(level))
        left = np.block(
            [
                [a, np.zeros((n, n)), cbar.T],
                [np.zeros((n, n)), np.eye(n), np.zeros((n, p))],
                [c, cbar, l0 - target * np.eye(p)],
            ]
        )
        right = np.zeros_like(left)
        right[:n, :n], right[n : 2 * n, n : 2 * n], right[n : 2 * n, 2 * n :] = np.eye(n), a.T, c.T
        pairs: Any = scipy.linalg.eigvals(left, right, homogeneous_eigvals=True)
        alpha, beta = pairs
        modulus = np.hypot(np.abs(alpha), np.abs(beta))
        near = (np.abs(np.abs(alpha) - np.abs(beta)) <= 1e-7 * modulus) & (modulus > 0)
        crossings = np.unique(np.abs(np.angle(alpha[near] * np.conj(beta[near]))))
        if crossings.size == 0:
            break
        edges = np.concatenate([[0.0], crossings, [np.pi]])
        found, at = _least_at(cov, np.concatenate([(edges[1:] + edges[:-1]) / 2, crossings]))
        if found >= level - 1e-13 * max(scale, abs(level)):
            break
        level, where = found, at
    return level, where


def _least_at(cov: Covariances, angles: Array) -> tuple[float, float]:
    values = np.linalg.eigvalsh(cov.spectrum(angles))[:, 0]
    best = int(np.argmin(values))
    return float(values[best]), float(angles[best])


def whitened(cov: Covariances) -> tuple[Covariances, Array]:
    """The process y = R z with unit variance of z, and R (lower triangular)."""
    root = np.linalg.cholesky(cov.L0)
    inverse = np.linalg.inv(root)
    return Covariances(cov.A, inverse @ cov.C, inverse @ cov.Cbar, np.eye(len(root))), root


def positive_real(
    A: Any, C: Any, Cbar: Any, L0: Any, *, repair: str | None = None, margin: float = 1e-6
) -> PositiveReal:
    r"""Test whether (A, C, Cbar, L0) are the covariances of a process, and mend them where they are not.

    .. math:: \Phi(e^{i\omega}) = L_0 + C (e^{i\omega} I - A)^{-1} \bar C^T + (\cdot)^* \ge 0
              \quad\text{for all } \omega .

    Parameters
    ----------
    A : array_like [n, n]
        Transition, stable.
    C : array_like [p, n]
        Forward read-out.
    Cbar : array_like [p, n]
        Backward read-out.
    L0 : array_like [p, p]
        Variance, positive definite.
    repair : str, optional
        "shrink": multiply the covariances of all lags but 0 by the largest factor that leaves the margin; "lift": raise
        L0 by the least multiple of itself that does (adds white noise). Both make the process whiter.
    margin : float
        Margin that the repaired density keeps, relative to the variance.

    Returns
    -------
    PositiveReal
        ``.verdict``, ``.margin``, ``.frequency``, ``.amount``, ``.covariances``.

    Raises
    ------
    TypeError
        Not real numbers.
    ValueError
        Wrong shapes, NaN or infinite, an unstable A, an L0 that is not positive definite.

    Warns
    -----
    RepairWarning
        A repair was made; the warning says of what size.

    Notes
    -----
    Sample covariances, truncated to an order, often are not positive real [1]_; then no model has them. The minimum
    over frequencies is found by level sets (eigenvalues on the unit circle of a pencil of size 2 n + p), so no dip
    between grid points is missed. With :math:`Z` the part of lags above 0 and L0 = 1, the density is
    :math:`1 + \gamma (Z + Z^*)`: the largest factor is :math:`(1 - \text{margin}) / (1 - \min\lambda)`, in closed
    form. Cost: :math:`O((2n + p)^3)` a level.

    References
    ----------
    .. [1] A. Dahlen, A. Lindquist, J. Mari, *Experimental evidence showing that stochastic subspace identification
       methods may fail*, Systems & Control Letters 34 (1998).
    .. [2] S. Boyd, V. Balakrishnan, *A regularity result for the singular values of a transfer matrix and a
       quadratically convergent algorithm for computing its L-infinity norm*, Systems & Control Letters 15 (1990).

    Examples
    --------
    >>> positive_real([[0.5]], [[1.0]], [[0.5]], [[1.0]]).verdict          # an autoregression
    True
    >>> positive_real([[0.0]], [[1.0]], [[0.6]], [[1.0]]).verdict          # no moving average has correlation 0.6
    False
    """
    if repair is not None and repair not in REPAIRS:
        raise ValueError(f"repair: expected None or one of {', '.join(REPAIRS)}, got {repair!r}")
    keep = as_number(margin, "margin", "a number from 0 to 1", lambda x: 0 <= x < 1)
    cov = as_covariances(A, C, Cbar, L0)
    white, _ = whitened(cov)
    least, where = least_density(white)
    rounding = 1e-12 * (1 + float(np.linalg.norm(white.spectrum([where])[0], 2)))
    verdict = None if abs(least) <= rounding else least > 0
    if repair is None or least >= keep:
        return PositiveReal(verdict, least, where, None, 0.0, cov)
    if repair == "shrink":
        gamma = (1 - keep) / (1 - least)
        mended, amount, what = cov._replace(Cbar=gamma * cov.Cbar), 1 - gamma, "covariances of all lags but 0 shrunk"
    else:
        rise = (keep - least) / (1 - keep)
        mended, amount, what = cov._replace(L0=(1 + rise) * cov.L0), rise, "the variance was raised"
    warnings.warn(
        f"the density has eigenvalue {least:.3g} (relative to the variance) at {where:.3f} rad; {what} by "
        f"{100 * amount:.3g} %",
        RepairWarning,
        stacklevel=2,
    )
    return PositiveReal(verdict, least, where, repair, amount, mended)
