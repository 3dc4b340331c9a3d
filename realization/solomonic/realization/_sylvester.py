"""Sylvester equations and the separation of two matrices."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from ._linalg import EPS, schur
from ._validate import Array

__all__ = ["separation", "solve_triangular_sylvester"]


def _solve(t: Array, s: Array, rhs: Array, *, adjoint: bool = False) -> tuple[Array, float]:
    """Solve T Z - Z S = scale * rhs (or its adjoint) for quasi-triangular T and S."""
    (trsyl,) = scipy.linalg.get_lapack_funcs(("trsyl",), (t, s, rhs))
    flip = "C" if adjoint else "N"
    z, scale, info = trsyl(t, s, rhs, trana=flip, tranb=flip, isgn=-1)
    if info < 0:
        raise RuntimeError(f"trsyl refused argument {-info}")
    return z, float(scale)


def _common(*arrays: Array) -> list[Array]:
    kind = np.result_type(*arrays)
    return [np.asarray(x, kind) for x in arrays]


def solve_triangular_sylvester(nil: Array, core: Array, rhs: Array) -> Array:
    """Solve N Z - Z R = rhs for N upper triangular; entries overflow to infinity where the spectra meet."""
    nil, core, rhs = _common(nil, core, rhs)
    s, w = schur(core)
    z, scale = _solve(nil, s, rhs @ w)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return (z / scale) @ w.conj().T


def separation(first: Array, second: Array, *, iterations: int = 40) -> float:
    r"""Estimate sep(F, S), the smallest singular value of Z -> F Z - Z S.

    By inverse power iteration on the triangular factors: an estimate from above, mostly within a few per
    cent, at O(n^3) a step.
    """
    t, _ = schur(first)
    s, _ = schur(second)
    t, s = _common(t, s)
    rng = np.random.default_rng(0)
    z = rng.standard_normal((len(t), len(s))).astype(t.dtype)
    z /= np.linalg.norm(z)
    best = np.inf
    for _ in range(iterations):
        y, scale = _solve(t, s, z)
        if scale < 1 or not np.all(np.isfinite(y)) or np.max(np.abs(y)) > 1e150:
            return min(best, scale / float(np.max(np.abs(y)))) if np.all(np.isfinite(y)) else 0.0
        size = float(np.linalg.norm(y))
        z, scale = _solve(t, s, y / size, adjoint=True)
        now = 1 / size
        converged = abs(best - now) <= 1e-3 * now
        best = min(best, now)
        if converged or not np.all(np.isfinite(z)) or scale < 1 or best < EPS**4:
            break
        z /= np.linalg.norm(z)
    return best
