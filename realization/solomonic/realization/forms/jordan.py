"""Real Jordan form of the structure that rounding lets be seen."""

from __future__ import annotations

import numpy as np

from .._linalg import EPS, norm2, schur
from .._staircase import Staircase, sweep
from .._systems import Matrices
from .._validate import Array
from ..rounding import float64_uncertainty
from ._invariant import real_groups, subspace
from ._result import Change

__all__ = ["jordan", "jordan_chains"]


def jordan_chains(run: Staircase) -> tuple[Array, tuple[int, ...]]:
    """Jordan basis of the exactly nilpotent matrix of a staircase, in the original coordinates, and block sizes.

    In the staircase basis the null space of N^j is spanned by the first nu_1 + .. + nu_j coordinates. From the top:
    the images of longer chains occupy part of block j; vectors of the rest of block j start new chains.
    """
    nil = run.form - run.defect
    k, steps = len(nil), len(run.weyr)
    edges = np.concatenate([[0], np.cumsum(run.weyr)]).astype(int)
    chains: list[list[Array]] = []
    for j in range(steps, 0, -1):
        rows = slice(edges[j - 1], edges[j])
        for chain in chains:
            chain.append(nil @ chain[-1])
        tops = np.array([chain[-1][rows] for chain in chains]).T.reshape(run.weyr[j - 1], len(chains))
        fresh = run.weyr[j - 1] - len(chains)
        if fresh:
            u = np.linalg.svd(tops)[0] if chains else np.eye(run.weyr[j - 1])
            for column in u[:, len(chains) :].T:
                head = np.zeros(k, nil.dtype)
                head[rows] = column
                chains.append([head])
    chains.sort(key=len, reverse=True)
    columns = [v for chain in chains for v in chain[::-1]]
    return run.basis @ np.column_stack(columns), tuple(len(chain) for chain in chains)


def _cluster_basis(block: Array, centre: complex, allowed: float) -> tuple[Array, tuple[int, ...]]:
    """Jordan basis of one cluster's compression and its block sizes, largest first."""
    k = len(block)
    real = np.isrealobj(block)
    shifted = block - (centre.real if real else centre) * np.eye(k)
    size = norm2(shifted)
    if k == 1 or size <= allowed:
        return np.eye(k, dtype=block.dtype), (1,) * k
    runs = [run for run in sweep(shifted, size, allowed) if run.nil_order == k]
    if not runs:
        raise ValueError(
            f"sys: expected eigenvalues that resolve into Jordan blocks, but the cluster of {k} near {centre:.4g} does "
            f"not within {allowed:.2g}; take the form modal, which keeps it as one block"
        )
    best = max(runs, key=lambda run: run.gap)
    return jordan_chains(best)


def jordan(m: Matrices) -> Change:
    """Real Jordan form; ``indices`` are block sizes (a complex pair of blocks of size k counts as one of 2 k).

    The structure is that of ``jordan_structure`` at the rounding of A; what was discarded shows in the residual.
    """
    allowed = max(float64_uncertainty(norm2(m.A), m.order), EPS)
    real_form = schur(m.A)
    complex_form = schur(m.A.astype(complex))
    columns, blocks, sizes = [], [], []
    for group, pair in real_groups(m.A):
        centre = complex(np.mean(group))
        if pair:
            upper = group[np.imag(group) > 0]
            centre = complex(np.mean(upper))
            basis, block = subspace(*complex_form, upper)
        else:
            basis, block = subspace(*real_form, group)
            centre = complex(np.real(centre))
        turn, lengths = _cluster_basis(block, centre, allowed)
        vectors = basis @ turn
        start = 0
        for k in lengths:
            part = vectors[:, start : start + k]
            scale = np.linalg.norm(part[:, 0])
            part = part / scale if scale > 0 else part
            start += k
            shift = np.eye(k, k=1)
            if pair:
                columns += [f(part[:, i]) for i in range(k) for f in (np.real, np.imag)]
                s, w = centre.real, centre.imag
                blocks.append(np.kron(np.eye(k), [[s, w], [-w, s]]) + np.kron(shift, np.eye(2)))
            else:
                columns += list(np.real(part.T))
                blocks.append(centre.real * np.eye(k) + shift)
            sizes.append(len(blocks[-1]))
    transform = np.column_stack(columns)
    system = m.changed(transform, np.linalg.inv(transform))
    a = np.zeros_like(system.A)
    start = 0
    for block in blocks:
        a[start : start + len(block), start : start + len(block)] = block
        start += len(block)
    return Change(system._replace(A=a), transform, tuple(sizes))
