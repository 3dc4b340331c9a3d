"""The nearest matrix whose spectral radius is at most a bound: a constrained fit, not a reflection of eigenvalues."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.optimize

from .._linalg import schur
from .._validate import Array

__all__ = ["StableFit", "nearest_stable", "spectral_radius"]


class StableFit(NamedTuple):
    """A matrix within the bound, and what it cost.

    Parameters
    ----------
    matrix : ndarray [n, n]
        The matrix.
    distance : float
        Frobenius distance to the one asked for.
    """

    matrix: Array
    distance: float


def spectral_radius(a: Array) -> float:
    """Largest modulus of an eigenvalue; 0 for an empty matrix."""
    return float(np.abs(np.linalg.eigvals(a)).max()) if a.size else 0.0


def _stein(a: Array) -> Array:
    """P = A P A^T + I for a stable A, by doubling."""
    p, power = np.eye(len(a)), a
    for _ in range(60):
        move = power @ p @ power.T
        p = p + move
        if not np.isfinite(p).all() or np.trace(move) <= 1e-15 * np.trace(p):
            break
        power = power @ power
    return p


def nearest_stable(target: Array, bound: float) -> StableFit:
    r"""Find a nearest matrix with spectral radius at most ``bound`` (a local minimum of the distance).

    .. math:: \min_A \|A - A_0\|_F^2 \quad\text{subject to}\quad \rho(A) \le r

    Interior point method: the barrier is the trace of :math:`P = \hat A P \hat A^T + I`, :math:`\hat A = A / r`, which
    grows without bound as :math:`\rho(A) \to r`, is smooth, and has the gradient :math:`2 Q \hat A P / r` with
    :math:`Q = \hat A^T Q \hat A + I`. Each weight of the barrier is a minimisation by L-BFGS.

    References: J. Vanbiervliet, B. Vandereycken, W. Michiels, S. Vandewalle, M. Diehl, *The smoothed spectral abscissa
    for robust stability optimization*, SIAM J. Optim. 20 (2009).
    """
    n = len(target)
    radius = spectral_radius(target)
    if radius <= bound:
        return StableFit(target, 0.0)
    values, vectors = schur(target.astype(complex))
    diagonal = np.diag(values)
    clipped = np.where(np.abs(diagonal) > bound, diagonal / np.abs(diagonal) * bound, diagonal)
    starts = [target * (bound / radius), np.real(vectors @ (values + np.diag(clipped - diagonal)) @ vectors.conj().T)]
    best = min(
        (start for start in starts if spectral_radius(start) <= bound * (1 + 1e-9)),
        key=lambda start: float(np.linalg.norm(start - target)),
    )
    # A little inside, so that the barrier is finite.
    current = best * min(1.0, bound * (1 - 1e-4) / spectral_radius(best))

    def cost(flat: Array, weight: float) -> tuple[float, Array]:
        a = flat.reshape(n, n)
        scaled = a / bound
        if not np.isfinite(a).all() or spectral_radius(scaled) >= 1 - 1e-13:
            return 1e20, np.zeros(n * n)
        p, q = _stein(scaled), _stein(scaled.T)
        gradient = 2 * (a - target) + weight * 2 * (q @ scaled @ p) / bound
        return float(np.sum((a - target) ** 2) + weight * np.trace(p)), gradient.ravel()

    def inside(candidate: Array) -> bool:
        return spectral_radius(candidate) < bound

    best_matrix, best_distance = current, float(np.linalg.norm(current - target))
    weight = 1e-2 * best_distance**2 / max(np.trace(_stein(current / bound)), 1.0)
    for _ in range(9):
        found = scipy.optimize.minimize(
            cost, current.ravel(), args=(weight,), jac=True, method="L-BFGS-B",
            options={"maxiter": 150, "maxcor": 20, "ftol": 1e-15, "gtol": 1e-12},
        )  # fmt: skip
        candidate = found.x.reshape(n, n)
        if not inside(candidate):
            break
        current = candidate
        distance = float(np.linalg.norm(candidate - target))
        if distance < best_distance:
            if best_distance - distance < 1e-6 * best_distance:
                best_matrix, best_distance = candidate, distance
                break
            best_matrix, best_distance = candidate, distance
        weight *= 0.1
    return StableFit(best_matrix, best_distance)
