"""The Kreiss constant: how large powers of a stable matrix get before they fade."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ._linalg import EPS, norm2, schur, smallest_singular_value
from ._validate import as_index, as_number, as_square

__all__ = ["KreissConstant", "kreiss_constant"]


@dataclass(frozen=True)
class KreissConstant:
    r"""A bracket of the Kreiss constant, and what it says of transients.

    Parameters
    ----------
    lower, upper : float
        Rigorous bounds of K; both infinite for a spectral radius of 1 or more, where K need not be finite.
    point : complex
        Where the lower bound is attained (infinite where it is the limit at infinity, K = 1).
    order : int
        n.
    evaluations : int
        Singular value decompositions spent.
    """

    lower: float
    upper: float
    point: complex
    order: int
    evaluations: int

    @property
    def transient(self) -> tuple[float, float]:
        r"""Bounds of :math:`\max_k \|A^k\|_2`: at least K, at most e n K (Kreiss matrix theorem)."""
        return self.lower, float(np.e * self.order * self.upper)

    def __repr__(self) -> str:
        return f"KreissConstant([{self.lower:.4g}, {self.upper:.4g}], order={self.order})"


def kreiss_constant(A: Any, *, tol: float = 0.05, max_evaluations: int = 2000) -> KreissConstant:
    r"""Bracket the Kreiss constant of a matrix in discrete time.

    .. math:: K(A) = \sup_{|z| > 1} \frac{|z| - 1}{\sigma_{\min}(zI - A)}, \qquad
              K \le \sup_k \|A^k\|_2 \le e\, n\, K.

    Parameters
    ----------
    A : array_like [n, n] or torch.Tensor
        The matrix.
    tol : float
        Stop when upper / lower is at most 1 + tol.
    max_evaluations : int
        Stop after so many singular value decompositions, whatever the bracket.

    Returns
    -------
    KreissConstant
        ``.lower``, ``.upper``, ``.point`` and ``.transient``.

    Raises
    ------
    TypeError
        A is not an array of numbers.
    ValueError
        A is empty, not square, NaN or infinite.

    Notes
    -----
    Branch and bound in polar cells: :math:`\sigma_{\min}` is 1-Lipschitz, so a cell of half-diagonal h around
    z has ratios of at most :math:`(|z| - 1 + h) / (\sigma_{\min}(z) - h)`. Far out, :math:`|z| \ge R`, the
    ratio is at most :math:`(R - 1)/(R - \|A\|)`. Rounding of the singular values is counted. Cost:
    :math:`O(n^3)` an evaluation.

    References
    ----------
    .. [1] L. N. Trefethen, M. Embree, *Spectra and Pseudospectra*, Princeton 2005, section 18.

    Examples
    --------
    >>> import numpy as np
    >>> kreiss_constant(np.diag([0.9, 0.3])).upper < 1.06
    True
    >>> bracket = kreiss_constant(np.array([[0.5, 10.0], [0.0, 0.5]]))
    >>> bracket.lower <= 5.1 <= bracket.upper * 1.05
    True
    """
    a = as_square(A, "A")
    tol = as_number(tol, "tol", "a number above 0", lambda x: x > 0)
    budget = as_index(max_evaluations, "max_evaluations", 1, 10**9)
    n, norm = len(a), norm2(a)
    t, _ = schur(a.astype(complex))
    radius = float(np.abs(np.diag(t)).max())
    if radius >= 1:
        return KreissConstant(np.inf, np.inf, complex(np.diag(t)[np.argmax(np.abs(np.diag(t)))]), n, 0)
    outer = max(2.0, norm + (norm - 1) / (tol / 2)) if norm > 1 else 1.0
    lower, point, used = 1.0, complex(np.inf), 0
    if outer == 1.0:
        return KreissConstant(1.0, 1.0, point, n, 0)
    rest = (outer - 1) / (outer - norm)
    half_turn = np.pi if np.isrealobj(a) else 2 * np.pi
    cells: list[tuple[float, int, tuple[float, float, float, float]]] = []
    counter = 0

    def add(r0: float, r1: float, a0: float, a1: float) -> None:
        """Bound one cell in log radius and angle, and keep it where it may hold the supremum."""
        nonlocal lower, point, used, counter
        r = np.exp((r0 + r1) / 2)
        z = r * np.exp(1j * (a0 + a1) / 2)
        low, high = np.exp(r0), np.exp(r1)
        h = max(high - r, r - low) + high * (a1 - a0) / 2
        sigma = smallest_singular_value(t - z * np.eye(n))
        slack = n * EPS * (norm + r)
        used += 1
        if (value := (r - 1) / (sigma + slack)) > lower:
            lower, point = float(value), complex(z)
        gap = sigma - slack - h
        bound = min((high - 1) / gap if gap > 0 else np.inf, (high - 1) / (low - norm) if low > norm else np.inf)
        if bound > lower * (1 + tol / 2):
            counter += 1
            heapq.heappush(cells, (-bound, counter, (r0, r1, a0, a1)))

    rings = np.log(1 + np.concatenate([[0], np.geomspace(min(0.01, outer - 1), outer - 1, 6)]))
    for r0, r1 in pairwise(rings):
        for k in range(8):
            add(r0, r1, half_turn * k / 8, half_turn * (k + 1) / 8)
    while cells and used < budget:
        bound, _, (r0, r1, a0, a1) = heapq.heappop(cells)
        if -bound <= lower * (1 + tol):
            heapq.heappush(cells, (bound, 0, (r0, r1, a0, a1)))
            break
        if (r1 - r0) >= (a1 - a0):
            middle = (r0 + r1) / 2
            halves = ((r0, middle, a0, a1), (middle, r1, a0, a1))
        else:
            middle = (a0 + a1) / 2
            halves = ((r0, r1, a0, middle), (r0, r1, middle, a1))
        for half in halves:
            add(*half)
    pending = -cells[0][0] if cells else 0.0
    upper = max(pending, rest, lower * (1 + tol / 2))
    return KreissConstant(lower, float(upper), point, n, used)
