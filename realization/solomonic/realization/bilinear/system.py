"""Bilinear systems in discrete time."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._html import table
from .._results import Result
from .._validate import Array, as_array, as_index, as_square, describe, frozen
from ..equivalence import Equivalence
from ..gramians import Gramians
from ..time_varying import TimeVaryingSystem
from . import _lyapunov, _spans
from ._recursion import run, transitions
from .low_rank import LowRankGramians
from .similarity import compare
from .truncation import Truncation, truncate
from .words import as_word

__all__ = ["BilinearSystem"]


@dataclass(frozen=True, eq=False)
class BilinearSystem(Result):
    r"""A bilinear system in discrete time, with several inputs and outputs.

    .. math:: x_{t+1} = A x_t + \sum_{j=1}^m u_{t,j} N_j x_t + B u_t, \qquad y_t = C x_t + D u_t.

    Parameters
    ----------
    A : array_like [n, n]
        Dynamics without input.
    N : array_like [m, n, n]
        What each input adds to the dynamics.
    B : array_like [n, m]
        Input map.
    C : array_like [p, n]
        Read-out.
    D : array_like [p, m], optional
        Feed-through; zero by default.

    Raises
    ------
    TypeError
        Not arrays of real numbers.
    ValueError
        Shapes that do not fit, NaN or infinite.

    Notes
    -----
    From x_0 = 0 the output is a sum over words w of letters 0 .. m, of the kernels :math:`C M_{w_1} \cdots M_{w_k} B`
    (M_0 = A, M_j = N_j) times products of past inputs. The kernels determine the system up to a change of states once
    it is minimal: reached by words, :math:`\operatorname{span}\{M_w B\} = R^n`, and seen by them,
    :math:`\bigcap_w \ker C M_w = 0`.

    References
    ----------
    .. [1] R. W. Brockett, *On the algebraic structure of bilinear systems*, in: Theory and Applications of Variable
       Structure Systems, 1972.
    .. [2] P. d'Alessandro, A. Isidori, A. Ruberti, *Realization and structure theory of bilinear dynamical systems*,
       SIAM J. Control 12 (1974) 517.

    Examples
    --------
    >>> import numpy as np
    >>> system = BilinearSystem([[0.5]], [[[0.25]]], [[1.0]], [[2.0]])
    >>> system
    BilinearSystem(order=1, inputs=1, outputs=1)
    >>> system.simulate([[1.0], [1.0], [0.0]]).ravel()
    array([0. , 2. , 3.5])
    >>> system.kernel((0, 1))
    array([[0.25]])
    """

    A: Any
    N: Any
    B: Any
    C: Any
    D: Any = None

    def __post_init__(self) -> None:
        a = as_square(self.A, "A", real=True, allow_empty=True)
        n = len(a)
        b = as_array(self.B, "B", shape=(n, "m"), real=True, allow_empty=True)
        m = b.shape[1]
        if m == 0:
            raise ValueError(f"B: expected at least one input, shape [{n}, m], got {list(b.shape)}")
        given = as_array(self.N, "N", ndim=(2, 3), real=True, allow_empty=True)
        if given.ndim == 2 and m == 1:
            given = given[None]
        if given.shape != (m, n, n):
            raise ValueError(f"N: expected shape [m, n, n] = [{m}, {n}, {n}], got {list(given.shape)}")
        c = as_array(self.C, "C", shape=("p", n), real=True, allow_empty=True)
        if c.shape[0] == 0:
            raise ValueError(f"C: expected at least one output, shape [p, {n}], got {list(c.shape)}")
        shape = (c.shape[0], m)
        d = np.zeros(shape) if self.D is None else as_array(self.D, "D", shape=shape, real=True)
        for name, value in (("A", a), ("N", given), ("B", b), ("C", c), ("D", d)):
            object.__setattr__(self, name, frozen(value))

    def __repr__(self) -> str:
        return f"BilinearSystem(order={self.order}, inputs={self.inputs}, outputs={self.outputs})"

    def _repr_html_(self) -> str:
        parts = {name: getattr(self, name) for name in "ANBCD"}
        rows = [(name, " x ".join(map(str, x.shape)), f"{np.linalg.norm(x):.3g}") for name, x in parts.items()]
        return table(("matrix", "shape", "Frobenius norm"), rows, caption=repr(self))

    # ---------------------------------------------------------------- sizes
    @property
    def order(self) -> int:
        """State dimension n."""
        return len(self.A)

    @property
    def inputs(self) -> int:
        """Number of inputs m."""
        return self.B.shape[1]

    @property
    def outputs(self) -> int:
        """Number of outputs p."""
        return self.C.shape[0]

    @property
    def letters(self) -> Array:
        """The matrices of the letters, M_0 = A and M_j = N_j: [m + 1, n, n]."""
        return np.concatenate([self.A[None], self.N])

    # ---------------------------------------------------------------- in time
    def _inputs(self, u: Any) -> Array:
        u = as_array(u, "u", ndim=(2, 3), real=True, allow_empty=True)
        if u.shape[-1] != self.inputs:
            raise ValueError(
                f"u: expected shape [T, {self.inputs}] or [runs, T, {self.inputs}], got {list(u.shape)}"
                + ("; one input is a column, u[:, None]" if u.ndim == 2 and self.inputs == 1 else "")
            )
        return u

    def states(self, u: Any, x0: Any = None, *, workers: int | None = None) -> Array:
        """Return the states from x_0, before the first input, to x_T, after the last one.

        Parameters
        ----------
        u : array_like [T, m] or [runs, T, m]
            The inputs of one run or of many.
        x0 : array_like [n] or [runs, n], optional
            The state before the first input; zero by default. One state serves all runs.
        workers : int, optional
            Threads that share many runs; by default as many as there are processors.

        Returns
        -------
        ndarray [T + 1, n] or [runs, T + 1, n]
            The states.

        Raises
        ------
        TypeError
            Not arrays of real numbers.
        ValueError
            Wrong shapes, NaN or infinite, or a state that leaves the range of float64 (the step is named).

        Notes
        -----
        Runs are cut into stretches that move together; what a stretch's true start adds is carried on until it is below
        rounding, so the result is that of the plain loop up to rounding. Where the memory outlasts a few stretches, or
        the system grows, all steps are solved as one band matrix instead. Cost: :math:`T n^2 (m + 1)` a run.
        """
        return self._run(u, x0, None, workers)

    def simulate(self, u: Any, x0: Any = None, *, workers: int | None = None) -> Array:
        """Return the outputs under an input, of one run or of many at once.

        Parameters
        ----------
        u : array_like [T, m] or [runs, T, m]
            The inputs.
        x0 : array_like [n] or [runs, n], optional
            The state before the first input; zero by default.
        workers : int, optional
            Threads that share many runs; by default as many as there are processors.

        Returns
        -------
        ndarray [T, p] or [runs, T, p]
            The outputs. Errors and cost are those of :meth:`states`, without the memory for the states.
        """
        out = self._run(u, x0, self.C, workers)
        if self.D.any():
            out += self._inputs(u) @ self.D.T
        return out

    def _run(self, u: Any, x0: Any, read: Array | None, workers: int | None) -> Array:
        """The states, or what ``read`` makes of those before each step."""
        u = self._inputs(u)
        workers = os.cpu_count() or 1 if workers is None else as_index(workers, "workers", 1, 10**4)
        single = u.ndim == 2
        runs = u[None] if single else u
        shape = (len(runs), self.order)
        start = np.zeros(shape) if x0 is None else as_array(x0, "x0", ndim=(1, 2), real=True, allow_empty=True)
        if start.shape not in (shape[1:], shape):
            raise ValueError(
                f"x0: expected shape [{shape[1]}]"
                + ("" if single else f" or {list(shape)}")
                + f", got {list(start.shape)}"
            )
        out = run(self.A, self.N, self.B, read, runs, np.broadcast_to(start, shape), workers)
        if not np.isfinite(out).all():
            good = np.isfinite(out).all((0, 2))
            raise ValueError(
                f"u: the state leaves the range of float64 at step {int(np.argmin(good))} of {u.shape[-2]}: the system "
                f"grows without bound under this input; shorten the run or make the input smaller"
            )
        return out[0] if single else out

    def along(self, u: Any) -> TimeVaryingSystem:
        r"""Return the linear time-varying system that this one is along an input.

        Parameters
        ----------
        u : array_like [T, m]
            The input that sets the dynamics.

        Returns
        -------
        TimeVaryingSystem
            Of order n, with :math:`A_t = A + \sum_j u_{t,j} N_j` and two groups of inputs in one: its state after step
            t
            is :math:`x_{t+1}`, so its outputs are :math:`C x_{t+1}`: those of this system one step later, without D.
        """
        u = self._inputs(u)
        if u.ndim != 2 or len(u) == 0:
            raise ValueError(f"u: expected one run, shape [T, {self.inputs}], got {list(u.shape)}")
        b, c = (np.repeat(x[None], len(u), 0) for x in (self.B, self.C))
        return TimeVaryingSystem(transitions(self.A, self.N, u), b, c)

    # ---------------------------------------------------------------- as a map of words
    def kernel(self, word: Any) -> Array:
        r"""Return the kernel of a word, :math:`C M_{w_1} \cdots M_{w_k} B`.

        Parameters
        ----------
        word : sequence of int
            Letters 0 (A) and 1 .. m (N_j); the last one acts first. The empty word gives C B.

        Returns
        -------
        ndarray [p, m]
            The kernel.
        """
        out = self.B
        letters = self.letters
        for letter in reversed(as_word(word, self.inputs + 1)):
            out = letters[letter] @ out
        return self.C @ out

    def volterra(self, degree: int, length: int) -> Array:
        r"""Return the Volterra kernels of one degree, in triangular form.

        .. math:: h_{j_1 \dots j_d}(k_1, \dots, k_d) = C A^{k_1} N_{j_1} A^{k_2} N_{j_2} \cdots A^{k_d} B_{j_d}.

        Parameters
        ----------
        degree : int
            d: how many inputs are multiplied.
        length : int
            Lags ``k = 0 .. length - 1`` each.

        Returns
        -------
        ndarray [length] * d + [p] + [m] * d
            The kernel; :math:`k_1` is the time since the latest input, less one. Degree 1 is the impulse response of
            (A, B, C).
        """
        degree, length = as_index(degree, "degree", 1, 20), as_index(length, "length", 1, 10**6)
        size = float(length * self.inputs) ** degree * self.outputs
        if size > 1e8:
            raise ValueError(
                f"degree, length: the kernel has {size:.0e} entries, expected at most 1e8; take fewer lags"
            )
        powers = np.empty((length, self.order, self.order))
        powers[0] = np.eye(self.order)
        for k in range(1, length):
            powers[k] = powers[k - 1] @ self.A
        out, hop = self.C @ powers, self.N[:, None] @ powers  # hop [m, L, n, n]: N_j A^k
        for i in range(1, degree):
            # out is [k_1 .. k_i, p, j_1 .. j_{i-1}, n]; each round appends the input j and the lag k
            out = np.moveaxis(np.tensordot(out, hop, (-1, 2)), -2, i)
        return out @ self.B

    # ---------------------------------------------------------------- structure
    @property
    def reachable_basis(self) -> Array:
        """An orthonormal basis [n, r] of what words reach from 0: the span of all M_w B."""
        return _spans.reach(self.letters, self.B)

    @property
    def observable_basis(self) -> Array:
        """An orthonormal basis [n, r] of what words see: the complement of the states with C M_w x = 0 for all
        words."""
        return _spans.reach(self.letters.transpose(0, 2, 1), self.C.T)

    @property
    def is_minimal(self) -> bool:
        """Whether words reach and see all states, up to rounding."""
        return self.reachable_basis.shape[1] == self.order == self.observable_basis.shape[1]

    def minimal(self, *, tol: float | None = None) -> BilinearSystem:
        """Return a minimal realization of the same kernels: what words reach and see.

        Parameters
        ----------
        tol : float, optional
            Singular values up to ``tol`` times the size of the matrices count as zero; default ``10 n eps``.

        Returns
        -------
        BilinearSystem
            By two orthogonal projections, so as well conditioned as the system itself. Cost: :math:`O((m + 1) n^3)`.
        """
        return BilinearSystem(*_spans.restrict(self.A, self.N, self.B, self.C, tol), self.D)

    def transformed(self, T: Any) -> BilinearSystem:
        """Return the same system in the states z with x = T z.

        Parameters
        ----------
        T : array_like [n, n]
            An invertible matrix ``T``.

        Returns
        -------
        BilinearSystem
            With T^-1 A T, T^-1 N_j T, T^-1 B and C T.
        """
        t = as_array(T, "T", shape=(self.order, self.order), real=True)
        try:
            inverse = np.linalg.inv(t)
        except np.linalg.LinAlgError as error:
            raise ValueError("T: expected an invertible matrix, got a singular one") from error
        return BilinearSystem(inverse @ self.A @ t, inverse @ self.N @ t, inverse @ self.B, self.C @ t, self.D)

    def equivalent(self, other: BilinearSystem, *, tol: float = 1e-8) -> Equivalence:
        """Decide whether two systems have the same kernels, and recover the change of states between them.

        Parameters
        ----------
        other : BilinearSystem
            The system to compare with.
        tol : float
            Relative residual up to which equations count as satisfied.

        Returns
        -------
        Equivalence
            As for linear systems: verdict, T with x = T x_other, its condition, the residual of A T = T A_other and so
            on, and the difference of the kernels.
        """
        if not isinstance(other, BilinearSystem):
            raise TypeError(f"other: expected a BilinearSystem, got {describe(other)}")
        return compare(self, other, tol)

    # ---------------------------------------------------------------- Gramians
    def mean_square_radius(self, *, input_scale: Any = 1.0) -> float:
        r"""Return the growth rate of the state's covariance under white inputs.

        .. math:: \rho\Bigl(X \mapsto A X A^T + \sum_j s_j^2 N_j X N_j^T\Bigr).

        Parameters
        ----------
        input_scale : float or array_like [m]
            Standard deviations s of the inputs.

        Returns
        -------
        float
            Below 1: mean-square stable, and the Gramians exist.
        """
        return _lyapunov.radius(self.letters, _lyapunov.scales(input_scale, self.inputs))

    def gramians(self, *, input_scale: Any = 1.0) -> Gramians:
        r"""Return the Gramians: sums over all words, and the covariance of the state under white inputs.

        .. math:: P = \sum_w M_w B B^T M_w^T = A P A^T + \sum_j N_j P N_j^T + B B^T, \qquad
                  Q = \sum_w M_w^T C^T C M_w.

        Parameters
        ----------
        input_scale : float or array_like [m]
            Standard deviations s of the inputs: N_j and column j of B are multiplied by s_j.

        Returns
        -------
        Gramians
            P, Q and their factors.

        Raises
        ------
        ValueError
            Not mean-square stable at this scale of the input; the error says up to which scale it is.

        Notes
        -----
        One linear system in the n (n + 1) / 2 entries of P for n <= 16; GMRES with the Stein equation of A as
        preconditioner beyond. Existence is decided before, by :meth:`mean_square_radius`. For orders above a few
        hundred see :func:`low_rank_gramians`.

        References
        ----------
        .. [1] P. Benner, T. Damm, *Lyapunov equations, energy functionals, and model order reduction of bilinear and
           stochastic systems*, SIAM J. Control Optim. 49 (2011) 686.
        """
        scale = _lyapunov.scales(input_scale, self.inputs)
        _lyapunov.require_stable(self.letters, scale)
        letters = _lyapunov.scaled(self.letters, scale)
        p = _lyapunov.solve(letters, self.B * scale)
        q = _lyapunov.solve(letters.transpose(0, 2, 1), self.C.T)
        return Gramians(p, q, _lyapunov.factor(p), _lyapunov.factor(q))

    def balanced_truncation(
        self, order: int, *, input_scale: Any = 1.0, gramians: Gramians | LowRankGramians | None = None
    ) -> Truncation:
        """Return the system cut to fewer states in coordinates where both Gramians are equal and diagonal.

        Parameters
        ----------
        order : int
            States to keep, at most the number of nonzero Hankel singular values.
        input_scale : float or array_like [m]
            Standard deviations of the inputs for which the cut is made.
        gramians : Gramians or LowRankGramians, optional
            What was computed before for this scale of the inputs. Low-rank ones make the cut of a large system
            possible; the estimate then lacks the singular values beyond their rank.

        Returns
        -------
        Truncation
            ``.system``, ``.hankel_singular_values``, the error estimate from those that are cut, and the error itself
            under white inputs.
        """
        return truncate(self, order, input_scale, gramians)
