"""Balanced truncation of bilinear systems, with an estimate of the error and the error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._html import table
from .._linalg import EPS
from .._results import Result
from .._validate import Array, as_index
from . import _lyapunov

if TYPE_CHECKING:
    from ..gramians import Gramians
    from .low_rank import LowRankGramians
    from .system import BilinearSystem

__all__ = ["Truncation", "truncate"]


@dataclass(frozen=True, eq=False)
class Truncation(Result):
    r"""A bilinear system cut to fewer states.

    Parameters
    ----------
    system : BilinearSystem
        The system that is left, balanced.
    hankel_singular_values : ndarray [n]
        :math:`\sigma_k = \sqrt{\lambda_k(P Q)}` of the whole system, largest first.
    estimate : float
        :math:`2 \sqrt{\min(m, p)} \sum_{k > r} \sigma_k`, in the unit of the output: for linear systems a bound of
        ``error``; for bilinear ones an estimate from the singular values alone.
    error : float
        Root mean square of the difference of the outputs (summed over outputs) under white inputs of the given
        scale; exact, from the Gramian of the difference. Infinite where the cut system is not mean-square stable.
    size : float
        The same root mean square of the output of the whole system, without D.

    Examples
    --------
    >>> from solomonic.realization import gallery
    >>> cut = gallery.random_bilinear(4, radius=0.5, rng=0).balanced_truncation(2)
    >>> cut.system.order, cut.error < cut.estimate
    (2, True)
    """

    system: BilinearSystem
    hankel_singular_values: Array
    estimate: float
    error: float
    size: float

    def __repr__(self) -> str:
        return (
            f"Truncation(order={self.system.order} of {len(self.hankel_singular_values)}, "
            f"estimate={self.estimate:.2g}, "
            f"error={self.error:.2g}, size={self.size:.2g})"
        )

    def _repr_html_(self) -> str:
        rows = [
            (str(k + 1), f"{value:.3g}", "kept" if k < self.system.order else "cut")
            for k, value in enumerate(self.hankel_singular_values)
        ]
        return table(("state", "Hankel singular value", ""), rows, caption=repr(self))


def truncate(
    system: BilinearSystem, order: int, input_scale: Any, gramians: Gramians | LowRankGramians | None
) -> Truncation:
    """Square-root balanced truncation, for white inputs of the given scale."""
    scale = _lyapunov.scales(input_scale, system.inputs)
    gramians = system.gramians(input_scale=scale) if gramians is None else gramians
    if len(gramians.controllability_factor) != system.order:
        raise ValueError(f"gramians: expected those of a system of order {system.order}, got {gramians!r}")
    reach, see = gramians.controllability_factor, gramians.observability_factor
    u, s, vh = np.linalg.svd(see.T @ reach)
    # factors come from eigenvalues of P and Q, so singular values below sqrt(eps) of the largest have no digits
    most = int(np.sum(s > s[0] * len(s) * np.sqrt(EPS) * 1e-2)) if s.size and s[0] > 0 else 0
    order = as_index(order, "order", 0, system.order)
    if order > most:
        raise ValueError(
            f"order: expected at most {most}, the number of Hankel singular values above rounding, got {order}; take "
            f"minimal() to remove states that do nothing"
        )
    root = np.sqrt(s[:order])
    right, left = reach @ vh[:order].T / root, (see @ u[:, :order] / root).T
    cut = type(system)(left @ system.A @ right, left @ system.N @ right, left @ system.B, system.C @ right, system.D)
    error, size = _difference(system, cut, gramians.controllability_factor, scale)
    estimate = 2 * np.sqrt(min(system.inputs, system.outputs)) * float(s[order:].sum())
    return Truncation(cut, s, float(estimate), error, size)


def _difference(full: BilinearSystem, cut: BilinearSystem, reach: Array, scale: Array) -> tuple[float, float]:
    """Root mean squares, under white inputs, of the difference of the outputs and of the output itself.

    E |y - y_r|^2 = tr [C, -C_r] [[P, X], [X^T, P_r]] [C, -C_r]^T, and X solves the equation of both systems.
    """
    size = float(np.sum((full.C @ reach) ** 2))
    if cut.order == 0:
        return float(np.sqrt(size)), float(np.sqrt(size))
    if _lyapunov.radius(cut.letters, scale) >= 1 - 1e-12:
        return np.inf, float(np.sqrt(size))
    first, second = _lyapunov.scaled(full.letters, scale), _lyapunov.scaled(cut.letters, scale)
    b1, b2 = full.B * scale, cut.B * scale
    cross = _lyapunov.solve_cross(first, second, b1 @ b2.T)
    own = _lyapunov.solve(second, b2)
    square = size - 2 * float(np.trace(full.C @ cross @ cut.C.T)) + float(np.trace(cut.C @ own @ cut.C.T))
    return float(np.sqrt(max(square, 0.0))), float(np.sqrt(max(size, 0.0)))
