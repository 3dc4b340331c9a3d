"""Eigenvectors that A and A^H share: the normal modes of a matrix, an orthogonal direct sum by themselves.

A staircase mixes a small mode into a long chain: after k steps an error e of A has grown to e / |lambda|^k. Where the
mode is orthogonal to the chain on both sides it need not take part. Its vector is an eigenvector of every Hermitian
part of e^(-i angle) A, and those are perfectly conditioned but for the gap to the next eigenvalue.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._linalg import EPS, norm2, schur
from ._validate import Array

__all__ = ["NormalModes", "split_normal_modes"]

#: Directions of the Hermitian parts, radians: no two modes project onto one point in all of them.
_ANGLES = 0.3 + 0.618 * np.pi * np.arange(6)


class NormalModes(NamedTuple):
    """A = V (rest + modes) V^H, a direct sum up to ``limit``.

    Parameters
    ----------
    basis : ndarray [n, n]
        Unitary V (real for a real matrix): first a basis of what is left, then the modes, smallest modulus first.
    moduli : ndarray [k]
        Moduli of the modes in this order.
    """

    basis: Array
    moduli: Array


def _residuals(a: Array, x: Array) -> tuple[Array, Array]:
    """Rayleigh quotients of unit columns, and the larger of |A x - l x| and |A^H x - conj(l) x|."""
    right, left = a @ x, a.conj().T @ x
    values = np.sum(x.conj() * right, 0)
    gaps = np.linalg.norm(right - x * values, axis=0), np.linalg.norm(left - x * values.conj(), axis=0)
    return values, np.maximum(*gaps)


def _candidates(a: Array, tol: float) -> Array:
    """Orthonormal vectors [n, k] that are eigenvectors of A and A^H up to ``tol``, from some Hermitian parts."""
    n = len(a)
    found, rest, idle = np.zeros((n, 0), complex), np.eye(n, dtype=complex), 0
    for angle in _ANGLES:
        if rest.shape[1] == 0 or idle == 2:
            break
        turned = np.exp(-1j * angle) * (rest.conj().T @ a @ rest)
        vectors = rest @ np.linalg.eigh((turned + turned.conj().T) / 2)[1]
        good = _residuals(a, vectors)[1] <= tol
        idle = 0 if good.any() else idle + 1
        found, rest = np.hstack([found, vectors[:, good]]), vectors[:, ~good]
    return found


def _refined(a: Array, x: Array, weak: Array) -> Array:
    """One Newton step for the columns ``weak``: the least |(A - l)(x + z)|^2 + |(A - l)^H (x + z)|^2, z outside x."""
    rest = np.linalg.qr(x, mode="complete")[0][:, x.shape[1] :]
    inner = rest.conj().T @ a @ rest
    eye = np.eye(len(inner))
    x = x.copy()
    for j in np.flatnonzero(weak):
        right, left = a @ x[:, j], a.conj().T @ x[:, j]
        shifted = inner - np.vdot(x[:, j], right) * eye
        back = shifted.conj().T
        gram = back @ shifted + shifted @ back + EPS**2 * norm2(inner) ** 2 * eye
        z = np.linalg.solve(gram, back @ (rest.conj().T @ right) + shifted @ (rest.conj().T @ left))
        x[:, j] -= rest @ z
    return np.linalg.qr(x)[0]


def _real_span(x: Array) -> Array:
    """Real orthonormal basis of the span of x and its conjugate."""
    values, vectors = np.linalg.eigh(np.real(x @ x.conj().T))
    return vectors[:, values > 0.25]


def split_normal_modes(a: Array, norm: float, limit: float) -> NormalModes | None:
    """Split off the modes that are normal up to ``limit``: an orthogonal direct sum within that norm, mode by mode.

    Modes of modulus up to 1e3 ``limit`` stay with the rest: they may be zeros. Returns None where there are no modes.
    Cost: O(n^3), and as much for each mode that a small gap of the Hermitian parts has blurred.
    """
    x = _candidates(a, np.sqrt(limit * norm))
    if x.shape[1] == 0:
        return None
    blurred = _residuals(a, x)[1] > limit / 4
    if blurred.any() and x.shape[1] < len(a):
        x = _refined(a, x, blurred)
    values, residuals = _residuals(a, x)
    x = x[:, (residuals <= limit) & (np.abs(values) > 1e3 * limit)]
    if x.shape[1] == 0:
        return None
    modes = _real_span(x) if np.isrealobj(a) else x
    t, turn = schur(modes.conj().T @ a @ modes)
    k = len(t)
    moduli, i = np.abs(np.diag(t)), 0
    while i < k - 1:  # the two rows of a real block belong to one modulus
        if np.isrealobj(t) and t[i + 1, i] != 0:
            moduli[i : i + 2] = np.sqrt(abs(np.linalg.det(t[i : i + 2, i : i + 2])))
            i += 1
        i += 1
    order = np.argsort(moduli, kind="stable")
    modes = (modes @ turn)[:, order]
    rest = np.linalg.qr(modes, mode="complete")[0][:, k:]
    return NormalModes(np.hstack([rest, modes]), moduli[order])
