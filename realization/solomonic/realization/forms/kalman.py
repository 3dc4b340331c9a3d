"""Kalman decomposition into what is and is not controllable and observable."""

from __future__ import annotations

import numpy as np

from .._systems import Matrices
from .._validate import Array
from ._reach import reach_staircase
from ._result import Change

__all__ = ["kalman"]


def _unobservable(m: Matrices) -> Array:
    """Orthonormal basis of the unobservable subspace."""
    q, ranks = reach_staircase(m.dual())
    return q[:, sum(ranks) :]


def _rest(inside: Array, of: Array) -> Array:
    """Orthonormal basis of the complement, within span(of), of span(inside); both with orthonormal columns."""
    k = of.shape[1] - inside.shape[1]
    if k <= 0:
        return of[:, :0]
    u, _, _ = np.linalg.svd(of.T @ inside) if inside.shape[1] else (np.eye(of.shape[1]), None, None)
    return of @ u[:, inside.shape[1] :]


def kalman(m: Matrices) -> Change:
    """States in the order: controllable and unobservable, controllable and observable, neither, observable only.

    ``indices`` are the four dimensions; A is then block upper triangular over them up to the coupling
    that the theory allows.
    """
    n = m.order
    q, ranks = reach_staircase(m)
    reach = q[:, : sum(ranks)]
    inner = m._replace(A=reach.T @ m.A @ reach, B=reach.T @ m.B, C=m.C @ reach)
    both = reach @ _unobservable(inner) if reach.shape[1] else np.zeros((n, 0))
    seen = _rest(both, reach)
    hidden = _rest(both, _unobservable(m))
    spanned = np.hstack([both, seen, hidden])
    full = np.linalg.qr(spanned, mode="complete")[0] if spanned.shape[1] else np.eye(n)
    last = full[:, spanned.shape[1] :]
    transform = np.hstack([spanned, last])
    indices = (both.shape[1], seen.shape[1], hidden.shape[1], last.shape[1])
    system = m.changed(transform, np.linalg.inv(transform))
    e = np.cumsum((0, *indices))
    for rows, columns in ((1, 0), (2, 0), (3, 0), (2, 1), (3, 1), (1, 2), (3, 2)):
        system.A[e[rows] : e[rows + 1], e[columns] : e[columns + 1]] = 0
    system.B[e[2] :] = 0
    system.C[:, e[0] : e[1]] = 0
    system.C[:, e[2] : e[3]] = 0
    return Change(system, transform, indices)
