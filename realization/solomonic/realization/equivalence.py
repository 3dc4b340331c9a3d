"""Are two systems the same up to a change of states? If so, through which one?"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from ._linalg import norm2, triangle
from ._results import Result
from ._systems import Matrices, as_matrices
from ._validate import Array, as_number

__all__ = ["Equivalence", "equivalent"]


@dataclass(frozen=True, eq=False)
class Equivalence(Result):
    """Whether two systems are equivalent, and the change of states between them.

    Parameters
    ----------
    verdict : bool or None
        True: ``transform`` takes one system into the other within the tolerance. False: their impulse responses
        differ, or their sizes do. None: the responses agree, but no invertible transform was found (one of the two
        is not minimal, or nearly not).
    transform : ndarray [n, n] or None
        T with x_1 = T x_2: A_1 T = T A_2, B_1 = T B_2, C_1 T = C_2.
    condition : float
        Condition number of T.
    residual : float
        Largest relative residual of the three equations.
    difference : float
        Largest difference of the impulse responses (scaled, so that unstable modes do not drown the rest), relative
        to the largest entry.
    reason : str
        Why the verdict is what it is.
    """

    verdict: bool | None
    transform: Array | None
    condition: float
    residual: float
    difference: float
    reason: str

    def __repr__(self) -> str:
        return f"Equivalence({self.verdict}, residual={self.residual:.1e}, difference={self.difference:.1e})"

    def __bool__(self) -> bool:
        return self.verdict is True


def _krylov(m: Matrices, gamma: float, steps: int) -> Array:
    block, out = m.B, []
    for _ in range(steps):
        out.append(block)
        block = m.A @ block / gamma
    return np.hstack(out)


def _by_modes(first: Matrices, second: Matrices) -> Array:
    """T = V_1 D V_2^-1 from eigenvectors: D is diagonal, one least squares problem a mode (simple eigenvalues)."""
    (l1, v1), (l2, v2) = np.linalg.eig(first.A), np.linalg.eig(second.A)
    _, match = linear_sum_assignment(np.abs(l1[:, None] - l2[None, :]))
    v2 = v2[:, match]
    ones = np.hstack([np.linalg.solve(v1, first.B), (second.C @ v2).T])
    others = np.hstack([np.linalg.solve(v2, second.B), (first.C @ v1).T])
    weight = np.sum(np.abs(others) ** 2, 1)
    scale = np.sum(others.conj() * ones, 1) / np.where(weight > 0, weight, 1)
    return np.real((v1 * scale) @ np.linalg.inv(v2))


def _residual(first: Matrices, second: Matrices, t: Array) -> float:
    tiny = np.finfo(float).tiny
    return float(
        max(
            norm2(first.A @ t - t @ second.A) / max(norm2(first.A) * norm2(t), tiny),
            norm2(first.B - t @ second.B) / max(norm2(first.B), norm2(t) * norm2(second.B), tiny),
            norm2(first.C @ t - second.C) / max(norm2(first.C) * norm2(t), norm2(second.C), tiny),
        )
    )


def equivalent(sys1: Any, sys2: Any, *, tol: float = 1e-8) -> Equivalence:
    r"""Decide whether two systems are equal up to a change of states, and recover it.

    .. math:: A_1 T = T A_2, \qquad B_1 = T B_2, \qquad C_1 T = C_2, \qquad D_1 = D_2.

    Parameters
    ----------
    sys1, sys2 : control.StateSpace or tuple of array_like
        The systems, of one time base.
    tol : float
        Relative residual up to which the equations count as satisfied.

    Returns
    -------
    Equivalence
        ``.verdict``, ``.transform``, ``.residual``, ``.difference``; true in a condition only for the verdict True.

    Raises
    ------
    TypeError
        Not state-space systems, or complex.
    ValueError
        Wrong shapes, NaN or infinite.

    Notes
    -----
    T solves K_1 = T K_2 by least squares on jointly compressed Krylov matrices [B, AB/g, A^2 B/g^2, ...], or the dual
    equation, or mode by mode in eigenvectors, whichever leaves the smallest residual; the scale g, above both spectral
    radii, changes neither T nor the equations. For minimal systems T is unique. Cost: :math:`O(n^3)`.

    References
    ----------
    .. [1] R. E. Kalman, *Mathematical description of linear dynamical systems*, SIAM J. Control 1 (1963), Theorem 7.

    Examples
    --------
    >>> import numpy as np
    >>> A, B, C = np.diag([0.5, 0.2]), np.ones((2, 1)), np.ones((1, 2))
    >>> T = np.array([[1.0, 2.0], [0.0, 1.0]])
    >>> found = equivalent((A, B, C), (np.linalg.inv(T) @ A @ T, np.linalg.inv(T) @ B, C @ T))
    >>> found.verdict, bool(np.allclose(found.transform, T))
    (True, True)
    """
    first, second = as_matrices(sys1, "sys1"), as_matrices(sys2, "sys2")
    tol = as_number(tol, "tol", "a number above 0", lambda x: x > 0)
    if first.D.shape != second.D.shape or first.discrete != second.discrete:
        return Equivalence(False, None, np.inf, np.inf, np.inf, "Inputs, outputs or time bases differ.")
    radius = max(float(np.abs(np.linalg.eigvals(x.A)).max(initial=0)) for x in (first, second))
    gamma = 1.25 * radius if radius > 0 else 1.0
    steps = first.order + second.order
    k1, k2 = _krylov(first, gamma, steps), _krylov(second, gamma, steps)
    o1, o2 = _krylov(first.dual(), gamma, steps).T, _krylov(second.dual(), gamma, steps).T
    h1, h2 = first.C @ k1, second.C @ k2
    scale = max(float(np.abs(h1).max(initial=0)), float(np.abs(h2).max(initial=0)), norm2(first.D))
    gap = max(float(np.abs(h1 - h2).max(initial=0)), float(np.abs(first.D - second.D).max(initial=0)))
    difference = gap / scale if scale > 0 else 0.0
    if difference > tol:
        return Equivalence(
            False, None, np.inf, np.inf, difference, f"The impulse responses differ by {difference:.2g}."
        )
    if first.order != second.order:
        return Equivalence(
            None,
            None,
            np.inf,
            np.inf,
            difference,
            "Equal impulse responses, but orders that differ: compare minimal().",
        )
    n = first.order
    joint = triangle(np.vstack([k1, k2]).T).T
    candidates = [np.linalg.lstsq(joint[n:].T, joint[:n].T, rcond=None)[0].T]
    seen = triangle(np.hstack([o1, o2]))
    candidates.append(np.linalg.lstsq(seen[:, :n], seen[:, n:], rcond=None)[0])
    with suppress(np.linalg.LinAlgError):  # raised where A is defective to the last bit: no basis of eigenvectors
        candidates.append(_by_modes(first, second))
    scored = [(_residual(first, second, t), t) for t in candidates]
    residual, t = min(scored, key=lambda pair: pair[0])
    condition = float(np.linalg.cond(t))
    if residual <= tol and condition < 1 / np.finfo(float).eps:
        return Equivalence(True, t, condition, residual, difference, "A change of states takes one into the other.")
    return Equivalence(
        None, t, condition, residual, difference,
        f"Equal impulse responses, but no change of states was found that fits to {tol:.1g}: a system is not minimal, "
        f"or so nearly not that rounding hides the change.",
    )  # fmt: skip
