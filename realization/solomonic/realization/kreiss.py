"""The Kreiss constant: how large powers of a stable matrix get before they fade."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from ._linalg import EPS, norm2, schur, smallest_singular_value
from ._results import Result
from ._validate import Array, as_index, as_number, as_scaled_square

__all__ = ["KreissConstant", "kreiss_constant"]


@dataclass(frozen=True)
class KreissConstant(Result):
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
        Eigenvalue problems spent on the upper bound.
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


def kreiss_constant(A: Any, *, tol: float = 0.05, max_evaluations: int = 1000) -> KreissConstant:
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
        Stop after so many eigenvalue problems, whatever the bracket.

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
    The lower bound is the best ratio a simplex search finds. The upper bound gamma is proved arc by arc: with
    :math:`\delta` half the arc, :math:`\sigma_{\min}(r e^{i\theta} I - A) > r\delta + (r - 1)/\gamma` for all
    :math:`r \ge 1` on the middle ray implies K <= gamma on the whole arc (singular values are 1-Lipschitz),
    and the radii where equality holds are eigenvalues of a matrix of order 2n: there must be none that is
    real and at least 1. Arcs that fail are halved. Cost: one eigenvalue problem of order 2n an arc.

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
    a = as_scaled_square(A, "A")
    tol = as_number(tol, "tol", "a number above 0", lambda x: x > 0)
    budget = as_index(max_evaluations, "max_evaluations", 1, 10**9)
    n, norm = len(a), norm2(a)
    t, _ = schur(a.astype(complex))
    moduli = np.abs(np.diag(t))
    if moduli.max() >= 1:
        return KreissConstant(np.inf, np.inf, complex(np.diag(t)[np.argmax(moduli)]), n, 0)
    if norm <= 1:
        return KreissConstant(1.0, 1.0, complex(np.inf), n, 0)
    lower, point = _search(t, norm)
    half_turn = np.pi if np.isrealobj(a) else 2 * np.pi
    upper, used = float(np.inf), 0
    factors = [*(f for f in (16.0, 4.0, 1.5) if f > 1 + tol), 1 + tol]
    for factor in factors:
        proved, spent = _prove(t, norm, lower * factor, half_turn, budget - used)
        used += spent
        if not proved:
            break
        upper = lower * factor
    return KreissConstant(lower, upper, point, n, used)


def _search(t: Array, norm: float) -> tuple[float, complex]:
    """Best ratio found: a grid, then a simplex search from its best three points. At infinity the ratio is 1."""
    n = len(t)
    eye = np.eye(n)

    def ratio(x: Array) -> float:
        r = 1 + np.exp(min(x[0], 50.0))
        z = r * np.exp(1j * x[1])
        sigma = smallest_singular_value(t - z * eye) + n * EPS * (norm + r)
        return float((r - 1) / sigma)

    starts = [
        (ratio(np.array([u, a])), u, a)
        for u in np.log(np.geomspace(1e-3, 10 * norm, 8))
        for a in np.concatenate([np.angle(np.diag(t)), np.linspace(0, 2 * np.pi, 8, endpoint=False)])[:40]
    ]
    best, point = 1.0, complex(np.inf)
    for _, u, angle in sorted(starts, reverse=True)[:3]:
        found = minimize(lambda x: -ratio(x), [u, angle], method="Nelder-Mead", options={"maxiter": 120})
        if -found.fun > best:
            best = float(-found.fun)
            point = complex((1 + np.exp(min(found.x[0], 50.0))) * np.exp(1j * found.x[1]))
    return best, point


def _prove(t: Array, norm: float, gamma: float, half_turn: float, budget: int) -> tuple[bool, int]:
    """Try to prove K <= gamma by arcs; return whether it was proved, and the arcs spent."""
    width = half_turn / 16
    arcs = [((k + 0.5) * width, width / 2) for k in range(16)]
    spent = 0
    while arcs:
        if spent >= budget:
            return False, spent
        angle, half = arcs.pop()
        spent += 1
        if not _clear(t, norm, angle, half, gamma):
            arcs += [(angle - half / 2, half / 2), (angle + half / 2, half / 2)]
    return True, spent


def _clear(t: Array, norm: float, angle: float, half: float, gamma: float) -> bool:
    """Whether sigma_min(r e^(i angle) I - T) > r half + (r - 1) / gamma for every r >= 1."""
    n = len(t)
    eye = np.eye(n)
    turn, slope, offset = np.exp(1j * angle), half + 1 / gamma, 1 / gamma
    if slope >= 1 or smallest_singular_value(t - turn * eye) <= half + n * EPS * (norm + 1):
        return False
    constant = np.block([[offset * eye, -t], [-t.conj().T, offset * eye]])
    inverse = np.kron(np.array([[-slope, -turn], [-np.conj(turn), -slope]]) / (slope**2 - 1), eye)
    radii = np.linalg.eigvals(-inverse @ constant)
    real = np.abs(np.imag(radii)) <= 1e-7 * (1 + np.abs(radii))
    return not bool(np.any(real & (np.real(radii) >= 1 - 1e-7)))
