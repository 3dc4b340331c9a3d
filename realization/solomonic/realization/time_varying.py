"""Linear time-varying systems: what every mixer is once its gates are computed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ._linalg import triangle
from ._results import Result
from ._validate import Array, as_array, as_index, as_number, frozen, to_numpy

__all__ = ["CutGramians", "TimeVaryingSystem"]


@dataclass(frozen=True, eq=False)
class CutGramians(Result):
    r"""The Gramians at a cut of a time-varying system.

    Parameters
    ----------
    controllability : ndarray [n, n]
        :math:`W_c`, what the inputs ``start .. cut-1`` can do to the state :math:`x_{cut-1}`.
    observability : ndarray [n, n]
        :math:`W_o`, what the outputs ``cut .. stop-1`` see of that state.
    start, cut, stop : int
        The interval of inputs ``[start, cut)`` and of outputs ``[cut, stop)``, in steps.
    """

    controllability: Array
    observability: Array
    start: int
    cut: int
    stop: int

    def __repr__(self) -> str:
        past, future = f"{self.start}..{self.cut - 1}", f"{self.cut}..{self.stop - 1}"
        return f"CutGramians(order={len(self.controllability)}, inputs={past}, outputs={future})"


@dataclass(frozen=True, eq=False)
class TimeVaryingSystem:
    r"""A linear time-varying system: the state takes the current input, then is read out.

    .. math:: x_t = A_t x_{t-1} + B_t u_t, \qquad y_t = C_t x_t + D_t u_t, \qquad t = 0, \dots, T-1.

    The state before the first step is :math:`x_{-1}` (``x0``). A *cut* ``i`` separates the past
    ``0 .. i-1`` from the future ``i .. T-1``; the state at the cut is :math:`x_{i-1}`.

    Parameters
    ----------
    A : array_like [T, n, n] or [T, n], or None
        Dense transitions, or the diagonals of diagonal ones. None where ``log_decay`` is given.
    B : array_like [T, n, m]
        Input maps.
    C : array_like [T, p, n]
        Read-outs.
    D : array_like [T, p, m], optional
        Feed-through; None stands for zero.
    log_decay : array_like [T, n], optional
        :math:`\log A_t` of diagonal, positive transitions, in place of ``A`` (natural logarithm, no unit);
        minus infinity is a reset.

    Raises
    ------
    TypeError
        Not arrays of numbers, or both or none of ``A`` and ``log_decay``.
    ValueError
        Shapes that do not fit, NaN, infinite, or empty.

    Notes
    -----
    Arrays may be real or complex, and torch tensors are converted (detached, on the CPU). For diagonal
    systems every product of transitions is the exponential of a sum of logarithms, so that a long product
    neither underflows on the way nor loses the signs or phases of its factors. All cuts together cost
    :math:`O(T n^3)` by square-root (QR) recursions: no Gramian is formed, so singular values are accurate to
    rounding relative to the largest.

    References
    ----------
    .. [1] A.-J. van der Veen, P. Dewilde, *Time-varying system theory for computational networks*, 1991:
       the rank of the Hankel operator at a cut is the least state dimension there.
    .. [2] R. Parnichkun et al., *Quantifying memory utilization with effective state-size*,
       arXiv:2504.19561, 2025.

    Examples
    --------
    >>> import numpy as np
    >>> system = TimeVaryingSystem(np.full((3, 1), 0.5), np.ones((3, 1, 1)), np.ones((3, 1, 1)))
    >>> system
    TimeVaryingSystem(steps=3, order=1, inputs=1, outputs=1, diagonal)
    >>> system.simulate([[1.0], [0.0], [0.0]]).ravel()
    array([1.  , 0.5 , 0.25])
    """

    A: Any
    B: Any
    C: Any
    D: Any = None
    log_decay: Any = None

    def __post_init__(self) -> None:
        if (self.A is None) == (self.log_decay is None):
            raise TypeError(
                "A, log_decay: expected exactly one of the two, got " + ("none" if self.A is None else "both")
            )
        if self.A is None:
            log = _log_array(self.log_decay)
            a = np.exp(log)
        else:
            a = as_array(self.A, "A", ndim=(2, 3))
            log = None
        steps, order = a.shape[:2]
        if a.ndim == 3 and a.shape[2] != order:
            raise ValueError(f"A: expected shape [T, n, n] or [T, n], got {list(a.shape)}")
        b = as_array(self.B, "B", shape=(steps, order, "m"))
        c = as_array(self.C, "C", shape=(steps, "p", order))
        d = None if self.D is None else as_array(self.D, "D", shape=(steps, c.shape[1], b.shape[2]))
        if a.ndim == 2 and log is None:
            with np.errstate(divide="ignore"):
                log = np.log(np.abs(a))
        for name, value in (("A", a), ("B", b), ("C", c), ("D", d), ("log_decay", log)):
            object.__setattr__(self, name, None if value is None else frozen(value))

    def __repr__(self) -> str:
        kind = "diagonal" if self.diagonal else "dense"
        return (
            f"TimeVaryingSystem(steps={self.steps}, order={self.order}, inputs={self.inputs}, "
            f"outputs={self.outputs}, {kind})"
        )

    # ---------------------------------------------------------------- sizes
    @property
    def steps(self) -> int:
        """Number of steps T."""
        return self.B.shape[0]

    @property
    def order(self) -> int:
        """State dimension n of this realization (not the least one: see :meth:`hankel_rank`)."""
        return self.B.shape[1]

    @property
    def inputs(self) -> int:
        """Number of inputs m."""
        return self.B.shape[2]

    @property
    def outputs(self) -> int:
        """Number of outputs p."""
        return self.C.shape[1]

    @property
    def diagonal(self) -> bool:
        """Whether the transitions are stored as diagonals."""
        return self.A.ndim == 2

    @cached_property
    def dtype(self) -> np.dtype:
        """float64, or complex128 where one of the matrices is complex."""
        return np.result_type(*(v for v in (self.A, self.B, self.C, self.D) if v is not None))

    def dense(self) -> TimeVaryingSystem:
        """Return the same system with dense transitions [T, n, n]."""
        if not self.diagonal:
            return self
        return TimeVaryingSystem(self.A[:, :, None] * np.eye(self.order), self.B, self.C, self.D)

    # ---------------------------------------------------------------- in time
    def _inputs(self, u: Any) -> Array:
        return as_array(u, "u", shape=(self.steps, self.inputs))

    def states(self, u: Any, x0: Any = None) -> Array:
        r"""Return the states :math:`x_0, \dots, x_{T-1}` under an input.

        Parameters
        ----------
        u : array_like [T, m]
            The input.
        x0 : array_like [n], optional
            The state before the first step, :math:`x_{-1}`; zero by default.

        Returns
        -------
        ndarray [T, n]
            The state after each step has taken its input.
        """
        u = self._inputs(u)
        drive = np.einsum("tnm,tm->tn", self.B, u)
        x = np.zeros(self.order, self.dtype) if x0 is None else as_array(x0, "x0", shape=(self.order,))
        out = np.empty((self.steps, self.order), np.result_type(self.dtype, drive, x))
        for t in range(self.steps):
            x = (self.A[t] * x if self.diagonal else self.A[t] @ x) + drive[t]
            out[t] = x
        return out

    def simulate(self, u: Any, x0: Any = None) -> Array:
        r"""Return the outputs :math:`y_t = C_t x_t + D_t u_t` under an input.

        Parameters
        ----------
        u : array_like [T, m]
            The input.
        x0 : array_like [n], optional
            The state before the first step, :math:`x_{-1}`; zero by default.

        Returns
        -------
        ndarray [T, p]
            The outputs.
        """
        y = np.einsum("tpn,tn->tp", self.C, self.states(u, x0))
        return y if self.D is None else y + np.einsum("tpm,tm->tp", self.D, self._inputs(u))

    def transition(self, t: int, s: int) -> Array:
        r"""Return :math:`\Phi(t, s) = A_t A_{t-1} \cdots A_{s+1}`, which takes :math:`x_s` to :math:`x_t`.

        Parameters
        ----------
        t : int
            The later step, ``s <= t < T``.
        s : int
            The earlier step, ``-1 <= s``; -1 is the state before the first step. ``t == s`` gives the
            identity.

        Returns
        -------
        ndarray [n, n]
            The transition; diagonal systems sum logarithms.
        """
        t = as_index(t, "t", -1, self.steps - 1)
        s = as_index(s, "s", -1, t)
        if self.diagonal:
            return np.diag(self._diagonal_product(s + 1, t + 1))
        phi = np.eye(self.order, dtype=self.A.dtype)
        for k in range(s + 1, t + 1):
            phi = self.A[k] @ phi
        return phi

    def _diagonal_product(self, start: int, stop: int) -> Array:
        """Product of the diagonals ``start .. stop-1``: magnitudes through logarithms, phases multiplied."""
        return np.exp(self.log_decay[start:stop].sum(0)) * self._phase[start:stop].prod(0)

    @cached_property
    def _phase(self) -> Array:
        """Signs or phases of the diagonals (1 where the entry is 0: its logarithm takes care of it)."""
        size = np.abs(self.A)
        return np.where(size == 0, 1.0, self.A / np.where(size == 0, 1.0, size))

    # ---------------------------------------------------------------- at a cut
    def _interval(self, s: int, t: int | None) -> tuple[int, int]:
        t = self.steps if t is None else as_index(t, "t", 0, self.steps)
        return as_index(s, "s", 0, t), t

    def observability(self, s: int, t: int | None = None) -> Array:
        r"""Return the observability matrix of the state before step s over the outputs ``s .. t-1``.

        .. math:: \mathcal O(s, t) = [C_s \Phi(s, s-1);\ \dots;\ C_{t-1} \Phi(t-1, s-1)].

        Parameters
        ----------
        s : int
            First output, ``0 <= s``; the state is :math:`x_{s-1}`.
        t : int, optional
            End of the outputs (exclusive), T by default.

        Returns
        -------
        ndarray [(t - s) p, n]
            Block rows in the order of time.
        """
        s, t = self._interval(s, t)
        if self.diagonal:
            phi = np.exp(np.cumsum(self.log_decay[s:t], 0)) * np.cumprod(self._phase[s:t], 0)
            return (self.C[s:t] * phi[:, None, :]).reshape((t - s) * self.outputs, self.order)
        out = np.empty((t - s, self.outputs, self.order), self.dtype)
        phi = np.eye(self.order, dtype=self.A.dtype)
        for k in range(s, t):
            phi = self.A[k] @ phi
            out[k - s] = self.C[k] @ phi
        return out.reshape((t - s) * self.outputs, self.order)

    def controllability(self, s: int, t: int | None = None) -> Array:
        r"""Return the controllability matrix of the state :math:`x_{t-1}` over the inputs ``s .. t-1``.

        .. math:: \mathcal R(s, t) = [\Phi(t-1, s) B_s,\ \dots,\ \Phi(t-1, t-1) B_{t-1}].

        Parameters
        ----------
        s : int
            First input.
        t : int, optional
            End of the inputs (exclusive), T by default.

        Returns
        -------
        ndarray [n, (t - s) m]
            Block columns in the order of time.
        """
        s, t = self._interval(s, t)
        out = np.empty((self.order, t - s, self.inputs), self.dtype)
        if self.diagonal:
            log = np.cumsum(self.log_decay[s + 1 : t][::-1], 0)[::-1]
            phi = np.ones((t - s, self.order), self.A.dtype)
            if t > s:
                phi[:-1] = np.exp(log) * np.cumprod(self._phase[s + 1 : t][::-1], 0)[::-1]
            out[:] = np.einsum("tn,tnm->ntm", phi, self.B[s:t])
            return out.reshape(self.order, (t - s) * self.inputs)
        phi = np.eye(self.order, dtype=self.A.dtype)
        for k in range(t - 1, s - 1, -1):
            out[:, k - s] = phi @ self.B[k]
            phi = phi @ self.A[k]
        return out.reshape(self.order, (t - s) * self.inputs)

    def gramians(self, cut: int, *, start: int = 0, stop: int | None = None) -> CutGramians:
        r"""Return the controllability and observability Gramians at a cut.

        .. math:: W_c = \mathcal R(start, cut)\, \mathcal R(start, cut)^*, \qquad
                  W_o = \mathcal O(cut, stop)^*\, \mathcal O(cut, stop).

        Parameters
        ----------
        cut : int
            The cut, ``0 <= cut <= T``; the state is :math:`x_{cut-1}`.
        start : int
            First input counted.
        stop : int, optional
            End of the outputs counted (exclusive), T by default.

        Returns
        -------
        CutGramians
            ``.controllability`` and ``.observability``, both [n, n].
        """
        cut = as_index(cut, "cut", 0, self.steps)
        start = as_index(start, "start", 0, cut)
        stop = self.steps if stop is None else as_index(stop, "stop", cut, self.steps)
        reach, see = self.controllability(start, cut), self.observability(cut, stop)
        return CutGramians(reach @ reach.conj().T, see.conj().T @ see, start, cut, stop)

    def hankel(self, cut: int) -> Array:
        r"""Return the Hankel matrix at a cut: what past inputs do to future outputs.

        .. math:: H_i = \mathcal O(i, T)\, \mathcal R(0, i), \qquad
                  (H_i)_{ts} = C_t \Phi(t, s) B_s,\quad s < i \le t.

        Parameters
        ----------
        cut : int
            The cut, ``0 <= cut <= T``.

        Returns
        -------
        ndarray [(T - cut) p, cut m]
            Block rows and columns in the order of time.
        """
        cut = as_index(cut, "cut", 0, self.steps)
        return self.observability(cut) @ self.controllability(0, cut)

    @cached_property
    def _roots(self) -> tuple[Array, Array]:
        """Square roots [T + 1, n, n] of the Gramians at all cuts: W_c = S_c S_c^*, W_o = S_o^* S_o."""
        n = self.order
        reach = np.zeros((self.steps + 1, n, n), self.dtype)
        see = np.zeros((self.steps + 1, n, n), self.dtype)
        for t in range(self.steps):
            moved = self.A[t][:, None] * reach[t] if self.diagonal else self.A[t] @ reach[t]
            r = triangle(np.hstack([moved, self.B[t]]).conj().T)
            reach[t + 1, :, : r.shape[0]] = r.conj().T
        for t in range(self.steps - 1, -1, -1):
            r = triangle(np.vstack([see[t + 1], self.C[t]]))
            see[t, : r.shape[0]] = r * self.A[t] if self.diagonal else r @ self.A[t]
        return reach, see

    def hankel_singular_values(self, cut: int) -> Array:
        r"""Return the singular values of the Hankel matrix at a cut, largest first.

        Parameters
        ----------
        cut : int
            The cut, ``0 <= cut <= T``.

        Returns
        -------
        ndarray [min(n, cut m, (T - cut) p)]
            :math:`\sigma_k = \sqrt{\lambda_k(W_c W_o)}`, computed from square roots of the Gramians.
        """
        cut = as_index(cut, "cut", 0, self.steps)
        reach, see = self._roots
        size = min(self.order, cut * self.inputs, (self.steps - cut) * self.outputs)
        return np.linalg.svd(see[cut] @ reach[cut], compute_uv=False)[:size]

    def hankel_rank(self, cut: int | None = None, *, tol: float | None = None) -> Any:
        r"""Return the effective state size: the rank of the Hankel matrix at a cut, or at every cut.

        Parameters
        ----------
        cut : int, optional
            One cut; None (default) stands for all cuts ``0 .. T``.
        tol : float, optional
            Singular values up to ``tol`` times the largest one of that cut count as zero; default
            ``eps * max((T - cut) p, cut m, n)``, which is what rounding leaves.

        Returns
        -------
        int or ndarray of int [T + 1]
            The least state dimension that could carry the past to the future at that cut, at this tolerance.
        """
        if tol is not None:
            tol = as_number(tol, "tol", "a number of at least 0, relative", lambda x: x >= 0)
        if cut is None:
            return np.array([self.hankel_rank(i, tol=tol) for i in range(self.steps + 1)])
        values = self.hankel_singular_values(cut)
        if values.size == 0 or values[0] == 0:
            return 0
        longest = max((self.steps - cut) * self.outputs, cut * self.inputs, self.order)
        return int(np.sum(values > values[0] * (np.finfo(float).eps * longest if tol is None else tol)))

    # ---------------------------------------------------------------- as an operator
    def impulse_response(self, t: int) -> Array:
        r"""Return the response of all outputs to a unit impulse on each input at step t.

        Parameters
        ----------
        t : int
            The step of the impulse.

        Returns
        -------
        ndarray [T - t, p, m]
            Entry k is :math:`C_{t+k} \Phi(t+k, t) B_t`, plus :math:`D_t` at k = 0.
        """
        t = as_index(t, "t", 0, self.steps - 1)
        out = np.empty((self.steps - t, self.outputs, self.inputs), self.dtype)
        out[0] = self.C[t] @ self.B[t]
        if self.D is not None:
            out[0] += self.D[t]
        out[1:] = (self.observability(t + 1) @ self.B[t]).reshape(-1, self.outputs, self.inputs)
        return out

    def operator(self) -> Array:
        r"""Return the whole input-output map :math:`y_t = \sum_{s \le t} T_{ts} u_s` as an array.

        Returns
        -------
        ndarray [T, p, T, m]
            Lower triangular in time; of :math:`T^2 p m` entries, so meant for small T.
        """
        out = np.zeros((self.steps, self.outputs, self.steps, self.inputs), self.dtype)
        for s in range(self.steps):
            out[s:, :, s, :] = self.impulse_response(s)
        return out

    def fisher_memory(self, t: int, *, noise: float = 1.0) -> Array:
        r"""Return the Fisher memory curve: how well the state after step t tells each past input from noise.

        .. math:: J(t, k) = B_{t-k}^* \Phi(t, t-k)^*\, \Sigma_t^{-1}\, \Phi(t, t-k) B_{t-k}, \qquad
                  \Sigma_t = \sigma^2 \sum_{s \le t} \Phi(t, s) \Phi(t, s)^*.

        Parameters
        ----------
        t : int
            The step after which the state is read.
        noise : float
            Variance :math:`\sigma^2 > 0` of the white noise that enters every state at every step.

        Returns
        -------
        ndarray [t + 1, m]
            Information about the input k steps back (index 0: the current one), in inverse input variance.

        References
        ----------
        .. [1] S. Ganguli, D. Huh, H. Sompolinsky, *Memory traces in dynamical systems*, PNAS 105 (2008).
        """
        t = as_index(t, "t", 0, self.steps - 1)
        noise = as_number(noise, "noise", "a positive variance", lambda x: x > 0)
        eye = np.broadcast_to(np.eye(self.order), (self.steps, self.order, self.order))
        spread = TimeVaryingSystem(self.A, eye, self.C).controllability(0, t + 1)
        factor = triangle(spread.conj().T).conj().T
        whitened = np.linalg.solve(factor, self.controllability(0, t + 1))
        curve = np.sum(np.abs(whitened) ** 2, 0).reshape(t + 1, self.inputs) / noise
        return curve[::-1]


def _log_array(value: Any) -> Array:
    """Check log decays: real, [T, n], minus infinity allowed (a reset), NaN and plus infinity not."""
    array = to_numpy(value, "log_decay")
    reset = np.isneginf(array) if array.dtype.kind == "f" else np.zeros(array.shape, bool)
    checked = as_array(np.where(reset, 0.0, array), "log_decay", ndim=2, real=True)
    checked[reset] = -np.inf
    return checked
