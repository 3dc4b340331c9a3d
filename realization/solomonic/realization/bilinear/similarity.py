"""Are two bilinear systems the same up to a change of states?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .._linalg import EPS, norm2
from .._validate import Array, as_number
from ..equivalence import Equivalence
from ._spans import reach_both

if TYPE_CHECKING:
    from .system import BilinearSystem

__all__ = ["compare"]


def _residual(first: BilinearSystem, second: BilinearSystem, t: Array) -> float:
    tiny = np.finfo(float).tiny
    size = norm2(t)
    gaps = [
        norm2(m1 @ t - t @ m2) / max(norm2(m1) * size, size * norm2(m2), tiny)
        for m1, m2 in zip(first.letters, second.letters, strict=True)
    ]
    gaps.append(norm2(first.B - t @ second.B) / max(norm2(first.B), size * norm2(second.B), tiny))
    gaps.append(norm2(first.C @ t - second.C) / max(norm2(first.C) * size, norm2(second.C), tiny))
    return float(max(gaps))


def compare(first: BilinearSystem, second: BilinearSystem, tol: float) -> Equivalence:
    """Grow bases from words in the first system, and carry the same combinations of words along in the second.

    With V_1 orthonormal and V_2 its image, T = V_1 V_2^-1 takes the second system into the first where both are
    minimal. Rows grow in the same way, from C. The kernels of all words agree where those agree that a row of either
    basis, two letters and a column make.
    """
    tol = as_number(tol, "tol", "a number above 0", lambda x: x > 0)
    if first.inputs != second.inputs or first.outputs != second.outputs:
        return Equivalence(False, None, np.inf, np.inf, np.inf, "Inputs or outputs differ.")
    small = [first.minimal(), second.minimal()]
    minimal = small[0].order == first.order and small[1].order == second.order
    one, two = (first, second) if minimal else small
    gamma = max(*(norm2(x) for x in one.letters), np.finfo(float).tiny)
    m1, m2 = one.letters / gamma, two.letters / gamma
    v1, v2, _ = reach_both(m1, one.B, m2, two.B)
    w1, w2, _ = reach_both(m1.transpose(0, 2, 1), one.C.T, m2.transpose(0, 2, 1), two.C.T)
    seen = [
        np.vstack([c, *(w.T @ m)]) @ np.hstack([b, *(m @ v)])
        for c, w, m, b, v in ((one.C, w1, m1, one.B, v1), (two.C, w2, m2, two.B, v2))
    ]
    scale = max(*(float(np.abs(x).max(initial=0)) for x in (*seen, first.D, second.D)), np.finfo(float).tiny)
    gap = max(float(np.abs(seen[0] - seen[1]).max(initial=0)), float(np.abs(first.D - second.D).max()))
    difference = gap / scale
    if difference > tol:
        return Equivalence(False, None, np.inf, np.inf, difference, f"The kernels differ by {difference:.2g}.")
    if first.order != second.order or not minimal or v1.shape[1] < first.order:
        reason = "Equal kernels, but at least one system is not minimal: compare minimal()."
        return Equivalence(None, None, np.inf, np.inf, difference, reason)
    if first.order == 0:
        return Equivalence(True, np.zeros((0, 0)), 1.0, 0.0, difference, "Both are a feed-through.")
    t = np.linalg.lstsq(v2.T, v1.T, rcond=None)[0].T
    residual, condition = _residual(first, second, t), float(np.linalg.cond(t))
    if residual <= tol and condition < 1 / EPS:
        return Equivalence(True, t, condition, residual, difference, "A change of states takes one into the other.")
    reason = "Equal kernels within the tolerance, but no change of states that fits as well."
    return Equivalence(None, t, condition, residual, difference, reason)
