"""Kalman filter and fixed-interval smoother of a stochastic model, forward or backward, with missing samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._results import Result
from .._validate import Array, frozen
from ..identification._records import as_record
from ..identification._scan import linear_states
from .model import StochasticModel

__all__ = ["Filtered", "Smoothed", "kalman_filter", "kalman_smoother"]

# Relative change of the covariance at which the filter counts as steady.
STEADY = 1e-13


@dataclass(frozen=True, eq=False)
class Filtered(Result):
    r"""What a Kalman filter makes of a record.

    Parameters
    ----------
    predicted : ndarray [T + 1, n]
        :math:`x_{t|t-1}`; the last row is predicted from all the data. For a backward model
        :math:`x_{t|t+1}`, row t + 1 for time t, row 0 being predicted from all the data.
    covariances : ndarray [T + 1, n, n]
        Of their errors.
    innovations : ndarray [T, p]
        :math:`y_t - C x_{t|t-1}`; NaN where the sample is missing.
    innovation_covariances : ndarray [T, p, p]
        Of the innovations.
    log_likelihood : float
        Of the samples there are, in nats.
    steady_after : int
        Steps after which the gain was constant; T where it never was.
    """

    predicted: Array
    covariances: Array
    innovations: Array
    innovation_covariances: Array
    log_likelihood: float
    steady_after: int

    def __repr__(self) -> str:
        steps, n = self.predicted.shape
        return (
            f"Filtered(steps={steps - 1}, order={n}, log_likelihood={self.log_likelihood:.6g}, "
            f"steady_after={self.steady_after})"
        )


@dataclass(frozen=True, eq=False)
class Smoothed(Result):
    """States given the whole record.

    Parameters
    ----------
    states : ndarray [T, n]
        Conditional means.
    covariances : ndarray [T, n, n]
        Conditional covariances.
    log_likelihood : float
        Of the record, in nats.
    """

    states: Array
    covariances: Array
    log_likelihood: float

    def __repr__(self) -> str:
        steps, n = self.states.shape
        return f"Smoothed(steps={steps}, order={n}, log_likelihood={self.log_likelihood:.6g})"


@dataclass(eq=False)
class _Pass:
    """All that the smoother needs of a filter's run, in the order of the run."""

    predicted: Array
    covariances: Array
    innovations: Array
    sigmas: Array
    inverse: Array  # C^T Sigma^{-1} as [T, n, p], zero columns where missing
    closed: Array  # A - K C as [T, n, n]
    log_likelihood: float
    steady_after: int


def _run(model: StochasticModel, y: Array) -> _Pass:
    a, c = model.A, model.C
    q, s, r = model.B @ model.B.T, model.B @ model.D.T, model.D @ model.D.T
    (steps, p), n = y.shape, len(a)
    there = np.isfinite(y)
    gaps = np.flatnonzero(~there.all(axis=1))
    missing, last_gap = set(gaps.tolist()), int(gaps[-1]) if gaps.size else -1
    x, cov = np.zeros(n), model.P
    predicted, covariances = np.zeros((steps + 1, n)), np.empty((steps + 1, n, n))
    sigmas, inverse = np.empty((steps, p, p)), np.zeros((steps, n, p))
    closed, innovations = np.empty((steps, n, n)), np.full((steps, p), np.nan)
    log_likelihood, steady = 0.0, steps
    for t in range(steps):
        predicted[t], covariances[t] = x, cov
        sigma = c @ cov @ c.T + r
        sigmas[t] = sigma
        seen = there[t]
        part, gain = sigma[np.ix_(seen, seen)], np.zeros((n, p))
        error = (y[t] - c @ x)[seen]
        if seen.any():
            solved = np.linalg.solve(part, np.column_stack([c[seen], (a @ cov @ c[seen].T + s[:, seen]).T, error]))
            inverse[t][:, seen] = solved[:, :n].T
            gain[:, seen] = solved[:, n : 2 * n].T
            sign, size = np.linalg.slogdet(part)
            if sign <= 0:
                raise ValueError(
                    "model: expected innovations of full rank, got a singular covariance; leave out outputs"
                )
            log_likelihood -= 0.5 * (seen.sum() * np.log(2 * np.pi) + size + error @ solved[:, -1])
        innovations[t, seen] = error
        closed[t] = a - gain @ c
        x = a @ x + gain[:, seen] @ error
        following = a @ cov @ a.T + q - gain @ sigma @ gain.T
        if t in missing:  # with samples missing the gain is not that of the full covariance
            following = a @ cov @ a.T + q - gain[:, seen] @ part @ gain[:, seen].T
        following = (following + following.T) / 2
        change = float(np.linalg.norm(following - cov))
        cov = following
        if t > last_gap and change <= STEADY * max(float(np.linalg.norm(cov)), 1e-300) and t + 1 < steps:
            steady = t + 1
            break
    if steady < steps:
        rest = slice(steady, steps)
        sigma = c @ cov @ c.T + r
        back = np.linalg.solve(sigma, np.column_stack([c, (a @ cov @ c.T + s).T]))
        gain = back[:, n:].T
        covariances[steady:], sigmas[rest] = cov, sigma
        inverse[rest], closed[rest] = back[:, :n].T, a - gain @ c
        predicted[steady:] = linear_states(a - gain @ c, y[rest] @ gain.T, x)
        errors = y[rest] - predicted[rest] @ c.T
        innovations[rest] = errors
        size = np.linalg.slogdet(sigma)[1]
        quadratic = float(np.sum(errors * np.linalg.solve(sigma, errors.T).T))
        log_likelihood -= 0.5 * ((steps - steady) * (p * np.log(2 * np.pi) + size) + quadratic)
    else:
        predicted[steps], covariances[steps] = x, cov
    return _Pass(predicted, covariances, innovations, sigmas, inverse, closed, float(log_likelihood), steady)


