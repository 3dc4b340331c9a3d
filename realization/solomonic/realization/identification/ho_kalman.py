"""From an impulse response to a state: the algorithm of Ho and Kalman, balanced (ERA), for long responses too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._html import table
from .._linalg import EPS
from .._results import Result
from .._systems import Matrices, to_statespace
from .._validate import Array, as_array, as_index, as_number, frozen
from ._hankel import HankelOperator, leading_svd
from ._scan import linear_states

if TYPE_CHECKING:
    import control

__all__ = ["HoKalman", "ho_kalman"]


@dataclass(frozen=True, eq=False)
class HoKalman(Result):
    r"""A realization of an impulse response.

    Parameters
    ----------
    system : control.StateSpace
        The realization, discrete, balanced over the horizon.
    order : int
        State dimension n.
    singular_values : ndarray
        Those of the Hankel matrix that were computed, largest first.
    residual : float
        ``|H - H_n| / |H|`` over all Markov parameters given (Frobenius norms).
    rows, columns : int
        Block rows and columns of the Hankel matrix.
    """

    system: control.StateSpace
    order: int
    singular_values: Array
    residual: float
    rows: int
    columns: int

    def __repr__(self) -> str:
        return f"HoKalman(order={self.order}, residual={self.residual:.1e}, hankel={self.rows} x {self.columns} blocks)"

    def _repr_html_(self) -> str:
        rows = [[str(k + 1), f"{value:.4g}"] for k, value in enumerate(self.singular_values[: self.order + 5])]
        return table(["number", "singular value"], rows, caption=repr(self))


def gap_order(values: Array, largest: int, floor: float) -> int:
    """The order before the largest ratio of neighbouring singular values, those below the floor raised to it."""
    if values.size == 0 or values[0] <= floor:
        return 0
    padded = np.maximum(np.append(values, 0.0), floor)[: largest + 1]
    return int(np.argmax(padded[:-1] / padded[1:])) + 1


def ho_kalman(
    markov: Any,
    order: int | str = "gap",
    *,
    rows: int | None = None,
    dt: Any = True,
    max_order: int = 40,
    tol: float | None = None,
    rng: int | np.random.Generator | None = 0,
) -> HoKalman:
    r"""Realize an impulse response: A, B, C, D from Markov parameters (Ho-Kalman in balanced coordinates, or ERA).

    .. math:: H_0 = D,\quad H_k = C A^{k-1} B, \qquad
              \begin{pmatrix} H_1 & H_2 & \cdots \\ H_2 & H_3 & \\ \vdots & & \ddots \end{pmatrix}
              = U S V^T, \qquad A = S^{-1/2} U^T \mathcal H^{\uparrow} V S^{-1/2} .

    Parameters
    ----------
    markov : array_like [L, p, m] or [L]
        Markov parameters; the first is D.
    order : int or str
        State dimension, or "gap": before the largest ratio of neighbouring singular values.
    rows : int, optional
        Block rows of the Hankel matrix; L // 2 by default.
    dt : float or True
        Sampling period of the system.
    max_order : int
        Largest order that "gap" looks at.
    tol : float, optional
        Singular values up to ``tol`` times the largest count as zero; default ``eps`` times the larger dimension of
        the matrix, what rounding leaves.
    rng : int or numpy.random.Generator, optional
        Source of the random test vectors (used for large Hankel matrices only).

    Returns
    -------
    HoKalman
        ``.system``, ``.order``, ``.singular_values``, ``.residual``.

    Raises
    ------
    TypeError
        Not real numbers.
    ValueError
        Too few Markov parameters, NaN or infinite, or an order above the numerical rank of the Hankel matrix.

    Notes
    -----
    Up to 1.5 million entries the Hankel matrix is formed and decomposed; above, it is never formed: products go
    through FFTs and a randomised SVD with power iterations finds the leading part. With L Markov parameters and rank
    r that costs :math:`O(r\, p\, m\, L \log L)`; 100,000 take seconds. Applied to covariances
    :math:`\Lambda_k = E y_{t+k} y_t^T` it gives the realization :math:`(A, C, \bar C, \Lambda_0)` with
    :math:`\bar C = B^T` and :math:`\Lambda_0 = D`, from which :func:`faurre` starts.

    References
    ----------
    .. [1] B. L. Ho, R. E. Kalman, *Effective construction of linear state-variable models from input/output
       functions*, Regelungstechnik 14 (1966).
    .. [2] J.-N. Juang, R. S. Pappa, *An eigensystem realization algorithm for modal parameter identification and model
       reduction*, J. Guidance 8 (1985), equation 16.
    .. [3] N. Halko, P. G. Martinsson, J. A. Tropp, *Finding structure with randomness*, SIAM Review 53 (2011).

    Examples
    --------
    >>> found = ho_kalman([0.0, 1.0, 0.5, 0.25, 0.125, 0.0625])
    >>> found.order, found.system.A.round(9).tolist()
    (1, [[0.5]])
    """
    h = as_array(markov, "markov", ndim=(1, 3), real=True)
    h = h[:, None, None] if h.ndim == 1 else h
    length, p, m = h.shape
    if length < 3:
        raise ValueError(f"markov: expected at least 3 Markov parameters (D, C B, C A B), got {length}")
    rows = max(1, length // 2) if rows is None else as_index(rows, "rows", 1, length - 2)
    columns = length - 1 - rows
    if tol is not None:
        tol = as_number(tol, "tol", "a number from 0 to 1, relative", lambda x: 0 <= x < 1)
    hankel, shifted = HankelOperator(h[1:], rows, columns), HankelOperator(h[2:], rows, columns)
    most = min(hankel.shape)
    if isinstance(order, str):
        if order != "gap":
            raise ValueError(f"order: expected an integer or 'gap', got {order!r}")
        wanted = min(as_index(max_order, "max_order", 1, 10**6), most)
    else:
        wanted = as_index(order, "order", 1, 10**6)
        if wanted > most:
            raise ValueError(
                f"order: expected at most {most}, the rank that a Hankel matrix of {rows} x {columns} blocks can have, "
                f"got {wanted}; give more Markov parameters"
            )
    u, s, v = leading_svd(hankel, wanted, np.random.default_rng(rng))
    floor = s[0] * (EPS * max(hankel.shape) if tol is None else tol)
    n = gap_order(s, wanted, floor) if isinstance(order, str) else wanted
    rank = int(np.sum(s > floor))
    if n > rank:
        raise ValueError(
            f"order: expected at most {rank}, the numerical rank of the Hankel matrix, got {n}; its singular values "
            f"are {np.array2string(s[: n + 1], precision=2)}"
        )
    root = np.sqrt(s[:n])
    left, right = u[:, :n] / root, v[:, :n] / root
    a = left.T @ shifted.product(right)
    b = (v[:m, :n] * root).T if n else np.zeros((0, m))
    c = u[:p, :n] * root
    rest = h[1:] - _impulse_response(a, b, c, length - 1)
    size = float(np.linalg.norm(h[1:]))
    residual = float(np.linalg.norm(rest)) / size if size else 0.0
    return HoKalman(to_statespace(Matrices(a, b, c, h[0], dt)), n, frozen(s), residual, rows, columns)


def _impulse_response(a: Array, b: Array, c: Array, length: int) -> Array:
    """Blocks C A^k B, k < length, as [length, p, m]."""
    if length == 0:
        return np.zeros((0, c.shape[0], b.shape[1]))
    states = linear_states(a, np.zeros((length - 1, b.shape[1], len(a))), b.T) if length > 1 else b.T[None]
    return (states @ c.T).transpose(0, 2, 1)
