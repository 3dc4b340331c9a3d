"""The discrete Riccati equation by structure-preserving doubling: both extreme solutions at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._linalg import EPS
from ._validate import Array

__all__ = ["Doubling", "doubling"]


class Doubling(NamedTuple):
    """Limits of the doubling iteration.

    Parameters
    ----------
    H : ndarray [n, n]
        Limit of the Riccati iteration from zero.
    G : ndarray [n, n]
        Limit of the dual iteration.
    steps : int
        Doublings made; 2^steps steps of the iteration.
    change : float
        Relative change in the last doubling.
    """

    H: Array
    G: Array
    steps: int
    change: float


def doubling(a: Array, g: Array, h: Array, *, most: int = 60, tolerance: float = 4 * EPS) -> Doubling:
    r"""Iterate :math:`X \leftarrow A X (I + G X)^{-1} A^T + H` from zero, :math:`2^k` steps at a time.

    .. math:: A_{k+1} = A_k (I + H_k G_k)^{-1} A_k,\quad
              G_{k+1} = G_k + A_k^T G_k (I + H_k G_k)^{-1} A_k,\quad
              H_{k+1} = H_k + A_k (I + H_k G_k)^{-1} H_k A_k^T .

    Quadratic convergence where the closed loop is stable, by a factor of 2 a doubling where it has eigenvalues on the
    unit circle. H is the solution, -G that of the dual equation.

    Parameters
    ----------
    a, g, h : ndarray [n, n]
        Matrices of the equation; g and h symmetric.
    most : int
        Doublings at most.
    tolerance : float
        Relative change of H and G at which to stop.

    Returns
    -------
    Doubling
        The limits, or where the iteration stopped.

    References: E. K.-W. Chu, H.-Y. Fan, W.-W. Lin, C.-S. Wang, *Structure-preserving algorithms for periodic
    discrete-time algebraic Riccati equations*, Int. J. Control 77 (2004).
    """
    n = len(a)
    eye, change, k = np.eye(n), np.inf, 0
    last = np.inf
    for k in range(1, most + 1):
        try:
            middle = np.linalg.solve(eye + h @ g, np.hstack([a, h]))
        except np.linalg.LinAlgError:
            break
        ma, mh = middle[:, :n], middle[:, n:]
        step_g = a.T @ g @ ma
        step_h = a @ mh @ a.T
        g2, h2 = g + (step_g + step_g.T) / 2, h + (step_h + step_h.T) / 2
        moved = _relative(step_g, g2), _relative(step_h, h2)
        if not np.isfinite(moved).all():
            break
        a = a @ ma
        change = max(moved)
        g, h = g2, h2
        # On the unit circle the change halves at first, and then rounding is all that is left of it.
        if change <= tolerance or (k > 30 and change >= last):
            break
        last = change
    return Doubling(h, g, k, change)


def _relative(step: Array, whole: Array) -> float:
    size = np.vdot(whole, whole)
    return float(np.sqrt(np.vdot(step, step) / size)) if size else 0.0
