"""Balanced form: both Gramians equal and diagonal."""

from __future__ import annotations

import numpy as np

from .._linalg import EPS
from .._systems import Matrices, require_stable
from ..gramians import gramian_factors
from ._result import Change

__all__ = ["balanced"]


def balanced(m: Matrices) -> Change:
    """Square-root balancing of the minimal part; ``indices`` is (states kept, states left out).

    States of Hankel singular value up to n eps times the largest are uncontrollable or unobservable within rounding;
    no balancing exists for them, and T is then [n, r] with r < n, and its columns span no invariant subspace: the
    residual is Glover's bound of the change of the frequency response, 2 (sum left out) / largest.
    """
    require_stable(m, "sys", "the balanced form")
    reach, see = gramian_factors(m)
    u, s, vt = np.linalg.svd(see.T @ reach)
    kept = int(np.sum(s > m.order * EPS * s[0])) if s[0] > 0 else 0
    if kept == 0:
        raise ValueError("sys: expected a system whose input reaches its output, got Hankel singular values of 0")
    root = np.sqrt(s[:kept])
    transform = reach @ vt[:kept].T / root
    inverse = (see @ u[:, :kept] / root).T
    left_out = 2 * float(s[kept:].sum() / s[0]) if kept < m.order else None
    return Change(m.changed(transform, inverse), transform, (kept, m.order - kept), residual=left_out)
