"""The innovation model: what identification returns, and what predicts, simulates and is tested."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .._html import table
from .._results import Result
from .._systems import Matrices, as_matrices, to_statespace
from .._validate import Array, as_array, as_index, as_square, frozen
from ..gramians import gramian_factors
from ..stochastic.covariances import Covariances
from ._inputs import fit_initial_state
from ._noise import innovation_form
from ._records import as_delay, as_record
from ._scan import linear_states
from ._stable import spectral_radius
from .order import OrderEvidence
from .whiteness import Whiteness, whiteness

if TYPE_CHECKING:
    import control

__all__ = ["IdentificationReport", "InnovationModel"]


@dataclass(frozen=True, eq=False)
class IdentificationReport(Result):
    """How a model was found.

    Parameters
    ----------
    method : str
        "cva", "moesp" or "n4sid".
    past, future : int
        Horizons, in samples.
    samples : int
        Samples used, over all records.
    order : OrderEvidence
        What the criteria say.
    free_radius : float
        Spectral radius of A without the constraint of stability.
    stability_price : float
        By how much the constraint of stability raised the sum of squares that A minimises, relative to the sum of
        squares of what A is to explain; 0 where the free fit was stable.
    feedthrough : bool
        Whether D was estimated.
    """

    method: str
    past: int
    future: int
    samples: int
    order: OrderEvidence
    free_radius: float
    stability_price: float
    feedthrough: bool

    def __repr__(self) -> str:
        return (
            f"IdentificationReport({self.method}, past={self.past}, future={self.future}, samples={self.samples}, "
            f"order={self.order.chosen} by {self.order.rule}, free_radius={self.free_radius:.4f}, "
            f"stability_price={self.stability_price:.2g})"
        )

    def _repr_html_(self) -> str:
        rows = [
            [name, f"{value:.4g}" if isinstance(value, float) else str(value)] for name, value in vars(self).items()
        ]
        return table(["", ""], rows, caption="how the model was found")


def _no_offset() -> Array:
    return frozen(np.zeros(0))


@dataclass(frozen=True, eq=False)
class InnovationModel(Result):
    r"""A linear model in innovation form.

    .. math:: x_{t+1} = A x_t + B (u_{t-d} - \bar u) + K e_t, \qquad y_t = \bar y + C x_t + D (u_{t-d} - \bar u) + e_t,
              \qquad E e_t e_t^T = \Sigma .

    Parameters
    ----------
    A : array_like [n, n]
        Transition.
    B : array_like [n, m]
        Input matrix; m = 0 without inputs.
    C : array_like [p, n]
        Read-out.
    D : array_like [p, m]
        Feed-through.
    K : array_like [n, p]
        Gain of the Kalman filter.
    innovation_covariance : array_like [p, p]
        :math:`\Sigma`, in squared units of y.
    dt : float or True
        Sampling period.
    y_offset : array_like [p], optional
        :math:`\bar y`; zero by default.
    u_offset : array_like [m], optional
        :math:`\bar u`; zero by default.
    delay : int or sequence of int
        d, in samples; one for all inputs or one for each.
    initial_states : tuple of ndarray [n]
        Estimated state at the first sample of each record that the model was fitted to (after the delay).
    innovations : tuple of ndarray [T_i, p]
        One-step prediction errors on the records that the model was fitted to.
    report : IdentificationReport or None
        How the model was found; None for a model made by hand.

    Examples
    --------
    >>> model = InnovationModel([[0.9]], [[1.0]], [[1.0]], [[0.0]], [[0.5]], [[0.1]])
    >>> model
    InnovationModel(order=1, inputs=1, outputs=1, radius=0.9000)
    >>> model.predict([1.0, 0.0, 0.0], [0.0, 0.0, 1.0]).ravel().round(3).tolist()
    [0.0, 0.5, 0.2]
    """

    A: Array
    B: Array
    C: Array
    D: Array
    K: Array
    innovation_covariance: Array
    dt: Any = True
    y_offset: Array = field(default_factory=_no_offset)
    u_offset: Array = field(default_factory=_no_offset)
    delay: Any = 0
    initial_states: tuple[Array, ...] = ()
    innovations: tuple[Array, ...] = ()
    report: IdentificationReport | None = None

    def __post_init__(self) -> None:
        a = as_square(self.A, "A", real=True, allow_empty=True)
        n = len(a)
        c = as_array(self.C, "C", shape=("p", n), real=True, allow_empty=True)
        p = len(c)
        b = as_array(self.B, "B", shape=(n, "m"), real=True, allow_empty=True)
        m = b.shape[1]
        checked = {
            "A": a,
            "B": b,
            "C": c,
            "D": as_array(self.D, "D", shape=(p, m), real=True, allow_empty=True),
            "K": as_array(self.K, "K", shape=(n, p), real=True, allow_empty=True),
            "innovation_covariance": as_array(
                self.innovation_covariance, "innovation_covariance", shape=(p, p), real=True
            ),
        }
        for name, size in (("y_offset", p), ("u_offset", m)):
            given = getattr(self, name)
            empty = isinstance(given, np.ndarray) and given.size == 0
            checked[name] = np.zeros(size) if empty else as_array(given, name, shape=(size,), real=True)
        for name, value in checked.items():
            object.__setattr__(self, name, frozen(value))
        object.__setattr__(self, "delay", as_delay(self.delay, m))

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
        return len(self.C)

    @property
    def radius(self) -> float:
        """Spectral radius of A."""
        return spectral_radius(self.A)

    def __repr__(self) -> str:
        delays = f", delay={list(self.delay)}" if any(self.delay) else ""
        return (
            f"InnovationModel(order={self.order}, inputs={self.inputs}, outputs={self.outputs}, "
            f"radius={self.radius:.4f}{delays})"
        )

    def _repr_html_(self) -> str:
        moduli = np.sort(np.abs(np.linalg.eigvals(self.A)))[::-1] if self.order else np.zeros(0)
        rows = [
            ["moduli of the eigenvalues of A", np.array2string(moduli, precision=4)],
            ["variance of the innovations", np.array2string(np.diag(self.innovation_covariance), precision=4)],
            ["found by", repr(self.report) if self.report is not None else "given"],
        ]
        return table(["", ""], rows, caption=repr(self))

    # ---------------------------------------------------------------- data
    def _centred(self, y: Any, u: Any) -> tuple[Array, Array]:
        """Deviations of y and of the delayed u from their offsets."""
        out = as_record(y, "y")
        if np.isnan(out).any():
            t, channel = np.argwhere(np.isnan(out))[0]
            raise ValueError(f"y: expected finite numbers, got NaN at sample {t}, channel {channel}; predict the "
                             f"stretches without missing samples one by one")  # fmt: skip
        if out.shape[1] != self.outputs:
            raise ValueError(f"y: expected {self.outputs} channels, got {out.shape[1]}")
        return out - self.y_offset, self._inputs(u, len(out))

    def _inputs(self, u: Any, steps: int | None) -> Array:
        if u is None:
            if self.inputs:
                raise ValueError(f"u: expected {self.inputs} inputs, got none; give u, of the length of y")
            return np.zeros((steps or 0, 0))
        array = as_record(u, "u")
        if np.isnan(array).any():
            t, channel = np.argwhere(np.isnan(array))[0]
            raise ValueError(f"u: expected finite numbers, got NaN at sample {t}, channel {channel}")
        if array.shape[1] != self.inputs:
            raise ValueError(f"u: expected {self.inputs} channels, got {array.shape[1]}")
        if steps is not None and len(array) != steps:
            raise ValueError(f"u: expected {steps} samples, as many as y has, got {len(array)}")
        centred = array - self.u_offset
        for j, d in enumerate(self.delay):
            if d:
                centred[:, j] = np.concatenate([np.zeros(min(d, len(array))), centred[: max(len(array) - d, 0), j]])
        return centred

    def _start(self, x0: Any, y: Array | None, u: Array) -> Array:
        if x0 is None:
            return np.zeros(self.order)
        if isinstance(x0, str):
            if x0 != "fit" or y is None:
                raise ValueError(f"x0: expected None, 'fit' (where y is given) or a state, got {x0!r}")
            first = min(len(y), max(50, 5 * self.order))
            return fit_initial_state(self.A, self.B, self.C, self.D, y[:first], u[:first])
        return as_array(x0, "x0", shape=(self.order,), real=True)

    def initial_state(self, y: Any, u: Any = None, *, samples: int | None = None) -> Array:
        """Return the state at the first sample whose free run comes nearest to the first samples.

        Parameters
        ----------
        y : array_like [T] or [T, p]
            Outputs.
        u : array_like [T] or [T, m], optional
            Inputs.
        samples : int, optional
            How many samples to use; all by default.

        Returns
        -------
        ndarray [n]
            The state.
        """
        a, b = self._centred(y, u)
        count = len(a) if samples is None else as_index(samples, "samples", 1, len(a))
        return fit_initial_state(self.A, self.B, self.C, self.D, a[:count], b[:count])

    def states(self, y: Any, u: Any = None, *, x0: Any = None) -> Array:
        r"""Return the predicted states :math:`x_{t|t-1}` of the steady-state Kalman filter.

        Parameters
        ----------
        y : array_like [T] or [T, p]
            Outputs.
        u : array_like [T] or [T, m], optional
            Inputs.
        x0 : array_like [n], optional
            State before the first sample; zero (the mean) by default, "fit" for the one that fits the first samples.

        Returns
        -------
        ndarray [T + 1, n]
            Row t is predicted from the outputs before t; the last row is the state after the data.
        """
        a, b = self._centred(y, u)
        return self._states(a, b, self._start(x0, a, b))

    def _states(self, y: Array, u: Array, start: Array) -> Array:
        drive = y @ self.K.T + u @ (self.B - self.K @ self.D).T
        return linear_states(self.A - self.K @ self.C, drive, start)

    def predict(self, y: Any, u: Any = None, *, steps: int = 1, x0: Any = None) -> Array:
        r"""Predict each sample from the outputs up to ``steps`` samples before it.

        .. math:: \hat y_{t|t-k} = \bar y + C A^{k-1} x_{t-k+1} + \text{inputs up to } t

        Parameters
        ----------
        y : array_like [T] or [T, p]
            Outputs.
        u : array_like [T] or [T, m], optional
            Inputs, known up to the predicted sample.
        steps : int
            k, at least 1.
        x0 : array_like [n], optional
            State before the first sample; zero (the mean) by default, "fit" for the one that fits the first samples
            (which then are no longer predictions).

        Returns
        -------
        ndarray [T, p]
            Row t predicts y_t; the first ``steps - 1`` rows use no output at all.
        """
        k = as_index(steps, "steps", 1, 10**9)
        a, b = self._centred(y, u)
        start = self._start(x0, a, b)
        x = self._states(a, b, start)[:-1]
        count = len(a)
        if k > 1:
            run = linear_states(self.A, b[: k - 1] @ self.B.T, start)
            ahead = x[: max(count - k + 1, 0)]
            for i in range(k - 1):
                if len(ahead):
                    ahead = ahead @ self.A.T + b[i : i + len(ahead)] @ self.B.T
            x = np.concatenate([run[: min(k - 1, count)], ahead])[:count]
        return x @ self.C.T + b @ self.D.T + self.y_offset

    def simulate(
        self,
        u: Any = None,
        *,
        steps: int | None = None,
        x0: Any = None,
        noise: bool | None = None,
        rng: int | np.random.Generator | None = None,
    ) -> Array:
        """Run the model freely.

        Parameters
        ----------
        u : array_like [T] or [T, m], optional
            Inputs.
        steps : int, optional
            Samples to make, for a model without inputs.
        x0 : array_like [n], optional
            State at the first sample; by default zero, or drawn from the stationary law where there is noise and A is
            stable.
        noise : bool, optional
            Whether innovations drive the model; by default only where there are no inputs.
        rng : int or numpy.random.Generator, optional
            Source of the innovations.

        Returns
        -------
        ndarray [T, p]
            Outputs.
        """
        if self.inputs == 0 and u is None:
            if steps is None:
                raise ValueError("steps: expected a number of samples for a model without inputs, got None")
            b = np.zeros((as_index(steps, "steps", 1, 10**9), 0))
        else:
            if steps is not None:
                raise ValueError("steps: expected None for a model with inputs (u says how many), got " + repr(steps))
            b = self._inputs(u, None)
        noisy = self.inputs == 0 if noise is None else bool(noise)
        source = np.random.default_rng(rng)
        errors = np.zeros((len(b), self.outputs))
        if noisy:
            values, vectors = np.linalg.eigh(self.innovation_covariance)
            root = vectors * np.sqrt(np.maximum(values, 0.0))
            errors = source.standard_normal((len(b), self.outputs)) @ root.T
        if x0 is None and noisy and self.order and self.radius < 1:
            start = self._state_root() @ source.standard_normal(self.order)
        else:
            start = self._start(x0, None, b)
        x = linear_states(self.A, b @ self.B.T + errors @ self.K.T, start)[:-1]
        return x @ self.C.T + b @ self.D.T + errors + self.y_offset

    def whiteness(
        self,
        y: Any = None,
        u: Any = None,
        *,
        lags: int | None = None,
        permutations: int = 499,
        rng: int | np.random.Generator | None = 0,
    ) -> Whiteness:
        """Test the innovations for whiteness (see :func:`solomonic.realization.whiteness`).

        Parameters
        ----------
        y : array_like [T, p], optional
            Outputs to predict; by default the innovations of the longest record that the model was fitted to.
        u : array_like [T, m], optional
            Inputs.
        lags : int, optional
            Lags of the test.
        permutations : int
            Random orders; 0 for none.
        rng : int or numpy.random.Generator, optional
            Source of the permutations.

        Returns
        -------
        Whiteness
            The tests; degrees of freedom are those of the innovations a model of this order was fitted to, if it was.
        """
        if y is not None:
            errors, fitted = as_record(y, "y") - self.predict(y, u), 0
        elif self.innovations:
            errors = max(self.innovations, key=len)
            fitted = 2 * self.order * self.outputs
        else:
            raise ValueError("y: expected data, got none, and the model holds no innovations of its own; give y and u")
        return whiteness(errors, lags=lags, fitted=fitted, permutations=permutations, rng=rng)

    # ---------------------------------------------------------------- second order
    def _state_root(self) -> Array:
        values, vectors = np.linalg.eigh(self.innovation_covariance)
        drive = self.K @ (vectors * np.sqrt(np.maximum(values, 0.0)))
        return gramian_factors(Matrices(self.A, drive, self.C, np.zeros((self.outputs, self.outputs)), True))[0]

    def covariances(self) -> Covariances:
        r"""Return (A, C, Cbar, L0) of the noise part: :math:`\Lambda_k = C A^{k-1} \bar C^T`, :math:`\Lambda_0 = L_0`.

        Returns
        -------
        Covariances
            What :func:`faurre`, :func:`forward_model` and the others take: ``faurre(*model.covariances())``.
        """
        if self.radius >= 1:
            raise ValueError(f"A: expected a stable model, got spectral radius {self.radius:.6g}")
        root = self._state_root()
        p = root @ root.T
        cbar = (self.A @ p @ self.C.T + self.K @ self.innovation_covariance).T
        return Covariances(self.A, self.C, cbar, self.C @ p @ self.C.T + self.innovation_covariance)

    # ---------------------------------------------------------------- conversion
    def to_statespace(self, *, noise: bool = False) -> control.StateSpace:
        """Convert to python-control; delays become shift registers.

        Parameters
        ----------
        noise : bool
            Add the innovations as inputs after u, with the gain K.

        Returns
        -------
        control.StateSpace
            From deviations of u (and e) to deviations of y.
        """
        n, m, p = self.order, self.inputs, self.outputs
        b, d = self.B, self.D
        if noise:
            b, d = np.hstack([b, self.K]), np.hstack([d, np.eye(p)])
        longest = sum(self.delay)
        if not longest:
            return to_statespace(Matrices(self.A, b, self.C, d, self.dt))
        size = n + longest
        a2, b2 = np.zeros((size, size)), np.zeros((size, b.shape[1]))
        c2, d2 = np.zeros((p, size)), d.copy()
        a2[:n, :n], c2[:, :n], b2[:n] = self.A, self.C, b
        cell = n
        for j in range(m):
            k = self.delay[j]
            if k:
                a2[cell + 1 : cell + k, cell : cell + k - 1] = np.eye(k - 1)
                a2[:n, cell + k - 1], c2[:, cell + k - 1] = b[:, j], d[:, j]
                b2[:n, j], d2[:, j], b2[cell, j] = 0.0, 0.0, 1.0
                cell += k
        return to_statespace(Matrices(a2, b2, c2, d2, self.dt))

    @classmethod
    def from_statespace(
        cls,
        sys: Any,
        *,
        Q: Any = None,
        R: Any = None,
        S: Any = None,
        K: Any = None,
        innovation_covariance: Any = None,
    ) -> InnovationModel:
        """Make a model of a python-control system and its noise.

        Parameters
        ----------
        sys : control.StateSpace or tuple of array_like
            The system from u to y, discrete; or (A, B, C) or (A, B, C, D).
        Q : array_like [n, n], optional
            Covariance of the state noise.
        R : array_like [p, p], optional
            Covariance of the output noise.
        S : array_like [n, p], optional
            Their cross-covariance; zero by default.
        K : array_like [n, p], optional
            The gain itself, in place of Q and R.
        innovation_covariance : array_like [p, p], optional
            Covariance of the innovations, together with K.

        Returns
        -------
        InnovationModel
            In innovation form; the gain solves the Riccati equation where Q and R are given.
        """
        m = as_matrices(sys)
        if not m.discrete:
            raise ValueError(
                "sys: expected a discrete-time system, got a continuous one; sample it first (sample_system)"
            )
        n, p = m.order, m.C.shape[0]
        if (K is None) != (innovation_covariance is None) or (Q is None) != (R is None) or (K is None) == (Q is None):
            raise ValueError("K, Q: expected either Q and R (and S), or K and innovation_covariance, got "
                             f"Q {'given' if Q is not None else 'absent'}, R {'given' if R is not None else 'absent'}, "
                             f"K {'given' if K is not None else 'absent'}, innovation_covariance "
                             f"{'given' if innovation_covariance is not None else 'absent'}")  # fmt: skip
        if K is not None:
            return cls(m.A, m.B, m.C, m.D, K, innovation_covariance, dt=m.dt)
        q, r = as_array(Q, "Q", shape=(n, n), real=True), as_array(R, "R", shape=(p, p), real=True)
        s = np.zeros((n, p)) if S is None else as_array(S, "S", shape=(n, p), real=True)
        joint = np.block([[q, s], [s.T, r]])
        values = np.linalg.eigvalsh((joint + joint.T) / 2)
        if values[0] < -1e-10 * max(values[-1], 1e-300):
            raise ValueError(
                f"Q, R, S: expected a positive semidefinite joint covariance, got smallest eigenvalue {values[0]:.3g}"
            )
        form = innovation_form(m.A, m.C, q, s, r)
        return cls(m.A, m.B, m.C, m.D, form.K, form.covariance, dt=m.dt)
