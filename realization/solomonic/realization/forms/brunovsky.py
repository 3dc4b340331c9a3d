"""Brunovsky form: under feedback every controllable system is a set of shift registers."""

from __future__ import annotations

import numpy as np

from .._systems import Matrices
from ._reach import require_controllable
from ._result import Change
from .controllable import controllable

__all__ = ["brunovsky"]


def brunovsky(m: Matrices) -> Change:
    """Chains of delays (or integrators) under u = F x + G v; ``indices`` are the controllability indices by input."""
    require_controllable(m, "brunovsky")
    companion = controllable(m)
    indices, system, transform = companion.indices, companion.system, companion.transform
    inputs = m.B.shape[1]
    used = [j for j, k in enumerate(indices) if k]
    ends = np.cumsum([indices[j] for j in used]) - 1
    gain = system.B[ends]  # [r, m]; its columns ``used`` are unit upper triangular up to their order
    solved = np.linalg.solve(gain[:, used], np.eye(len(used)))
    pick = np.eye(inputs)[:, used]
    g = np.zeros((inputs, inputs))
    g[:, used] = pick @ solved
    for j in (j for j in range(inputs) if j not in used):
        g[:, j] = np.eye(inputs)[j] - pick @ (solved @ gain[:, j])
    f = -(pick @ solved @ system.A[ends]) @ np.linalg.inv(transform)
    a, b = np.eye(m.order, k=1), np.zeros((m.order, inputs))
    for j, end in zip(used, ends, strict=True):
        a[end] = 0
        b[end, j] = 1
    c = (m.C + m.D @ f) @ transform
    return Change(system._replace(A=a, B=b, C=c, D=m.D @ g), transform, indices, f, g)
