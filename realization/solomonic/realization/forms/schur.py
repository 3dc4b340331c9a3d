"""Real Schur form: orthogonal, quasi-triangular."""

from __future__ import annotations

import numpy as np

from .._linalg import schur
from .._systems import Matrices
from ._result import Change

__all__ = ["schur_form"]


def schur_form(m: Matrices) -> Change:
    """Real Schur form; ``indices`` are the sizes of the diagonal blocks (2 for a complex pair)."""
    t, z = schur(m.A)
    sizes, i = [], 0
    while i < m.order:
        k = 2 if i + 1 < m.order and t[i + 1, i] != 0 else 1
        sizes.append(k)
        i += k
    system = m.changed(z, z.T)._replace(A=np.array(t))
    return Change(system, z, tuple(sizes))
