"""The input-dependent companion form: B'MOJO's state as a system that holds registers and fading modes at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._validate import Array, as_array, as_index, describe
from .time_varying import TimeVaryingSystem

__all__ = ["CompanionSystem", "companion_from_diagonal"]


@dataclass(frozen=True, eq=False)
class CompanionSystem:
    r"""A system of N stacked blocks that shift, the newest being fed back from all of them by input-dependent gains.

    .. math:: A(u) = \begin{pmatrix} 0 & I & & \\ & \ddots & \ddots & \\ & & 0 & I \\ a_1(u) & a_2(u) & \cdots & a_N(u)
              \end{pmatrix}, \qquad b(u) = (0, \dots, 0, B(u)).

    .. math:: x_t = A(u_t) x_{t-1} + b(u_t) u_t, \qquad y_t = C(u_t) x_t + D u_t.

    Parameters
    ----------
    coefficients : callable or array_like [N] or [N, d, d]
        ``a(u)``, u of shape [m], returning the last block row: [N] (each a multiple of the identity) or [N, d, d]; or
        constants. Entry 0 belongs to the oldest block.
    input_map : callable or array_like [d, m]
        B(u), what a token writes into the newest block.
    readout : callable or array_like [p, N d]
        C(u).
    feedthrough : array_like [p, m], optional
        D; zero by default.

    Notes
    -----
    Two limits. ``a = 0``: A(u) is the block shift, nilpotent of index N whatever the input: a window of N tokens, as
    attention has. Constant a_j that are minus the coefficients of the characteristic polynomial of a diagonal system:
    its input-output map (:func:`companion_from_diagonal`). In between both memories are there at once: with the
    first r coefficients zero, the characteristic polynomial is z^r p(z), and the Fitting split of A has a register of
    length r beside a fading part with the roots of p.

    References
    ----------
    .. [1] L. Zancato et al., *B'MOJO: Hybrid state space realizations of foundation models with eidetic and fading
       memory*, NeurIPS 2024, eq. 5 and appendix C.3.

    Examples
    --------
    >>> import numpy as np
    >>> window = CompanionSystem(np.zeros(3), np.eye(1), np.ones((1, 3)))
    >>> window.simulate(np.array([[1.0], [0], [0], [0]])).ravel()
    array([1., 1., 1., 0.])
    """

    coefficients: Callable[[Array], Any] | Any
    input_map: Callable[[Array], Any] | Any
    readout: Callable[[Array], Any] | Any
    feedthrough: Any = None

    def __repr__(self) -> str:
        kind = "input-dependent" if callable(self.coefficients) else "constant"
        return f"CompanionSystem({kind} last row)"

    def _at(self, name: str, u: Array, ndim: int | tuple[int, ...]) -> Array:
        value = getattr(self, name)
        return as_array(value(u) if callable(value) else value, name, ndim=ndim)

    def matrices(self, u: Any) -> tuple[Array, Array, Array]:
        """Return A(u) [n, n], b(u) [n, m] and C(u) [p, n] at one input.

        Parameters
        ----------
        u : array_like [m]
            The input of this step.

        Returns
        -------
        tuple of ndarray
            n = N d.
        """
        u = as_array(u, "u", ndim=1)
        b = self._at("input_map", u, 2)
        d = len(b)
        row = self._at("coefficients", u, (1, 3))
        if b.shape[1] != len(u):
            raise ValueError(f"input_map: expected shape [d, {len(u)}], got {list(b.shape)}")
        if row.ndim == 3 and row.shape[1:] != (d, d):
            raise ValueError(f"coefficients: expected shape [N] or [N, {d}, {d}], got {list(row.shape)}")
        blocks = row[:, None, None] * np.eye(d) if row.ndim == 1 else row
        n = len(blocks) * d
        c = self._at("readout", u, 2)
        if c.shape[1] != n:
            raise ValueError(f"readout: expected shape [p, {n}], got {list(c.shape)}")
        a = np.eye(n, k=d, dtype=row.dtype)
        a[n - d :] = np.hstack(list(blocks))
        full = np.zeros((n, len(u)), b.dtype)
        full[n - d :] = b
        return a, full, c

    def realize(self, u: Any) -> TimeVaryingSystem:
        """Return the linear time-varying system that this one is along an input sequence.

        Parameters
        ----------
        u : array_like [T, m]
            The inputs that set the gains.

        Returns
        -------
        TimeVaryingSystem
            Dense, of order N d, T steps.
        """
        u = as_array(u, "u", ndim=2)
        a, b, c = (np.array(x) for x in zip(*(self.matrices(row) for row in u), strict=True))
        d = None
        if self.feedthrough is not None:
            feed = as_array(self.feedthrough, "feedthrough", shape=(c.shape[1], b.shape[2]))
            d = np.repeat(feed[None], len(u), 0)
        return TimeVaryingSystem(a, b, c, d)

    def simulate(self, u: Any, x0: Any = None) -> Array:
        """Return the outputs under an input that both drives the system and sets its gains.

        Parameters
        ----------
        u : array_like [T, m]
            The input.
        x0 : array_like [n], optional
            State before the first step.

        Returns
        -------
        ndarray [T, p]
            The outputs.
        """
        return self.realize(u).simulate(u, x0)


def companion_from_diagonal(poles: Any, b: Any, c: Any, *, blocks: int | None = None) -> CompanionSystem:
    r"""Return the companion system with the input-output map of a diagonal one.

    .. math:: x_t = \Lambda x_{t-1} + b u_t,\ y_t = c^T x_t \quad\Longleftrightarrow\quad
              W(z) = \sum_k c_k b_k \frac{z}{z - \lambda_k}
              = \frac{\sum_j \beta_j z^{j+1}}{\alpha_0 + \dots + \alpha_{n-1} z^{n-1} + z^n}.

    Parameters
    ----------
    poles : array_like [n]
        :math:`\lambda_k`; complex ones in conjugate pairs give a real system.
    b, c : array_like [n]
        Input and output weights of the modes.
    blocks : int, optional
        N >= n registers; the first N - n coefficients are zero, which adds a register of that length.

    Returns
    -------
    CompanionSystem
        Scalar blocks, last row (0, .., 0, -alpha_0, .., -alpha_{n-1}), read-out beta.

    Raises
    ------
    ValueError
        Lengths that differ, or fewer blocks than poles.

    Notes
    -----
    Coefficients of a polynomial are an ill-conditioned function of its roots: relative errors grow as
    :math:`\prod_{j \ne k} |\lambda_k - \lambda_j|^{-1}`. The states differ, the outputs agree.

    References
    ----------
    .. [1] L. Zancato et al., *B'MOJO*, NeurIPS 2024, appendix C.3.

    Examples
    --------
    >>> import numpy as np
    >>> system = companion_from_diagonal([0.5, 0.25], [1.0, 1.0], [1.0, 2.0])
    >>> system.simulate(np.eye(4)[:, :1]).ravel()
    array([3.     , 1.     , 0.375  , 0.15625])
    """
    poles = as_array(poles, "poles", ndim=1)
    n = len(poles)
    weight = as_array(b, "b", shape=(n,)) * as_array(c, "c", shape=(n,))
    blocks = n if blocks is None else as_index(blocks, "blocks", n, 10**6)
    alpha = np.poly(poles)[::-1]
    beta = sum(weight[k] * np.poly(np.delete(poles, k))[::-1] for k in range(n))
    parts = [np.asarray(alpha), np.asarray(beta)]
    for part, name in zip(parts, ("poles", "c"), strict=True):
        if np.iscomplexobj(part) and np.abs(np.imag(part)).max() <= 1e-10 * np.abs(part).max():
            continue
        if np.iscomplexobj(part):
            raise ValueError(f"{name}: expected conjugate pairs (a real system), got {describe(part)}")
    alpha, beta = (np.real(part) for part in parts)
    pad = blocks - n
    row = np.concatenate([np.zeros(pad), -alpha[:n]])
    return CompanionSystem(row, np.ones((1, 1)), np.concatenate([np.zeros(pad), beta])[None])
