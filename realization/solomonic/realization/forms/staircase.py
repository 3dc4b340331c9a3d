"""Controllability staircase form: orthogonal, block Hessenberg."""

from __future__ import annotations

from .._systems import Matrices
from ._reach import reach_staircase
from ._result import Change

__all__ = ["staircase_form"]


def staircase_form(m: Matrices) -> Change:
    """Orthogonal staircase; ``indices`` are the ranks of its steps, the controllable part first."""
    q, ranks = reach_staircase(m)
    system = m.changed(q, q.T)
    start = 0
    for i, rank in enumerate(ranks):
        end = start + rank
        if i == 0:
            system.B[end:] = 0
        below = end + (ranks[i + 1] if i + 1 < len(ranks) else 0)
        system.A[below:, start:end] = 0
        start = end
    if not ranks:
        system.B[:] = 0
    return Change(system, q, ranks)
