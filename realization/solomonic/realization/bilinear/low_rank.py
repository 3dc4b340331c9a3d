r"""Gramians of large bilinear systems as products of thin factors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._html import table
from .._linalg import triangle
from .._results import Result
from .._validate import Array, as_index, as_number
from . import _lyapunov

if TYPE_CHECKING:
    from .system import BilinearSystem

__all__ = ["LowRankGramians", "low_rank_gramians"]


@dataclass(frozen=True, eq=False)
class LowRankGramians(Result):
    """Gramians P = L L^T and Q = M M^T by thin factors.

    Parameters
    ----------
    controllability_factor : ndarray [n, r]
        L.
    observability_factor : ndarray [n, s]
        M.
    residuals : tuple of float
        Frobenius norms of what the two equations leave, relative to their right-hand sides B B^T and C^T C.
    iterations : tuple of int
        Steps of the fixed point.

    Examples
    --------
    >>> from solomonic.realization import BilinearSystem
    >>> thin = low_rank_gramians(BilinearSystem([[0.5]], [[[0.0]]], [[1.0]], [[1.0]]))
    >>> thin.hankel_singular_values.round(6)
    array([1.333333])
    """

    controllability_factor: Array
    observability_factor: Array
    residuals: tuple[float, float]
    iterations: tuple[int, int]

    @property
    def hankel_singular_values(self) -> Array:
        """Square roots of the eigenvalues of P Q, largest first, as many as the thinner factor has columns."""
        return np.linalg.svd(self.observability_factor.T @ self.controllability_factor, compute_uv=False)

    def __repr__(self) -> str:
        n, r = self.controllability_factor.shape
        s = self.observability_factor.shape[1]
        return f"LowRankGramians(order={n}, ranks=({r}, {s}), residual={max(self.residuals):.1e})"

    def _repr_html_(self) -> str:
        factors = (self.controllability_factor, self.observability_factor)
        rows = [
            (name, str(factor.shape[1]), f"{residual:.1e}", str(steps))
            for name, factor, residual, steps in zip("PQ", factors, self.residuals, self.iterations, strict=True)
        ]
        return table(("Gramian", "rank", "residual", "steps"), rows, caption=repr(self))


def low_rank_gramians(
    system: BilinearSystem,
    *,
    input_scale: Any = 1.0,
    tol: float = 1e-10,
    rank: int | None = None,
    iterations: int = 1000,
) -> LowRankGramians:
    r"""Compute both Gramians of a large bilinear system as products of thin factors.

    .. math:: L_{k+1} L_{k+1}^T \approx [A L_k,\ N_1 L_k,\ \dots,\ N_m L_k,\ B]\,[\,\cdot\,]^T, \qquad
              P = \lim_k L_k L_k^T = A P A^T + \sum_j N_j P N_j^T + B B^T .

    Parameters
    ----------
    system : BilinearSystem
        The system, of order n.
    input_scale : float or array_like [m]
        Standard deviations s of the inputs: N_j and column j of B are multiplied by s_j.
    tol : float
        Residual, relative to the norm of the right-hand side, at which the fixed point stops. Singular values of L
        whose squares together are below it are cut at every step.
    rank : int, optional
        Most columns of a factor; as many as ``tol`` asks for by default. The residual says what it costs.
    iterations : int
        Most steps.

    Returns
    -------
    LowRankGramians
        Both factors, with their residuals.

    Raises
    ------
    ValueError
        The fixed point grows, so the system is not mean-square stable at this scale of the input, or it does not reach
        the tolerance in so many steps (with the residual that it got, and why).

    Notes
    -----
    Nothing of size :math:`n^2` is made. A step costs :math:`(m + 1) n^2 r` operations for the products and
    :math:`n r^2 (m + 2)^2` for the compression, and the error falls by the mean-square radius. What is cut never makes
    P larger: the factors give a lower bound of P in the order of matrices, up to rounding. The residual is exact: the
    norm of a difference of products of thin factors, from one QR decomposition.

    References
    ----------
    .. [1] P. Benner, T. Breiten, *Low rank methods for a class of generalized Lyapunov equations and related issues*,
       Numer. Math. 124 (2013) 441.
    .. [2] S. D. Shank, V. Simoncini, D. B. Szyld, *Efficient low-rank solution of generalized Lyapunov equations*,
       Numer. Math. 134 (2016) 327.

    Examples
    --------
    >>> import numpy as np
    >>> from solomonic.realization import gallery
    >>> system = gallery.random_bilinear(12, radius=0.5, rng=0)
    >>> thin, whole = low_rank_gramians(system), system.gramians()
    >>> L = thin.controllability_factor
    >>> bool(np.abs(L @ L.T - whole.controllability).max() < 1e-8 * np.abs(whole.controllability).max())
    True
    """
    from .system import BilinearSystem

    if not isinstance(system, BilinearSystem):
        raise TypeError(f"system: expected a BilinearSystem, got {type(system).__name__}")
    scale = _lyapunov.scales(input_scale, system.inputs)
    tol = as_number(tol, "tol", "a number from 1e-14 to 0.1", lambda x: 1e-14 <= x <= 0.1)
    most = None if rank is None else as_index(rank, "rank", 1, system.order)
    iterations = as_index(iterations, "iterations", 1, 10**6)
    letters = _lyapunov.scaled(system.letters, scale)
    reach = _fixed_point(letters, system.B * scale, tol, most, iterations)
    see = _fixed_point(letters.transpose(0, 2, 1), system.C.T, tol, most, iterations)
    return LowRankGramians(reach[0], see[0], (reach[1], see[1]), (reach[2], see[2]))


def _compress(columns: Array, tol: float, most: int | None) -> Array:
    """A factor of the same product with fewer columns, up to a part of its trace."""
    q, r = np.linalg.qr(columns)
    u, s, _ = np.linalg.svd(r, full_matrices=False)
    tail = np.cumsum(s[::-1] ** 2)[::-1]  # trace of what is cut, if columns from here on are
    keep = int(np.sum(tail > tol * tail[0])) if tail.size and tail[0] > 0 else 0
    keep = keep if most is None else min(keep, most)
    return (q @ u[:, :keep]) * s[:keep]


def _residual(letters: Array, factor: Array, moved: Array, b: Array, right: float) -> float:
    """Frobenius norm of M M^T + B B^T - L L^T with M = [M_0 L, M_1 L, ..], relative to ``right``."""
    r = triangle(np.hstack([moved, b, factor]))
    signs = np.r_[np.ones(moved.shape[1] + b.shape[1]), -np.ones(factor.shape[1])]
    return float(np.linalg.norm((r * signs) @ r.T)) / right


def _fixed_point(letters: Array, b: Array, tol: float, most: int | None, iterations: int) -> tuple[Array, float, int]:
    """L, the relative residual and the number of steps."""
    right = float(np.linalg.norm(b.T @ b))
    if right == 0 or letters.shape[1] == 0:
        return np.zeros((len(b), 0)), 0.0, 0
    factor = _compress(b, 0.0, most)
    # what is cut at a step comes back multiplied by 1 / (1 - rate) in the end: cut well below the tolerance
    cut, traces, residual = tol * 1e-2, [float(np.sum(factor**2))], np.inf
    history: list[float] = []
    for step in range(1, iterations + 1):
        moved = np.hstack(list(letters @ factor))
        residual = _residual(letters, factor, moved, b, right)
        history.append(residual)
        if residual <= tol:
            return factor, residual, step - 1
        if most is not None and step > 20 and residual > 0.999 * min(history[-20:-1]):
            return factor, residual, step - 1  # the rank that was allowed holds no more
        factor = _compress(np.hstack([moved, b]), cut, most)
        traces.append(float(np.sum(factor**2)))
        if not np.isfinite(traces[-1]) or traces[-1] > 1e12 * traces[0]:
            break
    rate = (history[-1] / history[-min(10, len(history))]) ** (1 / max(1, min(10, len(history)) - 1))
    if rate >= 1 - 1e-6 and residual > 1e-6:
        raise ValueError(
            f"input_scale: expected inputs under which the system is mean-square stable, got a fixed point whose "
            f"residual grows by {rate:.4g} a step (after {len(history)} steps: {residual:.2g}); make the inputs smaller"
        )
    raise ValueError(
        f"iterations: the residual fell to {residual:.2g} in {len(history)} steps, by {rate:.4g} a step, expected "
        f"{tol:.2g}; allow more steps, or a larger tol"
    )
