"""A nilpotent matrix near A where no gap shows the way: the flag that makes A nearly strictly triangular.

Every nilpotent matrix is strictly upper triangular in some orthonormal basis Q, and |tril(Q^H A Q)| is the distance to
the one that Q gives. Q is built one null vector at a time, from either end, and improved by Gauss-Newton steps on the
unitary matrices.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from ._linalg import norm2
from ._staircase import Staircase
from ._validate import Array

__all__ = ["LARGEST", "nearest_flag"]

#: Largest order for which flags are tried (one SVD an order), and for which they are improved (O(n^6) a step).
LARGEST, _IMPROVED = 128, 24


def _greedy(a: Array) -> Array:
    """Orthonormal basis: at each step the right singular vector of the least singular value of what is left."""
    n = len(a)
    q, rest = np.eye(n, dtype=a.dtype), a
    for k in range(n - 1):
        least = np.linalg.svd(rest)[2][-1].conj()
        turn = np.linalg.qr(least[:, None], mode="complete")[0]
        q[:, k:] = q[:, k:] @ turn
        rest = turn[:, 1:].conj().T @ rest @ turn[:, 1:]
    return q


def _below(a: Array, q: Array) -> Array:
    return np.tril(q.conj().T @ a @ q)


def _directions(n: int, unitary: bool) -> tuple[Array, Array, Array]:
    """Skew-Hermitian directions w E_ij - conj(w) E_ji below the diagonal: rows i, columns j and factors w."""
    i, j = np.tril_indices(n, -1)
    if not unitary:
        return i, j, np.ones(len(i))
    return np.tile(i, 2), np.tile(j, 2), np.repeat([1.0, 1j], len(i))


def _improved(a: Array, q: Array, goal: float, steps: int = 20) -> Array:
    """Levenberg-Marquardt steps for min |tril(Q^H A Q)|_F; stops at the goal or where a step gains too little."""
    n = len(a)
    i, j, w = _directions(n, np.iscomplexobj(a))
    at, inside = np.arange(len(i)), np.tril_indices(n)
    size, damping, slow = float(np.linalg.norm(_below(a, q))), 1e-2, 0
    for _ in range(steps):
        if size <= goal or slow == 4:
            break
        t = q.conj().T @ a @ q
        change = np.zeros((len(i), n, n), np.result_type(t, w))  # T S - S T, direction by direction
        change[at, :, j] += w[:, None] * t[:, i].T
        change[at, :, i] -= w.conj()[:, None] * t[:, j].T
        change[at, i, :] -= w[:, None] * t[j, :]
        change[at, j, :] += w.conj()[:, None] * t[i, :]
        jacobian, residual = change[:, inside[0], inside[1]].T, t[inside]
        if np.iscomplexobj(a):
            jacobian = np.vstack([np.real(jacobian), np.imag(jacobian)])
            residual = np.hstack([np.real(residual), np.imag(residual)])
        for _ in range(12):
            damped = np.vstack([jacobian, damping * np.eye(len(i))])
            right = np.concatenate([-residual, np.zeros(len(i))])
            step = scipy.linalg.lstsq(damped, right, lapack_driver="gelsy")[0]  # pyright: ignore[reportOptionalSubscript]
            skew = np.zeros((n, n), change.dtype)
            np.add.at(skew, (i, j), step * w)
            new = np.linalg.qr(q @ scipy.linalg.expm(skew - skew.conj().T))[0]
            gained = float(np.linalg.norm(_below(a, new)))
            if gained < size:
                break
            damping *= 4
        else:
            break
        slow = slow + 1 if gained > 0.7 * size else 0
        q, size, damping = new, gained, max(damping / 5, 1e-14)
    return q


def nearest_flag(a: Array, goal: float) -> Staircase:
    """The best flag found, as a staircase of steps of size 1; ``goal`` is the Frobenius norm to stop at."""
    flags = [_greedy(a), _greedy(a.conj().T)[:, ::-1]]
    flags.sort(key=lambda q: float(np.linalg.norm(_below(a, q))))
    best = flags[0]
    if len(a) <= _IMPROVED:
        for flag in flags:
            better = _improved(a, flag, goal)
            best = min(best, better, key=lambda q: float(np.linalg.norm(_below(a, q))))
            if np.linalg.norm(_below(a, best)) <= goal:
                break
    form = best.conj().T @ a @ best
    defect = np.tril(form)
    discarded, kept = norm2(defect), float(np.abs(np.diagonal(form, 1)).min(initial=np.inf))
    return Staircase(discarded, (1,) * len(a), best, form, defect, discarded, kept)
