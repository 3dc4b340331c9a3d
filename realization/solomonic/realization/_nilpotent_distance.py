"""Rigorous lower bounds of the distance from a matrix to the nilpotent ones.

For N nilpotent and delta = |A - N|_2, each of the following holds:

* rank:         sigma_min(A) <= delta, because N is singular;
* trace:        |tr A| <= n delta, because tr N = 0;
* determinant:  |z|^n = |det(zI - N)| <= prod_i (sigma_i(zI - A) + delta) for every complex z,
                because singular values move by at most delta (Weyl).

The determinant bound is the strong one: at an eigenvalue z of A the product contains a factor delta, and a
matrix made of several Jordan blocks is not punished for its small singular values, as it is by a bound
through the resolvent.
"""

from __future__ import annotations

import numpy as np

from ._linalg import EPS
from ._validate import Array

__all__ = ["nilpotent_lower_bound"]


def _determinant_bound(sigma: Array, log_z: float) -> float:
    """Smallest d with sum_i log(sigma_i + d) >= n log|z|."""
    target = len(sigma) * log_z

    def excess(log_d: float) -> float:
        return float(np.sum(np.log(sigma + np.exp(log_d))) - target)

    high = log_z + 1.0
    if excess(high) < 0:
        high = float(np.log(np.max(sigma) + np.exp(log_z))) + 1.0
    low = high - 90.0
    if excess(low) >= 0:
        return 0.0
    for _ in range(24):  # to a relative 1e-5: the low end is a bound at every step
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return float(np.exp(low) * (1 - 1e-9))


def _points(a: Array, norm: float, eigenvalues: Array) -> list[complex]:
    """Points z to try: real ones outside the numerical range (cheap), then eigenvalues, largest first."""
    points: list[complex] = [1.25 * norm, -1.25 * norm]
    order = np.argsort(-np.abs(eigenvalues))
    real = np.isrealobj(a)
    ranked = [complex(z) for z in eigenvalues[order] if not (real and z.imag < -EPS * norm)]
    count = 6 if len(a) <= 150 else 2
    picks = ranked[:2] + ranked[2 :: max(1, (len(ranked) - 2) // max(1, count - 2))]
    points += picks[:count]
    if len(a) <= 150 and ranked:
        points += [1.2 * ranked[0], 0.85 * ranked[0]]
    return [z for z in points if abs(z) > 0]


def nilpotent_lower_bound(a: Array, norm: float, eigenvalues: Array, upper: float) -> float:
    """Return the best of the three bounds, less what rounding may have added to them.

    Parameters
    ----------
    a : ndarray [n, n]
        The matrix.
    norm : float
        Its spectral norm.
    eigenvalues : ndarray [n]
        Its computed eigenvalues (any numbers would do: they only say where to look).
    upper : float
        A known upper bound; the search stops when the lower bound comes within a factor 3 of it.

    Returns
    -------
    float
        A lower bound of the spectral-norm distance to the nearest nilpotent matrix.
    """
    n = len(a)
    rounding = n * EPS * norm
    smallest = float(np.linalg.svd(a, compute_uv=False)[-1])
    best = max(smallest - rounding, abs(np.trace(a)) / n - rounding, 0.0)
    eye = np.eye(n)
    for z in _points(a, norm, eigenvalues):
        if best > upper / 3:
            break
        shifted = (z.real if z.imag == 0 else z) * eye - a
        sigma = np.linalg.svd(shifted, compute_uv=False)
        best = max(best, _determinant_bound(sigma, np.log(abs(z))) - rounding - n * EPS * abs(z))
    return float(best)
