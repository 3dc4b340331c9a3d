"""All models of one process: Faurre's interval of state covariances, from P- to P+."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from .._html import table
from .._results import Result
from .._riccati import doubling
from .._validate import Array, as_array, as_number, frozen
from .covariances import Covariances, as_covariances
from .positive_real import least_density, whitened

__all__ = ["FaurreInterval", "faurre", "innovation_gain", "linear_matrix"]


def linear_matrix(cov: Covariances, P: Array) -> Array:
    r"""M(P) = [[P - A P A^T, Cbar^T - A P C^T], [., L0 - C P C^T]], the joint covariance of the noises."""
    a, c, cbar, l0 = cov
    cross = cbar.T - a @ P @ c.T
    return np.block([[P - a @ P @ a.T, cross], [cross.T, l0 - c @ P @ c.T]])


def innovation_gain(cov: Covariances, P: Array) -> tuple[Array, Array]:
    """K = (Cbar^T - A P C^T) Sigma^{-1} and Sigma = L0 - C P C^T."""
    sigma = cov.L0 - cov.C @ P @ cov.C.T
    cross = cov.Cbar.T - cov.A @ P @ cov.C.T
    return scipy.linalg.solve(sigma, cross.T, assume_a="sym").T, sigma


@dataclass(frozen=True, eq=False)
class FaurreInterval(Result):
    r"""The set of state covariances of the minimal models of a process: convex, compact, with a least and a greatest.

    Parameters
    ----------
    P_minus : ndarray [n, n]
        The least: state covariance of the innovation model, whose state is all of the past that predicts the future.
    P_plus : ndarray [n, n]
        The greatest: its state is determined by the future.
    covariances : Covariances
        The process.

    Examples
    --------
    >>> found = faurre([[0.5]], [[1.0]], [[1.0]], [[2.0]])
    >>> found.contains(found.between(0.3)), found.contains(1.1 * found.P_plus)
    (True, False)
    """

    P_minus: Array
    P_plus: Array
    covariances: Covariances

    def __repr__(self) -> str:
        width = float(np.trace(self.P_plus - self.P_minus) / np.trace(self.P_plus))
        return f"FaurreInterval(order={len(self.P_minus)}, width={width:.3g} of trace P+)"

    def _repr_html_(self) -> str:
        rows = [[name, np.array2string(p, precision=4)] for name, p in (("P-", self.P_minus), ("P+", self.P_plus))]
        return table(["", "state covariance"], rows, caption=repr(self))

    def between(self, theta: float) -> Array:
        """Return P- + ``theta`` (P+ - P-), a member for every ``theta`` from 0 to 1 (the set is convex)."""
        share = as_number(theta, "theta", "a number from 0 to 1", lambda x: 0 <= x <= 1)
        return self.P_minus + share * (self.P_plus - self.P_minus)

    def slack(self, P: Any) -> float:
        r"""Return the least eigenvalue of M(P) for a matrix ``P`` [n, n]: not negative exactly for members.

        Members satisfy :math:`P_- \le P \le P_+`; not every such P is a member.
        """
        p = as_array(P, "P", shape=self.P_minus.shape, real=True)
        return float(np.linalg.eigvalsh(linear_matrix(self.covariances, (p + p.T) / 2))[0])

    def contains(self, P: Any, *, tolerance: float = 1e-9) -> bool:
        """Return whether a matrix ``P`` is a member, to a ``tolerance`` relative to L0 and P+."""
        scale = max(float(np.linalg.norm(self.covariances.L0, 2)), float(np.linalg.norm(self.P_plus, 2)))
        return self.slack(P) >= -tolerance * scale


def faurre(A: Any, C: Any, Cbar: Any, L0: Any) -> FaurreInterval:
    r"""Compute the least and the greatest state covariance of the models of a process.

    .. math:: M(P) = \begin{pmatrix} P - A P A^T & \bar C^T - A P C^T \\ \cdot & L_0 - C P C^T \end{pmatrix} \ge 0
              \quad\Longleftrightarrow\quad P \text{ is the state covariance of a model;} \qquad P_- \le P \le P_+ .

    Parameters
    ----------
    A : array_like [n, n]
        Transition, stable.
    C : array_like [p, n]
        Forward read-out.
    Cbar : array_like [p, n]
        Backward read-out: :math:`\Lambda_k = C A^{k-1} \bar C^T`.
    L0 : array_like [p, p]
        Variance.

    Returns
    -------
    FaurreInterval
        ``.P_minus``, ``.P_plus``, ``.between(theta)``, ``.contains(P)``.

    Raises
    ------
    TypeError
        Not real numbers.
    ValueError
        Wrong shapes, NaN or infinite, an unstable A, a realization that is not minimal, or covariances that are not
        positive real (:func:`positive_real` repairs them).

    Notes
    -----
    P- is the limit of :math:`P \leftarrow A P A^T + (\bar C^T - A P C^T)(L_0 - C P C^T)^{-1}(\cdot)^T` from zero;
    the same iteration of the dual, (A^T, Cbar, C), gives the inverse of P+. One structure-preserving doubling makes
    both, :math:`2^k` steps at a time: quadratic convergence, and linear (a bit a doubling, to about half the digits)
    where the density vanishes at a frequency. A may be singular or nilpotent. Cost: :math:`O(n^3)` a doubling.

    References
    ----------
    .. [1] P. Faurre, *Stochastic realization algorithms*, in: System Identification: Advances and Case Studies,
       Academic Press 1976, theorem 2.
    .. [2] A. Lindquist, G. Picci, *Linear Stochastic Systems*, Springer 2015, chapters 6 and 8.

    Examples
    --------
    A moving average :math:`y_t = e_t + b e_{t-1}` with b = 1/2: either the innovation or the reversed one.

    >>> found = faurre([[0.0]], [[1.0]], [[0.5]], [[1.25]])
    >>> found.P_minus.round(12).tolist(), found.P_plus.round(12).tolist()
    ([[0.25]], [[1.0]])
    """
    cov = as_covariances(A, C, Cbar, L0)
    white, _ = whitened(cov)
    a, c, cbar, _ = white
    closed = a - cbar.T @ c
    limit = doubling(closed, -c.T @ c, cbar.T @ cbar)
    scale = float(np.linalg.norm(limit.H, 2)) or 1.0
    least = np.linalg.eigvalsh(np.eye(len(c)) - c @ limit.H @ c.T)[0] if np.isfinite(limit.H).all() else -1.0
    settled = limit.change < 1e-6 and least > 0
    if not settled or np.linalg.eigvalsh(limit.H)[0] < -1e-8 * scale:
        low, where = least_density(white)
        raise ValueError(
            f"A, C, Cbar, L0: expected covariances of a process (positive real), got a density of {low:.3g} (relative "
            f"to the variance) at {where:.3f} rad; positive_real(A, C, Cbar, L0, repair='shrink') mends them"
        )
    p_minus, p_bar = (limit.H + limit.H.T) / 2, -(limit.G + limit.G.T) / 2
    for name, matrix, what in (
        ("Cbar", p_minus, "(A, Cbar^T) reachable"),
        ("C", p_bar, "(A, C) observable"),
    ):
        values = np.linalg.eigvalsh(matrix)
        if values[0] <= 1e-13 * max(values[-1], 1e-300):
            raise ValueError(
                f"{name}: expected a minimal realization with {what}, got a state covariance with eigenvalues from "
                f"{values[0]:.1e} to {values[-1]:.1e}; reduce it first: minimal((A, Cbar.T, C, L0))"
            )
    p_plus = scipy.linalg.inv(p_bar)
    return FaurreInterval(frozen(p_minus), frozen((p_plus + p_plus.T) / 2), cov)
