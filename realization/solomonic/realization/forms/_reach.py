"""Orthogonal controllability staircase and controllability indices."""

from __future__ import annotations

import numpy as np

from .._linalg import EPS
from .._systems import Matrices, size_of
from .._validate import Array

__all__ = ["controllability_indices", "default_tolerance", "reach_staircase", "require_controllable"]


def default_tolerance(m: Matrices) -> float:
    """Singular values up to this count as zero: 10 n eps times the norm of [A B]."""
    return 10 * max(m.order, 1) * EPS * size_of(m)


def reach_staircase(m: Matrices, tol: float | None = None) -> tuple[Array, tuple[int, ...]]:
    """Return the orthogonal Q and the ranks of the staircase: Q^T A Q block Hessenberg, Q^T B = [B_1; 0].

    The first sum(ranks) columns of Q span the controllable subspace; the rest is uncontrollable.
    """
    tol = default_tolerance(m) if tol is None else tol
    n = m.order
    q = np.eye(n)
    a, block, done, ranks = m.A.copy(), m.B, 0, []
    while done < n:
        u, s, _ = np.linalg.svd(block)
        rank = int(np.sum(s > tol))
        if rank == 0:
            break
        a[done:] = u.T @ a[done:]
        a[:, done:] = a[:, done:] @ u
        q[:, done:] = q[:, done:] @ u
        ranks.append(rank)
        block = a[done + rank :, done : done + rank]
        done += rank
        if block.size == 0:
            break
    return q, tuple(ranks)


def require_controllable(m: Matrices, form: str, name: str = "sys") -> None:
    """Raise unless the system is controllable."""
    _, ranks = reach_staircase(m)
    if sum(ranks) < m.order:
        article, seen = ("an", "observable") if name == "sys (transposed)" else ("a", "controllable")
        raise ValueError(
            f"sys: expected {article} {seen} system for the {form} form, got one with {m.order - sum(ranks)} "
            f"un{seen} modes of {m.order}; take minimal(sys), or the forms kalman or staircase"
        )


def controllability_indices(m: Matrices) -> tuple[tuple[int, ...], Array]:
    """Return the controllability indices by input, and the matrix [b_1, A b_1, ..., b_2, ...] they select.

    Vectors are taken in the order b_1 .. b_m, A b_1 .. A b_m, ...; a chain ends with its first dependent vector. The
    decision looks at orthonormal remainders, so that long chains are not judged by nearly parallel powers.
    """
    n, inputs = m.B.shape
    tol = default_tolerance(m)
    basis = np.zeros((n, 0))
    chains: list[list[Array]] = [[] for _ in range(inputs)]
    residual: list[Array | None] = [None] * inputs
    alive = list(range(inputs))
    first = True
    while alive and basis.shape[1] < n:
        still = []
        for j in alive:
            last = residual[j]
            v = m.B[:, j] if first or last is None else m.A @ last
            for _ in range(2):
                v = v - basis @ (basis.T @ v)
            size = float(np.linalg.norm(v))
            if size <= tol or basis.shape[1] == n:
                continue
            residual[j] = v / size
            basis = np.column_stack([basis, v / size])
            chains[j].append(m.B[:, j] if first else m.A @ chains[j][-1])
            still.append(j)
        alive, first = still, False
    columns = [v for chain in chains for v in chain]
    return tuple(len(chain) for chain in chains), np.column_stack(columns)
