"""Two-sided bounds of the distance to the nearest matrix with a multiple eigenvalue.

Matrices with a multiple eigenvalue are the closure of the defective ones, so the two distances are the same
infimum.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from ._clusters import reorder
from ._linalg import EPS, norm2, smallest_singular_value
from ._resolvent import SingularTriple, sigma_triple
from ._validate import Array

__all__ = ["defective_lower_bound", "defective_upper_bound"]


def _gap(values: Array) -> float:
    distance = np.abs(values[:, None] - values[None, :])
    distance[np.diag_indices(len(values))] = np.inf
    return float(distance.min())


def defective_lower_bound(t: Array, z: Array, norm: float, vectors: Array, values: Array, a: Array) -> float:
    r"""Lower bound: no matrix nearer than this has a multiple eigenvalue.

    The better of two bounds, less n eps |A|:

    * Bauer-Fike: discs of radius kappa(V) |E| around the eigenvalues are disjoint for |E| < gap / (2
      kappa(V)).
    * Stewart: with A = [[l, b], [0, S]] after a unitary change, |E| < s^2 / (4 (|b| + s)), s = sigma_min(S -
      l I), keeps l apart from the rest; where that holds for each eigenvalue in turn, all stay simple.
    """
    n = len(t)
    rounding = n * EPS * norm
    bauer = 0.0
    smallest = smallest_singular_value(vectors)
    if smallest > n * EPS:
        kappa = norm2(vectors) / smallest
        residual = float(np.linalg.norm(a @ vectors - vectors * values)) / smallest
        bauer = _gap(values) / (2 * kappa) * (1 - n * EPS * kappa) - residual - rounding
    stewart = np.inf
    for i in range(n):
        mask = np.zeros(n, bool)
        mask[i] = True
        ordered, _ = reorder(t, z, mask)
        shifted = ordered[1:, 1:] - ordered[0, 0] * np.eye(n - 1)
        if n <= 60:
            s = smallest_singular_value(shifted)
        else:
            (trtri,) = scipy.linalg.get_lapack_funcs(("trtri",), (shifted,))
            with np.errstate(all="ignore"):
                inverse, info = trtri(shifted)
                size = float(np.linalg.norm(inverse))
            s = 0.0 if info or not np.isfinite(size) else 1 / size
        s = max(s - rounding, 0.0)
        b = float(np.linalg.norm(ordered[0, 1:]))
        stewart = min(stewart, s * s / (4 * (b + s)) if s > 0 else 0.0)
        if stewart - rounding <= bauer:
            break
    return float(max(bauer, stewart - rounding, 0.0))


def _merged(triple: SingularTriple, t: Array, z: complex) -> float:
    """Distance to a multiple eigenvalue near z: sigma u v^* makes z an eigenvalue, a second change doubles it.

    After A - sigma u v^* the eigenvalue z has the vectors u (left) and v (right); an eigenvalue whose vectors
    meet at |u^* v| = tau becomes double by a change of norm |B - zI| tau / sqrt(1 - tau^2) (Wilkinson).
    """
    tau = abs(np.vdot(triple.u, triple.v))
    if tau >= 0.5:
        return np.inf
    n = len(t)
    return triple.sigma + (norm2(t - z * np.eye(n)) + triple.sigma) * tau / np.sqrt(1 - tau**2)


def _to_saddle(t: Array, z: complex, step: float) -> tuple[float, complex, float]:
    """Newton's iteration for u^* v = 0, the saddle points of sigma_min; best bound, its z and second singular value."""
    best = (np.inf, z, 0.0)
    for _ in range(8):
        triple = sigma_triple(t, z)
        bound = _merged(triple, t, z)
        if bound < best[0]:
            best = (bound, z, triple.second)
        tau = complex(np.vdot(triple.u, triple.v))
        if abs(tau) < EPS * len(t):
            break
        h = 1e-3 * step
        right, up = sigma_triple(t, z + h), sigma_triple(t, z + 1j * h)
        d_re = (complex(np.vdot(right.u, right.v)) - tau) / h
        d_im = (complex(np.vdot(up.u, up.v)) - tau) / h
        jacobian = np.array([[d_re.real, d_im.real], [d_re.imag, d_im.imag]])
        if not np.all(np.isfinite(jacobian)) or np.linalg.cond(jacobian) > 1e12:
            break
        move = np.linalg.solve(jacobian, [-tau.real, -tau.imag])
        size = float(np.hypot(*move))
        if size > 2 * step:
            move *= 2 * step / size
        z = z + complex(move[0], move[1])
        step = min(step, max(size, EPS * abs(z)))
    return best


def defective_upper_bound(
    t: Array, z: Array, norm: float, centres: list[tuple[complex, float]]
) -> tuple[float, complex, float]:
    r"""Upper bound: a matrix with a multiple eigenvalue this near; its eigenvalue; sigma_(n-1) there.

    Pairs of near eigenvalues are merged inside their unitary 2 x 2 compression (at a cost of
    sigma_min(M - tr M / 2)), then saddle points of sigma_min(A - zI) are sought from there and from
    ``centres`` (point, spread).
    """
    n = len(t)
    values = np.diag(t)
    distance = np.abs(values[:, None] - values[None, :]) + np.diag(np.full(n, np.inf))
    flat = np.argsort(distance, axis=None)[: 6 * n : 2]
    pairs = [(int(k // n), int(k % n)) for k in flat if np.isfinite(distance.flat[k])]
    best: tuple[float, complex, float] = (np.inf, 0j, 0.0)
    starts: list[tuple[float, complex, float]] = []
    for i, j in pairs[: 3 * n]:
        mask = np.zeros(n, bool)
        mask[[i, j]] = True
        block = reorder(t, z, mask)[0][:2, :2]
        middle = complex(np.trace(block) / 2)
        cost = smallest_singular_value(block - middle * np.eye(2))
        starts.append((cost, middle, float(distance[i, j])))
    starts.sort(key=lambda s: s[0])
    if starts:
        cost, middle, _ = starts[0]
        best = (cost, middle, sigma_triple(t, middle).second)
    places = [(m, s) for _, m, s in starts[:4]] + centres
    for middle, spread in places:
        found = _to_saddle(t, middle, max(spread, EPS * norm) / 2)
        best = min(best, found, key=lambda f: f[0])
    return best[0] + n * EPS * norm, best[1], best[2]
