"""A stochastic model of a process, forward or backward in time, and the reversal that links the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.linalg

from .._html import table
from .._results import Result
from .._systems import Matrices, to_statespace
from .._validate import Array, as_array, as_index, as_square, frozen
from ..identification._scan import linear_states
from .covariances import Covariances, as_covariances
from .faurre import faurre, linear_matrix

if TYPE_CHECKING:
    import control

__all__ = ["Simulation", "StochasticModel", "backward_model", "forward_model", "time_reverse"]


class Simulation(NamedTuple):
    """A sample path.

    Parameters
    ----------
    y : ndarray [T, p]
        Outputs, in the order of time.
    states : ndarray [T, n]
        The state that each output reads.
    noise : ndarray [T, k]
        White noise of unit variance that entered.
    """

    y: Array
    states: Array
    noise: Array


@dataclass(frozen=True, eq=False)
class StochasticModel(Result):
    r"""A stationary linear model driven by white noise of unit variance.

    .. math:: \text{forward:}\quad x_{t+1} = A x_t + B w_t, \quad y_t = C x_t + D w_t; \qquad
              \text{backward:}\quad x_{t-1} = A x_t + B w_t, \quad y_t = C x_t + D w_t .

    Parameters
    ----------
    A : ndarray [n, n]
        Transition, stable.
    B : ndarray [n, k]
        Noise into the state.
    C : ndarray [p, n]
        Read-out.
    D : ndarray [p, k]
        Noise into the output.
    P : ndarray [n, n]
        State covariance: :math:`P = A P A^T + B B^T`.
    direction : str
        "forward" or "backward".

    Examples
    --------
    >>> model = forward_model([[0.0]], [[1.0]], [[0.5]], [[1.25]])
    >>> model
    StochasticModel(forward, order=1, outputs=1, noises=1)
    >>> model.covariances().sequence(2).ravel().round(12).tolist()
    [1.25, 0.5, 0.0]
    """

    A: Array
    B: Array
    C: Array
    D: Array
    P: Array
    direction: str = "forward"

    @property
    def order(self) -> int:
        """State dimension n."""
        return len(self.A)

    @property
    def forward(self) -> bool:
        """Whether time runs forward."""
        return self.direction == "forward"

    def __repr__(self) -> str:
        return f"StochasticModel({self.direction}, order={self.order}, outputs={len(self.C)}, noises={self.B.shape[1]})"

    def _repr_html_(self) -> str:
        rows = [[name, np.array2string(getattr(self, name), precision=4)] for name in ("A", "B", "C", "D", "P")]
        return table(["", ""], rows, caption=repr(self))

    def covariances(self) -> Covariances:
        r"""Return the covariances of the process, :math:`E y_{t+k} y_t^T` in forward time whatever the direction.

        Returns
        -------
        Covariances
            (A, C, Cbar, L0); the triple of a backward model is transposed to forward time.
        """
        other = (self.A @ self.P @ self.C.T + self.B @ self.D.T).T
        l0 = self.C @ self.P @ self.C.T + self.D @ self.D.T
        if self.forward:
            return Covariances(self.A, self.C, other, l0)
        return Covariances(self.A.T, other, self.C, l0)

    def simulate(self, steps: int, *, rng: int | np.random.Generator | None = None, x0: Any = None) -> Simulation:
        """Draw a path; a backward model starts at the last sample and runs to the first.

        Parameters
        ----------
        steps : int
            Samples T.
        rng : int or numpy.random.Generator, optional
            Source of randomness.
        x0 : array_like [n], optional
            State where the run starts (the last sample of a backward model); drawn from the stationary law by default.

        Returns
        -------
        Simulation
            ``.y``, ``.states``, ``.noise``, in the order of time.
        """
        count = as_index(steps, "steps", 1, 10**9)
        source = np.random.default_rng(rng)
        w = source.standard_normal((count, self.B.shape[1]))
        if x0 is None:
            values, vectors = np.linalg.eigh(self.P)
            start = (vectors * np.sqrt(np.maximum(values, 0.0))) @ source.standard_normal(self.order)
        else:
            start = as_array(x0, "x0", shape=(self.order,), real=True)
        x = linear_states(self.A, w @ self.B.T, start)[:-1]
        y = x @ self.C.T + w @ self.D.T
        return Simulation(y, x, w) if self.forward else Simulation(y[::-1], x[::-1], w[::-1])

    def to_statespace(self, *, dt: Any = True) -> control.StateSpace:
        """Convert to python-control, from the noise to the output.

        Parameters
        ----------
        dt : float or True
            Sampling period.

        Returns
        -------
        control.StateSpace
            A shaping filter W(z), with W(z) W(1/z)^T the density; of a backward model, the filter of reversed time.
        """
        return to_statespace(Matrices(self.A, self.B, self.C, self.D, dt))


def _noise_factors(joint: Array, n: int) -> tuple[Array, Array]:
    """(B, D) with [B; D] [B; D]^T = M: the innovation part first, D = [Sigma^{1/2} 0], B = [K Sigma^{1/2}, rest]."""
    q, s, sigma = joint[:n, :n], joint[:n, n:], joint[n:, n:]
    values, vectors = np.linalg.eigh(sigma)
    p = len(sigma)
    scale = max(float(np.trace(joint)) / (n + p), np.finfo(float).tiny)
    if values[0] > 1e-9 * scale:
        root = (vectors * np.sqrt(values)) @ vectors.T
        first = scipy.linalg.solve(root, s.T, assume_a="sym").T
        rest = q - first @ first.T
        w, v = np.linalg.eigh((rest + rest.T) / 2)
        kept = w > 1e-9 * scale
        extra = v[:, kept] * np.sqrt(w[kept])
        factor = np.block([[first, extra], [root, np.zeros((p, extra.shape[1]))]])
        # Where output noise is small beside the state's, dividing by it costs digits.
        if np.abs(joint - factor @ factor.T).max() <= 1e-9 * scale:
            return factor[:n], factor[n:]
    w, v = np.linalg.eigh((joint + joint.T) / 2)  # (nearly) singular output noise: any root will do
    factor = v[:, w > 1e-12 * scale] * np.sqrt(w[w > 1e-12 * scale])
    return factor[:n], factor[n:]


def _from_covariance(cov: Covariances, P: Array, direction: str) -> StochasticModel:
    joint = linear_matrix(cov, P)
    scale = max(float(np.linalg.norm(P, 2)), float(np.linalg.norm(cov.L0, 2)))
    least = float(np.linalg.eigvalsh(joint)[0])
    if least < -1e-7 * scale:
        raise ValueError(
            f"P: expected the state covariance of a model of this process, M(P) >= 0, got smallest eigenvalue "
            f"{least:.3g}; faurre(A, C, Cbar, L0) gives the interval, and .between(theta) members of it"
        )
    b, d = _noise_factors(joint, len(cov.A))
    return StochasticModel(cov.A, frozen(b), cov.C, frozen(d), frozen(P), direction)


def _member(cov: Covariances, P: Any) -> Array:
    if P is None:
        return faurre(*cov).P_minus
    if isinstance(P, str):
        if P not in ("minus", "plus"):
            raise ValueError(f"P: expected a matrix, 'minus' or 'plus', got {P!r}")
        interval = faurre(*cov)
        return interval.P_minus if P == "minus" else interval.P_plus
    p = as_square(P, "P", real=True)
    if p.shape != cov.A.shape:
        raise ValueError(f"P: expected shape {list(cov.A.shape)}, got {list(p.shape)}")
    return (p + p.T) / 2


def forward_model(A: Any, C: Any, Cbar: Any, L0: Any, *, P: Any = None) -> StochasticModel:
    r"""Make the forward model with a given state covariance.

    .. math:: x_{t+1} = A x_t + B w_t,\quad y_t = C x_t + D w_t,\qquad
              \begin{pmatrix} B \\ D \end{pmatrix} \begin{pmatrix} B \\ D \end{pmatrix}^T = M(P) .

    Parameters
    ----------
    A : array_like [n, n]
        Transition, stable.
    C : array_like [p, n]
        Forward read-out.
    Cbar : array_like [p, n]
        Backward read-out.
    L0 : array_like [p, p]
        Variance.
    P : array_like [n, n] or str, optional
        State covariance, a member of Faurre's interval, or "minus" (the default: innovation model, minimum phase) or
        "plus" (maximum phase).

    Returns
    -------
    StochasticModel
        With as many noises as M(P) has rank: p at the ends of the interval, up to n more inside.

    Raises
    ------
    TypeError
        Not real numbers.
    ValueError
        Wrong shapes, covariances that are not positive real, a P outside the set.

    Notes
    -----
    Cost: that of :func:`faurre` where P is not given, else :math:`O((n + p)^3)`.

    References
    ----------
    .. [1] A. Lindquist, G. Picci, *On the stochastic realization problem*, SIAM J. Control Optim. 17 (1979).

    Examples
    --------
    >>> forward_model([[0.5]], [[1.0]], [[1.0]], [[2.0]]).simulate(3, rng=0).y.shape
    (3, 1)
    """
    cov = as_covariances(A, C, Cbar, L0)
    return _from_covariance(cov, _member(cov, P), "forward")


def backward_model(A: Any, C: Any, Cbar: Any, L0: Any, *, P: Any = None) -> StochasticModel:
    r"""Make the backward model of the process with the same state space as a forward one.

    .. math:: \bar x_{t-1} = A^T \bar x_t + \bar B \bar w_t,\quad y_t = \bar C \bar x_t + \bar D \bar w_t,\qquad
              \bar x_t = P^{-1} x_{t+1},\quad \bar P = P^{-1} .

    Parameters
    ----------
    A : array_like [n, n]
        Transition of the forward model, stable.
    C : array_like [p, n]
        Forward read-out.
    Cbar : array_like [p, n]
        Backward read-out.
    L0 : array_like [p, p]
        Variance.
    P : array_like [n, n] or str, optional
        State covariance of the forward model, or "minus" or "plus" (the default: the backward innovation model).

    Returns
    -------
    StochasticModel
        With direction "backward" and state covariance P^-1; it generates the same process.

    Raises
    ------
    TypeError
        Not real numbers.
    ValueError
        Wrong shapes, covariances that are not positive real, a P outside the set or singular.

    Notes
    -----
    The noise at time t is uncorrelated with the states after it: time runs backwards in the model, and no arrow of time
    is left in the second moments.

    References
    ----------
    .. [1] A. Lindquist, G. Picci, *On the stochastic realization problem*, SIAM J. Control Optim. 17 (1979).

    Examples
    --------
    >>> backward_model([[0.5]], [[1.0]], [[1.0]], [[2.0]])
    StochasticModel(backward, order=1, outputs=1, noises=1)
    """
    cov = as_covariances(A, C, Cbar, L0)
    return time_reverse(_from_covariance(cov, _member(cov, "plus" if P is None else P), "forward"))


def time_reverse(model: StochasticModel) -> StochasticModel:
    r"""Turn a forward model into the backward model of the same process, or back.

    .. math:: A \mapsto A^T,\qquad C \mapsto (A P C^T + B D^T)^T,\qquad P \mapsto P^{-1} .

    Parameters
    ----------
    model : StochasticModel
        Forward or backward.

    Returns
    -------
    StochasticModel
        Of the other direction, with the state :math:`\bar x_t = P^{-1} x_{t+1}`.

    Raises
    ------
    TypeError
        Not a StochasticModel.
    ValueError
        A singular state covariance.

    Notes
    -----
    Twice reversed, a model has its own (A, C, P) again, and noise matrices that are the same up to a rotation of the
    noise. In the coordinates of the forward state the recursion is
    :math:`x_t = P A^T P^{-1} x_{t+1} + \text{noise of covariance } P - P A^T P^{-1} A P`, the formula of reverse
    diffusion (:func:`reverse_kernel`).

    References
    ----------
    .. [1] A. Lindquist, G. Picci, *Linear Stochastic Systems*, Springer 2015, section 6.3.

    Examples
    --------
    >>> model = forward_model([[0.5]], [[1.0]], [[1.0]], [[2.0]])
    >>> time_reverse(model).direction, time_reverse(time_reverse(model)).direction
    ('backward', 'forward')
    """
    if not isinstance(model, StochasticModel):
        raise TypeError(f"model: expected a StochasticModel (see forward_model), got {type(model).__name__}")
    values = np.linalg.eigvalsh(model.P)
    if values[0] <= 1e-14 * values[-1]:
        raise ValueError(
            f"model: expected a state covariance that can be inverted, got eigenvalues from {values[0]:.1e} to "
            f"{values[-1]:.1e}; leave out the states without noise"
        )
    other = (model.A @ model.P @ model.C.T + model.B @ model.D.T).T
    l0 = model.C @ model.P @ model.C.T + model.D @ model.D.T
    inverse = scipy.linalg.inv(model.P)
    mirrored = Covariances(model.A.T, other, model.C, (l0 + l0.T) / 2)
    return _from_covariance(mirrored, (inverse + inverse.T) / 2, "backward" if model.forward else "forward")
