"""Modal form: real, block diagonal, blocks only as large as the conditioning asks."""

from __future__ import annotations

import numpy as np

from .._linalg import schur
from .._systems import Matrices
from .._validate import Array
from ._invariant import real_groups, subspace
from ._result import Change

__all__ = ["modal"]


def _standard_pair(block: Array) -> Array:
    """Change of basis that turns a 2 x 2 block with eigenvalues s +- iw into [[s, w], [-w, s]]."""
    values, vectors = np.linalg.eig(block)
    v = vectors[:, int(np.argmax(np.imag(values)))]
    basis = np.column_stack([np.real(v), np.imag(v)])
    return basis / np.sqrt(abs(np.linalg.det(basis)))


def modal(m: Matrices) -> Change:
    """Block diagonal form; ``indices`` are the block sizes: 1, 2 for a complex pair, more for eigenvalues that
    rounding cannot keep apart (their block stays quasi-triangular)."""
    t, z = schur(m.A)
    bases, blocks = [], []
    for group, _ in real_groups(m.A):
        basis, block = subspace(t, z, group)
        if len(group) == 2 and block[1, 0] != 0:
            turn = _standard_pair(block)
            basis = basis @ turn
            s, w = float(np.real(group[0])), float(abs(np.imag(group[0])))
            block = np.array([[s, w], [-w, s]])
        bases.append(basis)
        blocks.append(block)
    transform = np.hstack(bases)
    system = m.changed(transform, np.linalg.inv(transform))
    a = np.zeros_like(system.A)
    start = 0
    for block in blocks:
        end = start + len(block)
        a[start:end, start:end] = block
        start = end
    return Change(system._replace(A=a), transform, tuple(len(block) for block in blocks))
