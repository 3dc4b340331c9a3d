"""Selective state space layers as bilinear systems: Mamba-1, stripped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._html import table
from .._results import Result
from .._validate import Array, as_array, frozen
from ..time_varying import TimeVaryingSystem
from .system import BilinearSystem

__all__ = ["SelectiveLayer", "from_selective"]


@dataclass(frozen=True, eq=False)
class SelectiveLayer(Result):
    r"""A stripped Mamba-1 layer, exact and bilinear to first order.

    .. math:: \Delta(u) = \operatorname{softplus}(W u + b), \qquad X_t = e^{\Delta(u_t) A} \circ X_{t-1}
              + (\Delta(u_t) \circ u_t)(P_B u_t)^T, \qquad y_t = X_t P_C u_t + D \circ u_t .

    Parameters
    ----------
    A : ndarray [d, N]
        Continuous-time poles, negative: one row a channel.
    step_weight, step_bias : ndarray [d, d], [d]
        W and b.
    input_weight, output_weight : ndarray [N, d]
        P_B and P_C.
    D : ndarray [d]
        Skip weights.
    system : BilinearSystem
        To first order in the step: states (X, y_t), inputs the lifted ones of :meth:`lift`.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> P_B, P_C = rng.standard_normal((2, 4, 2))
    >>> layer = from_selective(-np.ones((2, 4)), 0.1 * np.eye(2), np.zeros(2), P_B, P_C, np.ones(2))
    >>> u = 0.1 * rng.standard_normal((50, 2))
    >>> bool(layer.gap(u) < 1e-3)
    True
    """

    A: Array
    step_weight: Array
    step_bias: Array
    input_weight: Array
    output_weight: Array
    D: Array
    system: BilinearSystem

    def __repr__(self) -> str:
        d, n = self.A.shape
        return (
            f"SelectiveLayer(channels={d}, states={n} each, "
            f"bilinear order={self.system.order}, lift={self.system.inputs})"
        )

    def _repr_html_(self) -> str:
        names = ("A", "step_weight", "step_bias", "input_weight", "output_weight", "D")
        parts = [(name, getattr(self, name)) for name in names]
        rows = [(name, " x ".join(map(str, x.shape)), f"{np.linalg.norm(x):.3g}") for name, x in parts]
        return table(("weight", "shape", "Frobenius norm"), rows, caption=repr(self))

    def _gates(self, u: Any) -> tuple[Array, Array, Array, Array]:
        u = as_array(u, "u", shape=("T", len(self.A)), real=True)
        step = np.logaddexp(0, u @ self.step_weight.T + self.step_bias)
        return u, step, u @ self.input_weight.T, u @ self.output_weight.T

    def simulate(self, u: Any) -> Array:
        """Return the outputs of the layer itself under ``u`` [T, d], from X = 0: [T, d]."""
        u, step, b, c = self._gates(u)
        x, out = np.zeros(self.A.shape), np.empty(u.shape)
        for t in range(len(u)):
            x = np.exp(step[t][:, None] * self.A) * x + (step[t] * u[t])[:, None] * b[t]
            out[t] = x @ c[t] + self.D * u[t]
        return out

    def along(self, u: Any) -> TimeVaryingSystem:
        """Return the layer as the exact linear time-varying system that it is along an input.

        Parameters
        ----------
        u : array_like [T, d]
            The input that sets the gates.

        Returns
        -------
        TimeVaryingSystem
            Diagonal, of order d N: its outputs under ``u`` are those of the layer.
        """
        u, step, b, c = self._gates(u)
        steps, (d, n) = len(u), self.A.shape
        log = (step[:, :, None] * self.A).reshape(steps, -1)
        into = np.einsum("tc,tk,ce->tcke", step, b, np.eye(d)).reshape(steps, d * n, d)
        read = np.einsum("tk,ce->tcek", c, np.eye(d)).reshape(steps, d, d * n)
        return TimeVaryingSystem(None, into, read, np.repeat(np.diag(self.D)[None], steps, 0), log_decay=log)

    def lift(self, u: Any) -> Array:
        r"""Return the inputs of the bilinear system.

        Parameters
        ----------
        u : array_like [T, d]
            The input of the layer.

        Returns
        -------
        ndarray [T, d + d N + N + d N + d]
            :math:`\delta = \Delta(u) - \Delta(0)`; what is written, :math:`\Delta_c u_c (P_B u)_k`; what reads, P_C u;
            the
            products :math:`\delta_c (P_C u)_k`; and what goes straight to the output.
        """
        u, step, b, c = self._gates(u)
        steps = len(u)
        change = step - np.logaddexp(0, self.step_bias)
        write = (step * u)[:, :, None] * b[:, None, :]
        through = np.einsum("tck,tk->tc", write, c) + self.D * u
        both = change[:, :, None] * c[:, None, :]
        return np.hstack([change, write.reshape(steps, -1), c, both.reshape(steps, -1), through])

    def simulate_bilinear(self, u: Any) -> Array:
        """Return the outputs of the bilinear system under ``u`` [T, d], from X = 0: [T, d]."""
        d = len(self.A)
        return self.system.states(self.lift(u))[1:, -d:]

    def gap(self, u: Any) -> float:
        """Return the root mean square of the difference that first order makes under ``u`` [T, d], relative to the
        outputs."""
        want = self.simulate(u)
        size = float(np.sqrt(np.mean(want**2)))
        gap = float(np.sqrt(np.mean((self.simulate_bilinear(u) - want) ** 2)))
        return gap / size if size > 0 else gap


def from_selective(
    A: Any, step_weight: Any, step_bias: Any, input_weight: Any, output_weight: Any, D: Any = None
) -> SelectiveLayer:
    r"""Write a selective layer as a bilinear system to first order, and as an exact input-varying one.

    .. math:: e^{\Delta(u) a} = e^{\Delta_0 a} \bigl(1 + a\,\delta(u)\bigr) + O(\delta^2), \qquad
              \delta(u) = \Delta(u) - \Delta_0,\quad \Delta_0 = \operatorname{softplus}(b) .

    Parameters
    ----------
    A : array_like [d, N]
        Poles, negative: d channels of N states.
    step_weight : array_like [d, d]
        W: the product of the two projections that make the step.
    step_bias : array_like [d]
        b.
    input_weight, output_weight : array_like [N, d]
        P_B and P_C: they make B and C from the input.
    D : array_like [d], optional
        Skip weights; zero by default.

    Returns
    -------
    SelectiveLayer
        ``.simulate`` (exact), ``.along`` (exact, input-varying), ``.system`` (bilinear), ``.simulate_bilinear``,
        ``.gap``.

    Raises
    ------
    TypeError
        Not arrays of real numbers.
    ValueError
        Shapes that do not fit, NaN, or poles that are not negative.

    Notes
    -----
    The state takes the token, then is read, as in the released layers. The expansion of the exponential is the only
    thing
    that is lost: everything that depends on the token alone is an input of the bilinear system, and the read-out, a
    product of state and token, becomes linear by a state that holds y. So y_t is the last d states after step t.

    References
    ----------
    .. [1] L. Zancato et al., *B'MOJO*, NeurIPS 2024, arXiv:2407.06324, appendix E.
    .. [2] A. Gu, T. Dao, *Mamba*, 2023, arXiv:2312.00752, algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> from_selective([[-1.0, -2.0]], [[0.5]], [0.0], [[1.0], [1.0]], [[1.0], [0.5]])
    SelectiveLayer(channels=1, states=2 each, bilinear order=3, lift=8)
    """
    a = as_array(A, "A", ndim=2, real=True)
    d, n = a.shape
    if not (a < 0).all():
        raise ValueError(f"A: expected negative poles, got {float(a.max()):.3g}; give A itself, not its logarithm")
    w, b = as_array(step_weight, "step_weight", shape=(d, d), real=True), as_array(step_bias, "step_bias", shape=(d,))
    p_b = as_array(input_weight, "input_weight", shape=(n, d), real=True)
    p_c = as_array(output_weight, "output_weight", shape=(n, d), real=True)
    skip = np.zeros(d) if D is None else as_array(D, "D", shape=(d,), real=True)
    decay = np.exp(np.logaddexp(0, b)[:, None] * a)
    size, slope = d * n, (decay * a).ravel()
    order, lift = size + d, d + size + n + size + d
    dynamics, more, into = np.zeros((order, order)), np.zeros((lift, order, order)), np.zeros((order, lift))
    dynamics[:size, :size] = np.diag(decay.ravel())
    write, read, both, through = d, d + size, d + size + n, d + size + n + size
    into[:size, write : write + size] = np.eye(size)
    into[size:, through:] = np.eye(d)
    for c in range(d):
        for k in range(n):
            i = c * n + k
            more[c, i, i] = slope[i]
            more[read + k, size + c, i] = decay[c, k]
            more[both + i, size + c, i] = slope[i]
    system = BilinearSystem(dynamics, more, into, np.eye(d, order, size))
    return SelectiveLayer(frozen(a), frozen(w), frozen(b), frozen(p_b), frozen(p_c), frozen(skip), system)
