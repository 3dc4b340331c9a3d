"""From data to a state: subspace identification."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np

from .._linalg import EPS, triangle
from .._repair import RepairWarning
from .._validate import Array, as_number, describe, frozen
from ._horizons import choose_horizons
from ._inputs import InputFit, fit_inputs
from ._noise import InnovationForm, free_run_noise, innovation_form
from ._records import Records, as_delay, as_records, scaled
from ._scan import linear_states
from ._stable import nearest_stable, spectral_radius
from ._subspace import METHODS, Regression, Subspace, subspace
from ._windows import compress
from .delay import estimate_delay
from .model import IdentificationReport, InnovationModel
from .order import CRITERIA, order_evidence

__all__ = ["identify"]


class Dynamics(NamedTuple):
    """A and C, and what their stability cost."""

    A: Array
    C: Array
    free_radius: float
    price: float


def identify(
    y: Any,
    u: Any = None,
    *,
    method: str = "cva",
    order: int | str = "auto",
    past: int | None = None,
    future: int | None = None,
    max_order: int | None = None,
    stable: bool = True,
    feedthrough: bool = True,
    focus: str = "simulation",
    delay: Any = 0,
    center: bool = True,
    missing: str = "error",
    dt: Any = True,
    progress: bool = False,
) -> InnovationModel:
    r"""Identify a linear model in innovation form by a subspace method.

    The state is the part of the past that predicts the future: with past :math:`Z_p` (inputs and outputs), future
    outputs :math:`Y_f` and future inputs :math:`U_f`,

    .. math:: Y_f = L_z Z_p + L_u U_f + E, \qquad W_1 L_z Z_p W_2 = U S V^T, \qquad x_t = S^{-1/2} U^T W_1 L_z z_t .

    Parameters
    ----------
    y : array_like [T] or [T, p], or list of them
        Outputs; a list holds one array a record.
    u : array_like [T] or [T, m], or list of them, optional
        Inputs.
    method : str
        The weights: "cva" (canonical variates), "moesp" or "n4sid". Without inputs the last two are one method.
    order : int or str
        State dimension, or the rule that finds it: "auto" ("svc" for CVA, "bic" otherwise), "aic", "bic", "svc" or
        "gap".
    past : int, optional
        Samples of the past; by default twice the order of the best autoregression (Akaike).
    future : int, optional
        Samples of the future; by default as many as of the past.
    max_order : int, optional
        Largest order that a rule may choose; by default what the horizons allow, up to 30.
    stable : bool
        Keep the spectral radius of A at or below 1 - 1 / (10 T), by a constraint on the fit.
    feedthrough : bool
        Estimate D; zero otherwise.
    focus : str
        What B, D, the offset and the initial states fit, given A and C: the free run, "simulation", or one-step errors,
        "prediction" (always taken without inputs and for an unstable A).
    delay : int, sequence of int or "auto"
        Delay of the inputs in samples, one for all or one for each; "auto" estimates them (:func:`estimate_delay`).
    center : bool
        Estimate offsets: the mean of the inputs, and the constant of the output that fits best.
    missing : str
        What to do about NaN: "error" says where they are, "trim" leaves out missing samples at the ends of a record,
        "split" also cuts records at gaps.
    dt : float or True
        Sampling period.
    progress : bool
        Show a progress bar over long data.

    Returns
    -------
    InnovationModel
        The model, in the user's units, with ``.report`` (order evidence, horizons, price of stability),
        ``.innovations`` and ``.initial_states``.

    Raises
    ------
    TypeError
        Not real numbers.
    ValueError
        Records shorter than the horizons need or of different lengths, NaN, constant or collinear channels, inputs that
        do not excite, an order above what the data can show.

    Warns
    -----
    RepairWarning
        The free fit was unstable; the warning says what the constraint cost.

    Notes
    -----
    All windows are compressed to one triangular factor by QR steps; everything else works on it, whatever the length of
    the data. Without inputs (A, C) regress the states; with inputs they come from the shift structure of the
    observability matrix, which stays sound where inputs are strongly correlated. Noise covariances are those of the
    residuals (of the free run's errors where the focus is simulation), hence positive semidefinite, and K solves their
    Riccati equation. B, D, the offset and the initial states solve a linear least squares problem. Under feedback
    from y to u, projections along the future inputs are biased, by as much as noise matters in the loop. Cost:
    :math:`O(T (q (m + p))^2)` for horizons of q samples in all, and :math:`O(T (n (m + 1) + p m)^2 p)` for the inputs.

    References
    ----------
    .. [1] P. Van Overschee, B. De Moor, *A unifying theorem for three subspace system identification algorithms*,
       Automatica 31 (1995), theorem 1.
    .. [2] W. E. Larimore, *Canonical variate analysis in identification, filtering, and adaptive control*, CDC 1990.
    .. [3] D. Bauer, *Order estimation for subspace methods*, Automatica 37 (2001), equation 5.
    .. [4] M. Verhaegen, *Identification of the deterministic part of MIMO state space models given in innovations form
       from input-output data*, Automatica 30 (1994).

    Examples
    --------
    >>> import numpy as np
    >>> e = np.random.default_rng(0).standard_normal(4000)
    >>> y = np.zeros(4000)
    >>> for t in range(1, 4000):
    ...     y[t] = 0.9 * y[t - 1] + e[t] + 0.5 * e[t - 1]
    >>> model = identify(y)
    >>> model.order, model.A.round(1).tolist()
    (1, [[0.9]])
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {describe(method)}")
    if focus not in ("simulation", "prediction"):
        raise ValueError(f"focus: expected 'simulation' or 'prediction', got {describe(focus)}")
    rule = _order_rule(order, method)
    if isinstance(delay, str):
        if delay != "auto":
            raise ValueError(f"delay: expected a number of samples, one for each input, or 'auto', got {delay!r}")
        delay = 0 if u is None else estimate_delay(y, u, missing=missing)
    records = as_records(y, u, missing=missing, delay=delay)
    plain, y_mean, y_size, u_mean, u_size = scaled(records, center)
    p, m = records.outputs, records.inputs
    past, future = choose_horizons(plain, rule if isinstance(rule, int) else None, past, future)
    factor, samples = compress(plain, past, future, intercept=center, progress=progress)
    _require_excitation(factor, future, m)
    found = subspace(factor, samples, past, future, m, p, method)
    n_top = _largest_order(found, max_order, rule)
    evidence = order_evidence(found, n_top, rule, feedthrough)
    n = evidence.chosen
    data = found.regression(n)
    dynamics = _dynamics(found, data, n, plain, feedthrough, stable)
    if m > 0 and focus == "simulation" and spectral_radius(dynamics.A) < 1:
        fitted = fit_inputs(dynamics.A, dynamics.C, plain, None, feedthrough, center)
        form = free_run_noise(dynamics.A, dynamics.C, _free_run_errors(dynamics, fitted, plain), past, future)
    else:
        form = _residual_noise(dynamics, data, feedthrough)
        fitted = fit_inputs(dynamics.A, dynamics.C, plain, form.K, feedthrough, center)
    if dynamics.price > 0:
        warnings.warn(
            f"the free fit has spectral radius {dynamics.free_radius:.4f}; the model is kept stable (radius "
            f"{spectral_radius(dynamics.A):.4f}), which costs {100 * dynamics.price:.2g} % of the sum of squares that "
            f"A explains; stable=False returns the free fit",
            RepairWarning,
            stacklevel=2,
        )
    errors = tuple(
        (a - _predicted(dynamics, fitted, form.K, a, b, start)) * y_size
        for a, b, start in zip(plain.y, plain.u, fitted.initial_states, strict=True)
    )
    report = IdentificationReport(
        method, past, future, records.samples, evidence, dynamics.free_radius, dynamics.price, feedthrough
    )
    return InnovationModel(
        dynamics.A,
        fitted.B / u_size,
        dynamics.C * y_size[:, None],
        fitted.D * (y_size[:, None] / u_size),
        form.K / y_size,
        form.covariance * np.outer(y_size, y_size),
        dt=dt,
        y_offset=y_mean + fitted.offset * y_size,
        u_offset=u_mean,
        delay=as_delay(delay, m),
        initial_states=tuple(frozen(x) for x in fitted.initial_states),
        innovations=tuple(frozen(e) for e in errors),
        report=report,
    )


def _order_rule(order: int | str, method: str) -> int | str:
    if isinstance(order, str):
        if order == "auto":
            return "svc" if method == "cva" else "bic"
        if order not in CRITERIA:
            raise ValueError(f"order: expected an integer, 'auto' or one of {', '.join(CRITERIA)}, got {order!r}")
        return order
    return int(as_number(order, "order", "an integer of at least 0", lambda x: x >= 0 and x == int(x)))


def _require_excitation(factor: Array, future: int, inputs: int) -> None:
    """Future inputs of full rank, or an error that says of what order they excite."""
    if not inputs:
        return
    values = np.linalg.svd(factor[: future * inputs, : future * inputs], compute_uv=False)
    rank = int(np.sum(values > values[0] * EPS * len(factor)))
    if rank < len(values):
        raise ValueError(
            f"u: expected inputs that excite all {len(values)} directions of {future} future samples, got {rank} (a "
            f"constant excites 1 and a sine 2 for each input); give richer inputs or a shorter future= (at most "
            f"{rank // inputs} samples)"
        )


def _largest_order(found: Subspace, max_order: int | None, rule: int | str) -> int:
    """The largest order scored; raises where the order asked for is above what the data show."""
    shown = min(len(found.readout), (found.future - 1) * found.outputs)
    if isinstance(rule, int):
        if rule > shown:
            raise ValueError(
                f"order: expected at most {shown}, what the past shows of the future in these data (singular values "
                f"{np.array2string(found.singular_values[: rule + 1], precision=2, threshold=8)}), got {rule}"
            )
        return max(rule, min(shown, 30))
    top = (
        30
        if max_order is None
        else int(as_number(max_order, "max_order", "an integer of at least 1", lambda x: x >= 1))
    )
    return min(shown, top)


def _dynamics(found: Subspace, data: Regression, n: int, records: Records, feedthrough: bool, stable: bool) -> Dynamics:
    """A and C: from the shift of the observability matrix with inputs, from the states without."""
    p = found.outputs
    if found.inputs:
        gamma = found.observability[:, :n]
        left, target, c = gamma[:-p], gamma[p:], gamma[:p]
        a = np.linalg.lstsq(left, target, rcond=None)[0]
    else:
        left, target = data.x, data.x_next
        a = np.linalg.lstsq(left, target, rcond=None)[0].T
        c = np.linalg.lstsq(left, data.y, rcond=None)[0].T
    radius = spectral_radius(a)
    bound = 1 - 1 / (10 * max(records.samples, 1))
    if not stable or radius <= bound:
        return Dynamics(a, c, radius, 0.0)
    # In coordinates where the regressors are orthonormal, the sum of squares is a distance between matrices.
    root = triangle(left)
    t = root if found.inputs else np.linalg.inv(root).T
    fit = nearest_stable(t @ a @ np.linalg.inv(t), bound)
    whole = np.linalg.norm(np.linalg.solve(root.T, target.T)) ** 2
    return Dynamics(np.linalg.solve(t, fit.matrix @ t), c, radius, float(fit.distance**2 / whole))


def _residual_noise(dynamics: Dynamics, data: Regression, feedthrough: bool) -> InnovationForm:
    """Gain and innovation covariance from the residuals of the state and output equations."""
    n, rest = len(dynamics.A), np.hstack([data.x_next - data.x @ dynamics.A.T, data.y - data.x @ dynamics.C.T])
    if data.u.shape[1]:
        theta = np.linalg.lstsq(data.u, rest, rcond=None)[0]
        if not feedthrough:
            theta[:, n:] = 0.0
        rest = rest - data.u @ theta
    covariance = rest.T @ rest / data.samples
    return innovation_form(dynamics.A, dynamics.C, covariance[:n, :n], covariance[:n, n:], covariance[n:, n:])


def _free_run_errors(dynamics: Dynamics, fitted: InputFit, records: Records) -> Records:
    """What the inputs and the initial states do not explain."""
    no_gain = np.zeros_like(dynamics.C.T)
    errors = tuple(
        y - _predicted(dynamics, fitted, no_gain, y, u, start)
        for y, u, start in zip(records.y, records.u, fitted.initial_states, strict=True)
    )
    return Records(errors, tuple(np.empty((len(each), 0)) for each in errors))


def _predicted(dynamics: Dynamics, fitted: InputFit, gain: Array, y: Array, u: Array, start: Array) -> Array:
    """One-step predictions of a record."""
    drive = (y - fitted.offset) @ gain.T + u @ (fitted.B - gain @ fitted.D).T
    states = linear_states(dynamics.A - gain @ dynamics.C, drive, start)[:-1]
    return states @ dynamics.C.T + u @ fitted.D.T + fitted.offset
