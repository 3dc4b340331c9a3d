"""Invariant subspaces of groups of eigenvalues, closed under conjugation for real matrices."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from .._clusters import find_clusters
from .._linalg import norm2, schur
from .._validate import Array
from ..rounding import float64_uncertainty

__all__ = ["real_groups", "subspace"]


def real_groups(a: Array) -> list[tuple[Array, bool]]:
    """Group the eigenvalues that rounding cannot keep apart, each group closed under conjugation.

    Returns, largest modulus first, the eigenvalues of each group and whether it is two conjugate clusters (a complex
    eigenvalue and its conjugate) rather than one that touches the real axis.
    """
    norm = norm2(a)
    t, _ = schur(a.astype(complex))
    values = np.diag(t)
    groups = [values[members] for members in find_clusters(t, float64_uncertainty(norm, len(a)))]
    merged: list[tuple[Array, bool]] = []
    scale = max(norm, np.finfo(float).tiny)
    while groups:
        group, pair = groups.pop(0), False
        centre = np.mean(group)
        if abs(np.imag(centre)) > 1e-14 * scale and not _self_conjugate(group, scale):
            gaps = [abs(np.mean(other) - np.conj(centre)) for other in groups]
            if gaps:
                group, pair = np.concatenate([group, groups.pop(int(np.argmin(gaps)))]), True
        merged.append((group, pair))
    merged.sort(key=lambda g: (-float(np.max(np.abs(g[0]))), float(np.mean(np.real(g[0])))))
    return merged


def _self_conjugate(group: Array, scale: float) -> bool:
    return abs(float(np.imag(np.sum(group)))) <= 1e-10 * scale * len(group)


def subspace(t: Array, z: Array, group: Array) -> tuple[Array, Array]:
    """Orthonormal basis X of the invariant subspace of ``group`` and X^H A X, from the Schur form (t, z) of A.

    The Schur form may be real: the group must then be closed under conjugation.
    """
    n, k = len(t), len(group)
    if np.iscomplexobj(t):
        values = np.diag(t)
    else:
        values = np.linalg.eigvals(t) if n == 1 else _quasi_diagonal(t)
    mask = np.zeros(n, np.int32)
    left = list(range(n))
    for value in group:
        best = min(left, key=lambda i: abs(values[i] - value))
        mask[best] = 1
        left.remove(best)
    (trsen,) = scipy.linalg.get_lapack_funcs(("trsen",), (t,))
    if np.iscomplexobj(t):
        ordered, turned = trsen(mask, t, z, job=b"N")[:2]
    else:
        ordered, turned = trsen(mask, t, z, job=b"N", lwork=max(1, n), liwork=1)[:2]
    return turned[:, :k], ordered[:k, :k]


def _quasi_diagonal(t: Array) -> Array:
    """Eigenvalues of a real quasi-triangular matrix, in the order of its diagonal."""
    n = len(t)
    values = np.diag(t).astype(complex)
    i = 0
    while i < n - 1:
        if t[i + 1, i] != 0:
            values[i : i + 2] = np.linalg.eigvals(t[i : i + 2, i : i + 2])
            i += 1
        i += 1
    return values
