"""Controllable companion form of a MIMO system, by controllability indices."""

from __future__ import annotations

import numpy as np

from .._systems import Matrices
from ._reach import controllability_indices, require_controllable
from ._result import Change

__all__ = ["controllable"]


def controllable(m: Matrices) -> Change:
    r"""Luenberger's controllable form: shift rows, and one last row a block that holds the coefficients.

    With M = [b_1, .., A^(k_1 - 1) b_1, b_2, ..] and q_j the last row of block j of M^-1, the new states are
    q_j, q_j A, .., q_j A^(k_j - 1) applied to x. ``indices`` are the controllability indices by input.
    """
    require_controllable(m, "controllable")
    indices, selected = controllability_indices(m)
    inverse = np.linalg.inv(selected)
    rows, end = [], 0
    for k in indices:
        if k == 0:
            continue
        end += k
        row = inverse[end - 1]
        for _ in range(k):
            rows.append(row)
            row = row @ m.A
    back = np.array(rows)
    transform = np.linalg.inv(back)
    system = m.changed(transform, back)
    end = 0
    for k in indices:  # rows that the construction makes exact: shifts, and no input but at block ends
        system.A[end : end + max(k - 1, 0)] = 0
        system.B[end : end + max(k - 1, 0)] = 0
        for i in range(end, end + k - 1):
            system.A[i, i + 1] = 1
        end += k
    return Change(system, transform, indices)
