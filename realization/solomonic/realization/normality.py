"""How far a matrix is from normal: the numerical radius and Henrici's departure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.linalg

from ._linalg import EPS, schur
from ._results import Result
from ._validate import Array, as_number, as_scaled_square

__all__ = ["NumericalRadius", "departure_from_normality", "numerical_radius"]


@dataclass(frozen=True)
class NumericalRadius(Result):
    """A bracket of the numerical radius.

    Parameters
    ----------
    lower, upper : float
        Rigorous bounds, in the unit of A.
    angle : float
        Direction of the point of largest modulus found, in radians.
    """

    lower: float
    upper: float
    angle: float

    def __repr__(self) -> str:
        return f"NumericalRadius([{self.lower:.6g}, {self.upper:.6g}])"


def _support(a: Array, angle: float) -> float:
    """Largest eigenvalue of the Hermitian part of e^(-i angle) A: the support of the numerical range there."""
    turned = np.exp(-1j * angle) * a
    hermitian = (turned + turned.conj().T) / 2
    return float(scipy.linalg.eigvalsh(hermitian, subset_by_index=(len(a) - 1, len(a) - 1))[0])


def numerical_radius(A: Any, *, tol: float = 1e-6) -> NumericalRadius:
    r"""Bracket the numerical radius, the largest modulus of a Rayleigh quotient.

    .. math:: r(A) = \max_{\|x\| = 1} |x^* A x| = \max_\theta \lambda_{\max}
              \left( \tfrac12 (e^{-i\theta} A + e^{i\theta} A^*) \right).

    Parameters
    ----------
    A : array_like [n, n] or torch.Tensor
        The matrix.
    tol : float
        Stop when upper / lower is at most 1 + tol.

    Returns
    -------
    NumericalRadius
        ``.lower``, ``.upper``, ``.angle``.

    Raises
    ------
    TypeError
        A is not an array of numbers.
    ValueError
        A is empty, not square, NaN or infinite.

    Notes
    -----
    Every direction gives a lower bound; between two directions an angle d apart the numerical range lies
    below the corner of the two tangents, so the largest support over an arc is at most max(h_1, h_2) / cos(d
    / 2). Arcs are halved until that agrees with the lower bound. ``|A| / 2 <= r(A) <= |A|``, and powers obey
    :math:`\|A^k\| \le 2 r(A)^k`. Cost: :math:`O(n^3)` a direction.

    References
    ----------
    .. [1] C. R. Johnson, *Numerical determination of the field of values of a general complex matrix*, SIAM
       J. Numer. Anal. 15 (1978).

    Examples
    --------
    >>> import numpy as np
    >>> numerical_radius(np.eye(3, k=1))
    NumericalRadius([0.707107, 0.707107])
    """
    a = as_scaled_square(A, "A")
    tol = as_number(tol, "tol", "a number above 0", lambda x: x > 0)
    turn = np.pi if np.isrealobj(a) else 2 * np.pi
    edges = np.linspace(0, turn, 17)
    arcs = [(x, y, _support(a, x), _support(a, y)) for x, y in pairwise(edges)]
    best = max(((h, x) for x, _, h, _ in arcs), default=(0.0, 0.0))
    best = max(best, (arcs[-1][3], arcs[-1][1]))
    slack = len(a) * EPS * float(np.linalg.norm(a))
    while True:
        open_arcs = []
        for x, y, hx, hy in arcs:
            if max(hx, hy) / np.cos((y - x) / 2) > best[0] * (1 + tol) and y - x > 1e-9:
                open_arcs.append((x, y, hx, hy))
        if not open_arcs:
            break
        arcs = []
        for x, y, hx, hy in open_arcs:
            middle = (x + y) / 2
            h = _support(a, middle)
            best = max(best, (h, middle))
            arcs += [(x, middle, hx, h), (middle, y, h, hy)]
    return NumericalRadius(max(best[0] - slack, 0.0), best[0] * (1 + tol) + slack, float(best[1]))


def departure_from_normality(A: Any) -> float:
    r"""Return Henrici's departure from normality, in the Frobenius norm.

    .. math:: \Delta(A) = \Bigl( \|A\|_F^2 - \sum_i |\lambda_i|^2 \Bigr)^{1/2}
              = \|\text{strict upper triangle of the complex Schur form}\|_F.

    Parameters
    ----------
    A : array_like [n, n] or torch.Tensor
        The matrix.

    Returns
    -------
    float
        0 for a normal matrix (within rounding, ``n eps |A|``), in the unit of A.

    Raises
    ------
    TypeError
        A is not an array of numbers.
    ValueError
        A is empty, not square, NaN or infinite.

    Notes
    -----
    Taken from the triangle, so no digits cancel as they would in the difference of squares. It inherits the
    conditioning of the eigenvalues: a rotated Jordan block of order 9 has computed eigenvalues of modulus 0.02,
    and the departure comes out smaller by their squares, in the fourth digit. Cost: one Schur form.

    References
    ----------
    .. [1] P. Henrici, *Bounds for iterates, inverses, spectral variation and fields of values of non-normal
       matrices*, Numer. Math. 4 (1962).

    Examples
    --------
    >>> import numpy as np
    >>> float(departure_from_normality(np.eye(5, k=1))), float(departure_from_normality(np.eye(5)))
    (2.0, 0.0)
    """
    t, _ = schur(as_scaled_square(A, "A").astype(complex))
    return float(np.linalg.norm(np.triu(t, 1)))
