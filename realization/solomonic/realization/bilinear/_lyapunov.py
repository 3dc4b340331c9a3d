"""Generalised Lyapunov (Stein) equations: P = sum_k M_k P M_k^T + B B^T."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse.linalg

from .._linalg import EPS, schur
from .._validate import Array, as_array

__all__ = ["factor", "radius", "require_stable", "scaled", "scales", "solve", "solve_cross"]

_DIRECT = 16  # above this order the linear system in the entries of P is larger than the iteration is slow


def scales(given: Any, inputs: int) -> Array:
    """Standard deviations of the inputs [m] from one number or m of them."""
    value = as_array(given, "input_scale", ndim=(0, 1), real=True)
    if value.ndim == 1 and len(value) != inputs:
        raise ValueError(f"input_scale: expected one number or shape [{inputs}], got {list(value.shape)}")
    if not (value > 0).all():
        raise ValueError(f"input_scale: expected positive standard deviations, got {value.tolist()}")
    return np.broadcast_to(value, (inputs,)).copy()


def scaled(letters: Array, scale: Array) -> Array:
    """The letters with N_j multiplied by the scale of input j."""
    return letters * np.concatenate([[1.0], scale])[:, None, None]


def _operator(size: int, apply: Callable[[Array], Array]) -> Any:
    operator: Any = scipy.sparse.linalg.LinearOperator
    return operator((size, size), matvec=apply, dtype=np.dtype(float))


def _apply(letters: Array, x: Array) -> Array:
    return (letters @ x @ letters.transpose(0, 2, 1)).sum(0)


def _symmetric_matrix(letters: Array) -> tuple[Array, tuple[Array, Array]]:
    """The operator on symmetric matrices, in their n (n + 1) / 2 entries on and above the diagonal."""
    n = letters.shape[1]
    rows, columns = np.triu_indices(n)
    # the image of E_ab + E_ba is M_a M_b^T + M_b M_a^T (columns of M); of E_aa it is M_a M_a^T
    first, second = letters[:, :, rows], letters[:, :, columns]
    matrix = np.einsum("kiq,kiq->iq", first[:, rows], second[:, columns])
    mixed = np.einsum("kiq,kiq->iq", second[:, rows], first[:, columns])
    return matrix + np.where(rows == columns, 0.0, 1.0) * mixed, (rows, columns)


def radius(letters: Array, scale: Array) -> float:
    """Spectral radius of X -> sum_k M_k X M_k^T. It is an eigenvalue, with a positive semidefinite eigenvector."""
    letters = scaled(letters, scale)
    n = letters.shape[1]
    if n == 0:
        return 0.0
    if n <= _DIRECT:
        return float(np.abs(np.linalg.eigvals(_symmetric_matrix(letters)[0])).max())
    operator = _operator(n * n, lambda x: _apply(letters, x.reshape(n, n)).ravel())
    try:
        found: Any = scipy.sparse.linalg.eigs(operator, k=1, v0=np.eye(n).ravel(), return_eigenvectors=False)
    except scipy.sparse.linalg.ArpackNoConvergence as error:
        found = error.eigenvalues
        if len(found) == 0:
            x = np.eye(n) / np.sqrt(n)
            size = 0.0
            for _ in range(2000):
                x = _apply(letters, x)
                size = float(np.linalg.norm(x))
                if size == 0:
                    return 0.0
                x /= size
            return size
    return float(np.abs(found).max())


def require_stable(letters: Array, scale: Array) -> None:
    """Raise unless the state's covariance stays bounded, and say how large inputs may be."""
    found = radius(letters, scale)
    if found < 1 - 1e-12:
        return
    alone = float(np.abs(np.linalg.eigvals(letters[0])).max())
    if alone >= 1:
        raise ValueError(
            f"A: expected a spectral radius below 1 for a Gramian, got {alone:.6g}; no scale of the input helps: "
            f"split off "
            f"the unstable states first"
        )
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if radius(letters, middle * scale) < 1 else (low, middle)
    raise ValueError(
        f"input_scale: expected inputs under which the system is mean-square stable, got a growth of the covariance by "
        f"{found:.6g} a step (A alone has spectral radius {alone:.6g}); it is stable for inputs below {low:.6g} times "
        f"this "
        f"scale: pass input_scale={low * 0.9 * float(scale.min()):.3g} or smaller"
    )


def solve(letters: Array, b: Array) -> Array:
    """P of P = sum_k M_k P M_k^T + B B^T, symmetric; the caller has made sure that it exists."""
    n = letters.shape[1]
    right = b @ b.T
    if n == 0 or not right.any():
        return right
    if n <= _DIRECT:
        matrix, (rows, columns) = _symmetric_matrix(letters)
        entries = np.linalg.solve(np.eye(len(rows)) - matrix, right[rows, columns])
        out = np.zeros((n, n))
        out[rows, columns] = entries
        out[columns, rows] = entries
        return out
    return _iterate(letters, letters, right)


def solve_cross(left: Array, right: Array, source: Array) -> Array:
    """X of X = sum_k L_k X R_k^T + S, for systems of two sizes."""
    size = left.shape[1] * right.shape[1]
    if size <= _DIRECT**2 * 2:
        matrix = sum(np.kron(a, b) for a, b in zip(left, right, strict=True))
        return np.linalg.solve(np.eye(size) - matrix, source.ravel()).reshape(source.shape)
    return _iterate(left, right, source)


def _iterate(left: Array, right: Array, source: Array) -> Array:
    """GMRES, preconditioned by the Stein equation of the first letters in Schur coordinates."""
    shape = source.shape
    # Complex Schur forms make the Stein equation of A triangular: one row after another
    t1, z1 = schur(left[0].astype(complex))
    t2, z2 = schur(right[0].astype(complex))

    def stein(vector: Array) -> Array:
        s = z1.conj().T @ vector.reshape(shape) @ z2.conj()
        out = np.zeros(shape, complex)
        eye = np.eye(shape[1])
        for i in range(shape[0] - 1, -1, -1):  # row i: x_i - t1_ii x_i t2^T = s_i + (t1_i,> x_>) t2^T
            rest = s[i] + (t1[i, i + 1 :] @ out[i + 1 :]) @ t2.T
            out[i] = scipy.linalg.solve_triangular(eye - t1[i, i] * t2, rest)
        return np.real(z1 @ out @ z2.T).ravel()

    size = int(np.prod(shape))
    transposed = right.transpose(0, 2, 1)

    def residual(vector: Array) -> Array:
        x = vector.reshape(shape)
        return (x - (left @ x @ transposed).sum(0)).ravel()

    found, _ = scipy.sparse.linalg.gmres(
        _operator(size, residual),
        source.ravel(),
        rtol=1e-13,
        atol=0.0,
        restart=60,
        maxiter=20,
        M=_operator(size, stein),
    )
    x = found.reshape(shape)
    for _ in range(200):  # the fixed point takes what is left; it converges as the radius is below 1
        new = x - stein(residual(x.ravel()) - source.ravel()).reshape(shape)
        change = np.linalg.norm(new - x)
        x = new
        if change <= 4 * EPS * np.linalg.norm(x):
            break
    return (x + x.T) / 2 if left is right else x


def factor(matrix: Array) -> Array:
    """L with L L^T = P for a positive semidefinite P, by its eigenvalues (what rounding makes negative counts as 0)."""
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(np.maximum(values, 0))
