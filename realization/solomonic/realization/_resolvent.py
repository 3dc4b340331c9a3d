"""The smallest singular value of A - zI at many points z, after one Schur decomposition."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg

from ._validate import Array

__all__ = ["SingularTriple", "sigma_min", "sigma_triple"]

_SMALL = 48


class SingularTriple(NamedTuple):
    """The smallest singular value of T - zI, its vectors (u, v), and the second smallest one."""

    sigma: float
    u: Array
    v: Array
    second: float


def sigma_triple(t: Array, z: complex) -> SingularTriple:
    """Return sigma_n, u_n, v_n and sigma_(n-1) of t - zI by a full SVD (sigma_0 is infinite for order 1)."""
    u, s, vh = np.linalg.svd(t - z * np.eye(len(t)))
    return SingularTriple(float(s[-1]), u[:, -1], vh[-1].conj(), float(s[-2]) if len(s) > 1 else np.inf)


def sigma_min(t: Array, points: Array, *, rtol: float = 1e-4) -> Array:
    """Return sigma_min(t - zI) for every z in ``points``; ``t`` must be upper triangular (complex Schur form).

    Up to order 48 by stacked SVDs, which are exact to rounding; beyond by inverse iteration with triangular
    solves, O(n^2) a point, which approaches the value from above.
    """
    t = np.asarray(t, complex)
    z = np.asarray(points, complex).ravel()
    n = len(t)
    out = np.empty(len(z))
    if n <= _SMALL:
        eye = np.eye(n)
        chunk = max(1, 2_000_000 // n**2)
        for i in range(0, len(z), chunk):
            stack = t[None] - z[i : i + chunk, None, None] * eye
            out[i : i + chunk] = np.linalg.svd(stack, compute_uv=False)[:, -1]
        return out.reshape(np.shape(points))
    (trtrs,) = scipy.linalg.get_lapack_funcs(("trtrs",), (t,))
    start = np.random.default_rng(0).standard_normal(n) + 0j
    diagonal, shifted = np.diag_indices(n), np.array(t, order="F")
    original = t[diagonal]
    for k, point in enumerate(z):
        shifted[diagonal] = original - point
        if np.any(shifted[diagonal] == 0):
            out[k] = 0.0
            continue
        x, last = start / np.linalg.norm(start), np.inf
        for _ in range(60):
            with np.errstate(all="ignore"):
                y, _info = trtrs(shifted, x, trans=2)
                size = float(np.linalg.norm(y))
                if not np.isfinite(size):
                    last = 0.0
                    break
                w, _info = trtrs(shifted, y / size)
                x_size = float(np.linalg.norm(w))
            if not np.isfinite(x_size):
                last = 0.0
                break
            x = w / x_size
            now = 1 / max(size, x_size)
            if abs(last - now) <= rtol * now:
                last = now
                break
            last = now
        out[k] = last
        start = x
    return out.reshape(np.shape(points))