def _checked(model: StochasticModel, y: Any) -> Array:
    if not isinstance(model, StochasticModel):
        raise TypeError(
            f"model: expected a StochasticModel, got {type(model).__name__}; forward_model(*other.covariances()) makes "
            f"one of an InnovationModel"
        )
    record = as_record(y, "y")
    if record.shape[1] != len(model.C):
        raise ValueError(f"y: expected {len(model.C)} channels, got {record.shape[1]}")
    return record if model.forward else record[::-1]


def kalman_filter(model: StochasticModel, y: Any) -> Filtered:
    r"""Filter a record with a stochastic model, from the stationary law.

    .. math:: x_{t+1|t} = A x_{t|t-1} + K_t e_t,\quad \Sigma_t = C P_t C^T + D D^T,\quad
              K_t = (A P_t C^T + B D^T) \Sigma_t^{-1} .

    Parameters
    ----------
    model : StochasticModel
        Forward; a backward model filters from the last sample to the first.
    y : array_like [T] or [T, p]
        The record, with mean zero; NaN marks missing samples, also single channels.

    Returns
    -------
    Filtered
        ``.predicted``, ``.innovations``, ``.log_likelihood`` and covariances.

    Raises
    ------
    TypeError
        Not a model, or not real numbers.
    ValueError
        Another number of channels, infinite samples, innovations of singular covariance.

    Notes
    -----
    The covariance starts at the state covariance of the model, so the likelihood is exact. As soon as the gain is
    steady (and nothing is missing any more), the rest is one linear recursion. Cost: :math:`O(T n^3)` before, and
    :math:`O(T n^2)` after that.

    References
    ----------
    .. [1] B. D. O. Anderson, J. B. Moore, *Optimal Filtering*, Prentice Hall 1979, section 5.4.

    Examples
    --------
    >>> from solomonic.realization import forward_model
    >>> model = forward_model([[0.5]], [[1.0]], [[0.5]], [[1.0]])        # y_t = 0.5 y_{t-1} + e_t
    >>> kalman_filter(model, [1.0, float("nan"), 0.5]).predicted.ravel().round(4).tolist()
    [0.0, 0.5, 0.25, 0.25]
    """
    record = _checked(model, y)
    run = _run(model, record)
    parts = (run.predicted, run.covariances, run.innovations, run.sigmas)
    predicted, covariances, innovations, sigmas = (
        frozen(np.ascontiguousarray(each if model.forward else each[::-1])) for each in parts
    )
    return Filtered(predicted, covariances, innovations, sigmas, run.log_likelihood, run.steady_after)


def kalman_smoother(model: StochasticModel, y: Any) -> Smoothed:
    r"""Estimate the states from the whole record (fixed-interval smoothing).

    .. math:: \hat x_t = x_{t|t-1} + P_t r_{t-1},\qquad r_{t-1} = C^T \Sigma_t^{-1} e_t + (A - K_t C)^T r_t .

    Parameters
    ----------
    model : StochasticModel
        Forward or backward.
    y : array_like [T] or [T, p]
        The record, with mean zero; NaN marks missing samples, also single channels.

    Returns
    -------
    Smoothed
        ``.states``, ``.covariances``.

    Raises
    ------
    TypeError
        Not a model, or not real numbers.
    ValueError
        Another number of channels, infinite samples, innovations of singular covariance.

    Notes
    -----
    No covariance is inverted but that of the innovations, so singular state or output noise is no obstacle. A model and
    its reversal give the same smoothed process (in coordinates :math:`\bar x_t = P^{-1} x_{t+1}`). Cost:
    :math:`O(T n^3)`.

    References
    ----------
    .. [1] P. de Jong, *Smoothing and interpolation with the state-space model*, J. Am. Stat. Assoc. 84 (1989).

    Examples
    --------
    >>> from solomonic.realization import forward_model
    >>> model = forward_model([[0.5]], [[1.0]], [[1.0]], [[2.0]])
    >>> kalman_smoother(model, [1.0, 2.0, 0.5]).states.shape
    (3, 1)
    """
    record = _checked(model, y)
    run = _run(model, record)
    steps, n = len(record), model.order
    r, nn = np.zeros(n), np.zeros((n, n))
    states, covariances = np.empty((steps, n)), np.empty((steps, n, n))
    for t in range(steps - 1, -1, -1):
        seen = ~np.isnan(run.innovations[t])
        column, closed = run.inverse[t][:, seen], run.closed[t]
        r = column @ run.innovations[t, seen] + closed.T @ r
        nn = column @ model.C[seen] + closed.T @ nn @ closed
        p = run.covariances[t]
        states[t] = run.predicted[t] + p @ r
        cov = p - p @ nn @ p
        covariances[t] = (cov + cov.T) / 2
    if not model.forward:
        states, covariances = states[::-1], covariances[::-1]
    return Smoothed(frozen(np.ascontiguousarray(states)), frozen(np.ascontiguousarray(covariances)), run.log_likelihood)
