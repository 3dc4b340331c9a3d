"""From residual covariances to the innovation form: the Riccati equation of the Kalman filter."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import scipy.linalg

from .._linalg import EPS
from .._riccati import doubling
from .._validate import Array
from ._records import Records
from ._scan import linear_states
from ._windows import compress

__all__ = ["InnovationForm", "free_run_noise", "innovation_form", "positive_part"]


class InnovationForm(NamedTuple):
    """Steady-state Kalman filter of a model with noise.

    Parameters
    ----------
    K : ndarray [n, p]
        Gain: x_{t+1} = A x_t + B u_t + K e_t.
    covariance : ndarray [p, p]
        Of the innovations e.
    state_covariance : ndarray [n, n]
        Of the error of the predicted state.
    """

    K: Array
    covariance: Array
    state_covariance: Array


def positive_part(matrix: Array) -> Array:
    """The nearest positive semidefinite matrix (Frobenius norm)."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.maximum(values, 0.0)) @ vectors.T


def _riccati_solution(a: Array, c: Array, q: Array, s: Array, r: Array) -> Array | None:
    """By doubling where R can be inverted well, else by scipy's pencil; None where neither finds a solution."""
    values = np.linalg.eigvalsh(r)
    if values[0] > 1e-10 * values[-1] > 0:
        t = np.linalg.solve(r, np.hstack([c, s.T]))
        rc, rs = t[:, : len(a)], t[:, len(a) :]
        found = doubling(a - s @ rc, c.T @ rc, q - s @ rs)
        if found.change < 1e-9 and np.isfinite(found.H).all():
            return found.H
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return scipy.linalg.solve_discrete_are(a.T, c.T, q, r, s=s)
        except (np.linalg.LinAlgError, ValueError):
            return None


def innovation_form(a: Array, c: Array, q: Array, s: Array, r: Array) -> InnovationForm:
    r"""Solve :math:`P = A P A^T + Q - K \Sigma K^T`; :math:`\Sigma = C P C^T + R`, :math:`K \Sigma = A P C^T + S`.

    The joint covariance [[Q, S], [S^T, R]] must be positive semidefinite, as that of residuals is. A singular R (exact
    data) is raised by a millionth of a millionth of its scale, or more where the solver needs it.
    """
    n, p = len(a), len(c)
    scale = max(float(np.trace(r)) / p, float(np.trace(c @ q @ c.T)) / p, np.finfo(float).tiny)
    if n == 0:
        return InnovationForm(np.zeros((0, p)), r, np.zeros((0, 0)))
    for lift in (0.0, 1e-12, 1e-9, 1e-6):
        raised = r + lift * scale * np.eye(p)
        x = _riccati_solution(a, c, q, s, raised)
        if x is None:
            continue
        x = positive_part(x)
        sigma = c @ x @ c.T + raised
        gain = np.linalg.solve(sigma, (a @ x @ c.T + s).T).T
        if np.isfinite(gain).all() and np.abs(np.linalg.eigvals(a - gain @ c)).max() < 1 + 1e-9:
            return InnovationForm(gain, (sigma + sigma.T) / 2, x)
    # Nothing that the noise excites is left to estimate: the residuals' own regression.
    raised = r + 1e-9 * scale * np.eye(p)
    return InnovationForm(np.linalg.solve(raised, s.T).T, raised, np.zeros((n, n)))


def free_run_noise(a: Array, c: Array, errors: Records, past: int, future: int) -> InnovationForm:
    r"""Innovation form of the errors of a free run, given (A, C): the part of y that no input explains.

    The errors are a stationary process with the same A and C; their state is what their past says of their future,
    :math:`\xi_t = \Gamma^+ L s_p`, and the residuals of :math:`\xi_{t+1} = A \xi_t + w_t`, :math:`s_t = C \xi_t + v_t`
    have the noise covariances.
    """
    n, p = len(a), len(c)
    if n == 0:
        joined = np.concatenate(errors.y)
        return InnovationForm(np.zeros((0, p)), joined.T @ joined / len(joined), np.zeros((0, 0)))
    factor, samples = compress(errors, past, future)
    before, after = factor[:, : past * p], factor[:, past * p :]
    u, s, vt = np.linalg.svd(before[: past * p], full_matrices=False)
    kept = s > s[0] * EPS * len(factor)
    forward = vt[kept].T @ ((u[:, kept].T @ after[: past * p]) / s[kept, None])
    gamma = linear_states(a.T, np.zeros((future, p, n)), c)[:-1].reshape(future * p, n)
    readout = forward @ np.linalg.pinv(gamma).T
    x, x_next = before @ readout, np.hstack([before[:, p:], after[:, :p]]) @ readout
    rest = np.hstack([x_next - x @ a.T, after[:, :p] - x @ c.T])
    covariance = rest.T @ rest / samples
    return innovation_form(a, c, covariance[:n, :n], covariance[:n, n:], covariance[n:, n:])
