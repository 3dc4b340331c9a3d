"""What words reach and what they see, grown as a tree: at most n of them are needed, not (m + 1)^n."""

from __future__ import annotations

import numpy as np

from .._linalg import EPS
from .._validate import Array

__all__ = ["reach", "reach_both", "restrict"]


def reach(letters: Array, start: Array, tol: float | None = None) -> Array:
    """Orthonormal basis [n, r] of the span of all M_w start, for ``letters`` M [k, n, n] and ``start`` [n, c].

    Each round multiplies the newest directions by every letter and keeps what is new; singular values up to ``tol``
    times the size of what was multiplied count as nothing. A direction kept at a small singular value carries a larger
    error, by as much as it is small, and the next round allows for it. Cost: O(k n^3) in all.
    """
    return reach_both(letters, start, letters[:, :0, :0], start[:0], tol)[0]


def reach_both(
    letters: Array, start: Array, others: Array, start_other: Array, tol: float | None = None
) -> tuple[Array, Array, float]:
    """As :func:`reach`; also what the same combinations of words reach in another system, and the last tolerance."""
    n = letters.shape[1]
    noise = 10 * max(n, 1) * EPS if tol is None else tol
    basis, image = np.zeros((n, 0)), np.zeros((others.shape[1], 0))
    block, shadow = start, start_other
    size = float(np.linalg.norm(block, 2)) if block.size else 0.0
    while block.size and basis.shape[1] < n and size > 0:
        for _ in range(2):
            inside = basis.T @ block
            block, shadow = block - basis @ inside, shadow - image @ inside
        u, s, vh = np.linalg.svd(block, full_matrices=False)
        rank = min(int(np.sum(s > noise * size)), n - basis.shape[1])
        if rank == 0:
            break
        new, follow = u[:, :rank], shadow @ vh[:rank].T / s[:rank]
        basis, image = np.hstack([basis, new]), np.hstack([image, follow])
        block, shadow = np.hstack(list(letters @ new)), np.hstack(list(others @ follow))
        noise = min(noise * size / float(s[rank - 1]), max(noise, np.sqrt(EPS)))
        size = float(max(np.linalg.norm(letter, 2) for letter in letters))
    return basis, image, noise


def restrict(A: Array, N: Array, B: Array, C: Array, tol: float | None = None) -> tuple[Array, Array, Array, Array]:
    """The part that words reach and then see: two orthogonal projections give a minimal realization."""
    for _ in range(2):
        letters = np.concatenate([A[None], N])
        basis, _, tol = reach_both(letters, B, letters[:, :0, :0], B[:0], tol)
        size = float(np.linalg.norm(C))
        A, N, B, C = basis.T @ A @ basis, basis.T @ N @ basis, basis.T @ B, C @ basis
        if np.linalg.norm(C) <= tol * size:  # what cancels up to rounding is not seen
            C = np.zeros_like(C)
        A, N, B, C = A.T, N.transpose(0, 2, 1), C.T, B.T  # the dual: the second round removes what is not seen
    return A, N, B, C
