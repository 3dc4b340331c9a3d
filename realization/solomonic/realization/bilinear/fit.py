"""Identification of bilinear systems from inputs and outputs."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from .._html import table
from .._results import Result
from .._validate import Array, as_array, as_index, as_number, describe
from . import _pem
from ._subspace import Estimate, subspace
from .from_data import as_runs
from .system import BilinearSystem

__all__ = ["BilinearFit", "FitWarning", "fit_bilinear"]


class FitWarning(UserWarning):
    """A fit stopped before it converged; the best model so far is returned.

    Examples
    --------
    >>> issubclass(FitWarning, UserWarning)
    True
    """


@dataclass(frozen=True, eq=False)
class BilinearFit(Result):
    r"""A bilinear model with the gain of its predictor.

    .. math:: x_{t+1} = A x_t + \sum_j u_{t,j} N_j x_t + B u_t + b + K e_t, \qquad y_t = C x_t + D u_t + d + e_t .

    Parameters
    ----------
    system : BilinearSystem
        A, N, B, C and D.
    K : ndarray [n, p]
        How the prediction error moves the state; zero for a model of output noise.
    state_offset, output_offset : ndarray [n], [p]
        b and d; zero unless ``constant`` was asked for.
    x0 : ndarray [runs, n]
        The states that the records started from.
    covariance : ndarray [p, p]
        Of the one-step errors on the records.
    method : str
        "subspace" or "pem".
    converged : bool
        Whether the search ended by itself ("subspace" makes a fixed number of steps).
    reason : str
        Why it ended.
    singular_values : ndarray
        Of what words of the future see of the past: order evidence, in the unit of the outputs' standard deviation.
    costs : tuple of float
        Root mean square error of each start of the search, relative to the outputs' standard deviation.
    settings : dict
        What was chosen on held-out data, and the arguments.

    Examples
    --------
    >>> import numpy as np
    >>> from solomonic.realization import gallery
    >>> system = gallery.random_bilinear(2, radius=0.5, rng=1)
    >>> u = np.random.default_rng(0).standard_normal((400, 1))
    >>> y = system.simulate(u)
    >>> fit = fit_bilinear(y, u, 2, rng=0)
    >>> bool(np.abs(fit.predict(y, u) - y)[20:].max() < 1e-5)
    True
    """

    system: BilinearSystem
    K: Array
    state_offset: Array
    output_offset: Array
    x0: Array
    covariance: Array
    method: str
    converged: bool
    reason: str
    singular_values: Array
    costs: tuple[float, ...]
    settings: dict[str, Any]

    @property
    def rmse(self) -> float:
        """Root mean square of the one-step errors on the records, over all outputs."""
        return float(np.sqrt(np.trace(self.covariance) / len(self.covariance)))

    def __repr__(self) -> str:
        s = self.system
        return (
            f"BilinearFit({self.method}, order={s.order}, inputs={s.inputs}, outputs={s.outputs}, "
            f"rmse={self.rmse:.3g}, "
            f"converged={self.converged})"
        )

    def _repr_html_(self) -> str:
        rows = (
            ("one-step error", f"{self.rmse:.4g}"),
            ("ended", self.reason),
            ("starts", ", ".join(f"{x:.3g}" for x in self.costs)),
            ("singular values", ", ".join(f"{x:.3g}" for x in self.singular_values[:10])),
        )
        return table(("", ""), rows, caption=repr(self))

    # ---------------------------------------------------------------- use
    def _whole(self) -> BilinearSystem:
        """The system with the constant as one more input, for what :meth:`_with_constant` makes of the inputs."""
        s = self.system
        n = s.order
        more = np.concatenate([s.N, np.zeros((1, n, n))])
        b, d = np.column_stack([s.B, self.state_offset]), np.column_stack([s.D, self.output_offset])
        return BilinearSystem(s.A, more, b, s.C, d)

    def simulate(self, u: Any, x0: Any = None) -> Array:
        """Return the outputs of the model alone, in free run: no measurement enters.

        Parameters
        ----------
        u : array_like [T, m] or [runs, T, m]
            The inputs.
        x0 : array_like [n] or [runs, n], optional
            The state before the first input; zero by default. See :meth:`initial_state`.

        Returns
        -------
        ndarray [T, p] or [runs, T, p]
            The outputs.
        """
        u = as_array(u, "u", ndim=(2, 3), real=True)
        return self._whole().simulate(np.concatenate([u, np.ones((*u.shape[:-1], 1))], -1), x0)

    def initial_state(self, y: Any, u: Any, *, steps: int | None = None) -> Array:
        """Return the state a record started from, by least squares in free run on its first steps.

        Parameters
        ----------
        y : array_like [T, p]
            Outputs ``y``.
        u : array_like [T, m]
            Inputs ``u``.
        steps : int, optional
            How many steps are used: ``steps``; all by default.

        Returns
        -------
        ndarray [n]
            The state; that of least norm where the steps do not determine it.
        """
        y, u = (part[0] for part in as_runs(y, u))
        steps = len(y) if steps is None else as_index(steps, "steps", 1, len(y))
        s = self.system
        eye = np.eye(s.order)
        free = self.simulate(u[:steps], np.zeros(s.order))
        ones = np.repeat(np.concatenate([u[:steps], np.zeros((steps, 1))], 1)[None], s.order, 0)
        seen = self._whole().simulate(ones, eye) - self._whole().simulate(ones, 0 * eye)
        columns = seen.transpose(1, 2, 0).reshape(-1, s.order)
        return np.linalg.lstsq(columns, (y[:steps] - free).reshape(-1), rcond=None)[0]

    def predict(self, y: Any, u: Any, *, x0: Any = None) -> Array:
        """Return the one-step predictions, aligned with y: row t uses the measurements before t and the inputs up to t.

        Parameters
        ----------
        y : array_like [T, p]
            Outputs ``y``.
        u : array_like [T, m]
            Inputs ``u``.
        x0 : array_like [n], optional
            The state before the first step, ``x0``; zero by default.

        Returns
        -------
        ndarray [T, p]
            The predictions.
        """
        y, u = as_runs(y, u)
        s = self.system
        if y.shape[2] != s.outputs or u.shape[2] != s.inputs:
            raise ValueError(
                f"y, u: expected {s.outputs} outputs and {s.inputs} inputs, got shapes {list(y.shape[1:])} and "
                f"{list(u.shape[1:])}"
            )
        # with e = y - C x - D v the predictor is bilinear in (u, y, 1)
        whole, m, n = self._whole(), s.inputs, s.order
        more = np.concatenate([s.N, np.zeros((s.outputs + 1, n, n))])
        b = np.column_stack([whole.B[:, :m] - self.K @ s.D, self.K, self.state_offset - self.K @ self.output_offset])
        d = np.column_stack([s.D, np.zeros((s.outputs, s.outputs)), self.output_offset])
        filter_ = BilinearSystem(s.A - self.K @ s.C, more, b, s.C, d)
        return filter_.simulate(np.concatenate([u, y, np.ones((*u.shape[:2], 1))], 2)[0], x0)


def fit_bilinear(
    y: Any,
    u: Any,
    order: int,
    *,
    method: str = "pem",
    noise: str = "innovations",
    constant: bool = False,
    past: int | None = None,
    ridge: float = 0.0,
    restarts: int = 1,
    iterations: int = 100,
    start: BilinearFit | None = None,
    time_limit: float | None = None,
    rng: int | np.random.Generator | None = None,
    progress: bool = False,
) -> BilinearFit:
    r"""Fit a bilinear model to measured inputs and outputs.

    .. math:: \min \sum_t \|e_t\|^2, \qquad x_{t+1} = A x_t + \sum_j u_{t,j} N_j x_t + B u_t + K e_t, \quad
              e_t = y_t - C x_t - D u_t .

    Parameters
    ----------
    y : array_like [T], [T, p] or [runs, T, p]
        Outputs.
    u : array_like [T], [T, m] or [runs, T, m]
        Inputs; they need not be white.
    order : int
        States n.
    method : str
        "subspace": a bilinear predictor over all words in dual form, with ridge, forgetting and weight of the products
        chosen on held-out data; its states by a singular value decomposition; the matrices by least squares; at most
        three Gauss-Newton steps against the bias of the ridge (a one-step estimator). "pem": prediction error, to
        convergence, started from the subspace answer.
    noise : str
        "innovations": K is estimated, one-step errors are minimized. "output": K = 0, the error in free run is
        minimized (for "pem").
    constant : bool
        Let a constant enter the state and the output: for records whose means are no equilibrium.
    past : int, optional
        Lags of the predictor of "subspace"; 12 by default, less for short records.
    ridge : float
        For "pem": penalty on the squared entries of A, N, C and K (scaled data), relative to the sum of squared
        outputs.
    restarts : int
        For "pem": starts; the first from the subspace answer, the others from random changes of it. The best is kept.
    iterations : int
        For "pem": most steps of a start.
    start : BilinearFit, optional
        For "pem": a model to start from in place of the subspace answer.
    time_limit : float, optional
        For "pem": seconds after which the best so far is returned.
    rng : int, numpy.random.Generator or None
        Source of randomness; the same seed gives the same model (without a time limit).
    progress : bool
        Show a bar of the starts.

    Returns
    -------
    BilinearFit
        ``.system``, ``.K``, ``.simulate``, ``.predict``, and how the fit ended.

    Warns
    -----
    FitWarning
        The search did not converge: the best model so far is returned, with the reason.

    Raises
    ------
    TypeError
        Not arrays of real numbers.
    ValueError
        Lengths that differ, NaN, records too short for the order, constant outputs, or a method that does not exist.

    Notes
    -----
    PEM is separable: given A, N, C and K the errors are linear in B, D and the initial states, which are solved for,
    and
    the Jacobian is projected. It comes exact from one band matrix, with states and derivatives as right-hand sides, so
    a
    step costs some :math:`T n^2 (n^2 (m + 1) + 2 n p)` operations in compiled code. Steps are Levenberg-Marquardt; in
    the :math:`n^2` directions that only change the states, none is made. For K = 0 the search begins with short pieces
    of
    the records, each with a state of its own (multiple shooting, seams open), then joins them, so that it does not
    start in
    an explosion.

    References
    ----------
    .. [1] V. Verdult, M. Verhaegen, *Kernel methods for subspace identification of multivariable LPV and bilinear
       systems*, Automatica 41 (2005) 1557.
    .. [2] J.-W. van Wingerden, M. Verhaegen, *Subspace identification of bilinear and LPV systems for open- and
       closed-loop data*, Automatica 45 (2009) 372.
    .. [3] G. H. Golub, V. Pereyra, *The differentiation of pseudo-inverses and nonlinear least squares problems whose
       variables separate*, SIAM J. Numer. Anal. 10 (1973) 413.

    Examples
    --------
    >>> import numpy as np
    >>> from solomonic.realization import gallery
    >>> system = gallery.random_bilinear(2, radius=0.5, rng=1)
    >>> u = np.random.default_rng(0).standard_normal((400, 1))
    >>> fit = fit_bilinear(system.simulate(u), u, 2, rng=0)
    >>> bool(fit.rmse < 1e-6), fit.system.equivalent(system, tol=1e-4).verdict
    (True, True)
    """
    y, u = as_runs(y, u)
    n = as_index(order, "order", 1, 1000)
    restarts, iterations = as_index(restarts, "restarts", 1, 10**6), as_index(iterations, "iterations", 1, 10**6)
    ridge = as_number(ridge, "ridge", "a number of at least 0", lambda x: x >= 0)
    if time_limit is not None:
        time_limit = as_number(time_limit, "time_limit", "seconds above 0", lambda x: x > 0)
    for name, value, choices in (("method", method, ("subspace", "pem")), ("noise", noise, ("innovations", "output"))):
        if value not in choices:
            raise ValueError(f"{name}: expected {choices[0]!r} or {choices[1]!r}, got {describe(value)}")
    generator = np.random.default_rng(rng)
    deadline = np.inf if time_limit is None else time.monotonic() + time_limit
    (runs_, steps, p), m = y.shape, u.shape[2]
    depth = as_index(past, "past", 1, 10**4) if past is not None else max(n + 1, min(12, steps // 8))
    ahead = depth + 2
    least = max(ahead + 8 * n, -(-4 * n * (m + p + n) // runs_))
    if steps < least:
        raise ValueError(
            f"y, u: expected records of at least {least} steps for order {n} and past {depth}, got {steps}; take a "
            f"smaller "
            f"order or past"
        )
    size_y, size_u = y.std((0, 1)), np.sqrt(np.mean(u**2, (0, 1)))
    if not (size_y > 0).all():
        raise ValueError(f"y: expected outputs that move, got output {int(np.argmin(size_y))} constant")
    if not (size_u > 0).all():
        raise ValueError(f"u: expected inputs that are not zero, got input {int(np.argmin(size_u))} zero")
    v = np.concatenate([u / size_u, np.ones((runs_, steps, 1))], 2) if constant else u / size_u
    data = list(zip(y / size_y, u / size_u, v, strict=True))
    scale = _Scale(size_y, size_u, constant)
    facts: dict[str, Any] = {"past": depth, "noise": noise, "constant": constant, "ridge": ridge}
    if start is None:
        first = subspace(data, n, depth, generator)
        facts |= first.settings
    else:
        first = scale.into(start, n)
    if method == "subspace":
        whole = _pem.pieces(data, steps)
        theta = _pem.Parameters(first.A, first.N, first.C, first.K)
        fitted = _pem.residuals(theta, whole, noise=True, jacobian=False)
        assert fitted is not None  # the subspace estimate was chosen by its errors
        return scale.out(theta, fitted, first, method, True, "least squares and three Gauss-Newton steps", (), facts)

    with_noise = noise == "innovations"
    best: tuple[float, _pem.Parameters, _pem.Fitted, str] | None = None
    costs = []
    for number in tqdm(range(restarts), desc="starts", disable=not progress):
        theta = _start(first, number, generator)
        lengths = [steps] if with_noise else [max(4 * n, 24), max(8 * n, steps // 6), steps]
        found, why = None, ""
        for length in lengths:
            whole = _pem.pieces(data, length)
            rounds = iterations if length == steps else max(5, iterations // 4)
            theta, found, why = _pem.minimize(
                theta,
                whole,
                noise=with_noise,
                iterations=rounds,
                ridge=ridge * runs_ * steps * p,
                stop=lambda iteration, cost: time.monotonic() > deadline,
            )
            if why == "stopped" and length != steps:
                found = _pem.residuals(theta, _pem.pieces(data, steps), noise=with_noise, jacobian=False)
                break
        if found is not None:
            cost = float(np.sqrt(np.mean(found.errors**2)))
            costs.append(cost)
            if best is None or cost < best[0]:
                best = (cost, theta, found, why)
        if time.monotonic() > deadline:
            break
    if best is None:
        fallback = _pem.Parameters(first.A, first.N, first.C, first.K)
        fitted = _pem.residuals(fallback, _pem.pieces(data, steps), noise=True, jacobian=False)
        if fitted is None:
            raise ValueError(
                "y, u: every start of the search grows without bound; take noise='innovations' or a smaller order"
            )
        best = (np.inf, fallback, fitted, "every start grows without bound; this is the subspace answer")
    _, theta, fitted, why = best
    converged = why == "converged"
    if not converged:
        words = {"iterations": f"{iterations} iterations were not enough", "stopped": "the time limit was reached"}
        why = words.get(why, why)
        warnings.warn(f"the fit did not converge: {why}; the best model so far is returned", FitWarning, stacklevel=2)
    return scale.out(theta, fitted, first, method, converged, why, tuple(costs), facts)


def _start(first: Estimate, number: int, rng: np.random.Generator) -> _pem.Parameters:
    """The subspace answer, or a random change of it."""
    theta = _pem.Parameters(first.A, first.N, first.C, first.K)
    if number == 0:
        return theta
    size = 0.1 * (1 + number % 4)
    a, n_j, c, k = (
        x + size * rng.standard_normal(x.shape) * max(float(np.sqrt(np.mean(x**2))), 0.05) for x in theta
    )  # fmt: skip
    radius = float(np.abs(np.linalg.eigvals(a)).max())
    return _pem.Parameters(a * min(1.0, 0.98 / radius) if radius > 0 else a, n_j, c, k)


class _Scale:
    """Between the units of the user and those of the fit, where outputs and inputs have size 1."""

    def __init__(self, y: Array, u: Array, constant: bool) -> None:
        self.y, self.u, self.constant = y, u, constant

    def into(self, fit: BilinearFit, order: int) -> Estimate:
        """A model in the units of the fit."""
        s = fit.system
        if (s.order, s.inputs, s.outputs) != (order, len(self.u), len(self.y)):
            raise ValueError(
                f"start: expected a model of order {order} with {len(self.u)} inputs and {len(self.y)} outputs, got "
                f"{fit!r}"
            )
        c, k, b = s.C / self.y[:, None], fit.K * self.y, s.B * self.u
        d = s.D * self.u / self.y[:, None]
        if self.constant:
            b, d = np.column_stack([b, fit.state_offset]), np.column_stack([d, fit.output_offset / self.y])
        return Estimate(s.A, s.N * self.u[:, None, None], b, c, d, k, fit.singular_values, {})

    def out(
        self,
        theta: _pem.Parameters,
        fitted: _pem.Fitted,
        first: Estimate,
        method: str,
        converged: bool,
        reason: str,
        costs: tuple[float, ...],
        facts: dict[str, Any],
    ) -> BilinearFit:
        """The model in the units of the user."""
        n, m, p = len(theta.A), len(self.u), len(self.y)
        b, d = fitted.B, fitted.D * self.y[:, None]
        offsets = (b[:, m], d[:, m]) if self.constant else (np.zeros(n), np.zeros(p))
        system = BilinearSystem(
            theta.A, theta.N / self.u[:, None, None], b[:, :m] / self.u, theta.C * self.y[:, None], d[:, :m] / self.u
        )
        errors = fitted.errors.reshape(-1, p) * self.y
        covariance = errors.T @ errors / len(errors)
        facts = {key: float(x) if isinstance(x, np.floating) else x for key, x in facts.items()}
        return BilinearFit(
            system,
            theta.K / self.y,
            offsets[0],
            offsets[1],
            fitted.x0,
            covariance,
            method,
            converged,
            reason,
            first.singular_values,
            costs,
            facts,
        )
