"""Gramians and Hankel singular values, in discrete and continuous time, from square roots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ._linalg import EPS, triangle
from ._results import Result
from ._systems import Matrices, as_matrices, require_stable
from ._validate import Array

__all__ = ["Gramians", "gramian_factors", "gramians", "hankel_singular_values"]


@dataclass(frozen=True, eq=False)
class Gramians(Result):
    r"""Controllability and observability Gramians of a stable system.

    Parameters
    ----------
    controllability : ndarray [n, n]
        :math:`P`: the least energy to reach x is :math:`x^T P^{-1} x`.
    observability : ndarray [n, n]
        :math:`Q`: the output energy from x is :math:`x^T Q x`.
    controllability_factor : ndarray [n, n]
        L with P = L L^T.
    observability_factor : ndarray [n, n]
        M with Q = M M^T.
    """

    controllability: Array
    observability: Array
    controllability_factor: Array
    observability_factor: Array

    def __repr__(self) -> str:
        return f"Gramians(order={len(self.controllability)})"


def _stein_factor(a: Array, b: Array) -> Array:
    """Factor L [n, n] of P = A P A^T + B B^T by squared Smith iteration on factors: [L, A^(2^k) L], compressed."""
    n = len(a)
    factor, power = _compress(b), a
    for _ in range(64):
        move = power @ factor
        factor = _compress(np.hstack([factor, move]))
        if np.linalg.norm(move) <= EPS / 4 * np.linalg.norm(factor) and np.linalg.norm(power) < 1:
            break
        power = power @ power
    out = np.zeros((n, n))
    out[:, : factor.shape[1]] = factor
    return out


def _compress(columns: Array) -> Array:
    return columns if columns.shape[1] <= columns.shape[0] else triangle(columns.T).T


def gramian_factors(m: Matrices) -> tuple[Array, Array]:
    """Square roots (L, M) of both Gramians; continuous time goes through the Cayley transform, which keeps them."""
    a, b, c = m.A, m.B, m.C
    if not m.discrete:
        moduli = np.abs(np.linalg.eigvals(a))
        p = float(np.sqrt(moduli.max() * moduli.min()))
        left = p * np.eye(len(a)) - a
        b = np.sqrt(2 * p) * np.linalg.solve(left, b)
        c = np.sqrt(2 * p) * np.linalg.solve(left.T, c.T).T
        a = np.linalg.solve(left, p * np.eye(len(a)) + a)
    return _stein_factor(a, b), _stein_factor(a.T, c.T)


def gramians(sys: Any) -> Gramians:
    r"""Compute the Gramians of a stable system.

    .. math:: P = A P A^T + B B^T,\quad Q = A^T Q A + C^T C \qquad (\text{discrete}), \qquad
              A P + P A^T + B B^T = 0,\quad A^T Q + Q A + C^T C = 0 \qquad (\text{continuous}).

    Parameters
    ----------
    sys : control.StateSpace or tuple of array_like
        The system, or its (A, B, C) or (A, B, C, D) in discrete time.

    Returns
    -------
    Gramians
        ``.controllability``, ``.observability`` and their square roots.

    Raises
    ------
    TypeError
        Not a state-space system, or complex.
    ValueError
        An unstable system, wrong shapes, NaN or infinite.

    Notes
    -----
    The square roots are computed by squared Smith iteration with QR compression, so singular values far below
    ``eps^(1/2)`` of the largest keep their digits. The number of doublings grows as the logarithm of
    :math:`1 / (1 - \rho(A))`. Cost: :math:`O(n^3)` a doubling.

    References
    ----------
    .. [1] R. A. Smith, *Matrix equation XA + BX = C*, SIAM J. Appl. Math. 16 (1968).

    Examples
    --------
    >>> import numpy as np
    >>> gramians((np.array([[0.5]]), np.eye(1), np.eye(1))).controllability.round(6)
    array([[1.333333]])
    """
    m = as_matrices(sys)
    require_stable(m, "sys", "a Gramian")
    reach, see = gramian_factors(m)
    return Gramians(reach @ reach.T, see @ see.T, reach, see)


def hankel_singular_values(sys: Any) -> Array:
    r"""Compute the Hankel singular values of a stable system, largest first.

    .. math:: \sigma_k = \sqrt{\lambda_k(P Q)}.

    Parameters
    ----------
    sys : control.StateSpace or tuple of array_like
        The system, in discrete or continuous time.

    Returns
    -------
    ndarray [n]
        The singular values; zeros for what is uncontrollable or unobservable.

    Raises
    ------
    TypeError
        Not a state-space system, or complex.
    ValueError
        An unstable system, wrong shapes, NaN or infinite.

    Notes
    -----
    From the singular values of a product of square roots; accurate to rounding relative to the largest.

    References
    ----------
    .. [1] K. Glover, *All optimal Hankel-norm approximations of linear multivariable systems and their L-infinity error
       bounds*, Int. J. Control 39 (1984).

    Examples
    --------
    >>> import numpy as np
    >>> hankel_singular_values((np.array([[0.5]]), np.eye(1), np.eye(1))).round(6)
    array([1.333333])
    """
    m = as_matrices(sys)
    require_stable(m, "sys", "Hankel singular values")
    reach, see = gramian_factors(m)
    return np.linalg.svd(see.T @ reach, compute_uv=False)
