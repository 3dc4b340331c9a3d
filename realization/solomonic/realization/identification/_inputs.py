"""Input matrices and initial states by least squares, given the dynamics."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._linalg import triangle
from .._validate import Array
from ._records import Records
from ._scan import linear_states

__all__ = ["InputFit", "fit_initial_state", "fit_inputs"]

CHUNK = 20_000


class InputFit(NamedTuple):
    """Input matrices and the initial state of each record.

    Parameters
    ----------
    B : ndarray [n, m]
        Input matrix.
    D : ndarray [p, m]
        Feed-through.
    offset : ndarray [p]
        Constant of the output; zero where it was not asked for.
    initial_states : tuple of ndarray [n]
        One a record.
    """

    B: Array
    D: Array
    offset: Array
    initial_states: tuple[Array, ...]


def _row_states(a: Array, c: Array, u: Array) -> Array:
    """Z_t with y_t = Z_t B: rows C A^{t-1-s} u_s summed over s < t, as [T, p, m, n]."""
    steps, m = u.shape
    p, n = c.shape
    drive = (u[:, None, :, None] * c[:, None]).reshape(steps, p * m, n)
    return linear_states(a.T, drive)[:-1].reshape(steps, p, m, n)


def _direct(u: Array, outputs: int, rows: Array, gain: Array | None) -> Array:
    """Effect of a feed-through [T, p, m, p]; in the predictor -K D u reaches the state too."""
    direct = u[:, None, :, None] * np.eye(outputs)[:, None]
    return direct if gain is None else direct - np.einsum("tpmn,nq->tpmq", rows, gain)


def _free_response(a: Array, c: Array, steps: int) -> Array:
    """C A^t, as [steps, p, n]."""
    p, n = c.shape
    return linear_states(a.T, np.zeros((steps, p, n)), c)[:-1]


def fit_inputs(
    a: Array, c: Array, records: Records, gain: Array | None, feedthrough: bool, offset: bool = False
) -> InputFit:
    r"""Fit B, D, initial states and a constant to :math:`y_t = C x_t + D u_t + \bar y`, or to one-step errors (gain).

    Linear in all unknowns. With a gain, :math:`x_{t+1} = (A - K C) x_t + (B - K D) u_t + K y_t`.
    """
    n, p, m = len(a), len(c), records.inputs
    count = len(records.y)
    direct_size = p * m if feedthrough else 0
    shared_size = n * m + direct_size + (p if offset else 0)
    closed = a if gain is None else a - gain @ c
    # First pass: eliminate each initial state, keep the triangle of the shared unknowns.
    shared = np.zeros((0, shared_size + 1))
    kept: list[tuple[Array, Array, Array]] = []
    for y, u in zip(records.y, records.u, strict=True):
        steps = len(y)
        matrix = np.empty((steps, p, n + shared_size + 1))
        matrix[:, :, :n] = _free_response(closed, c, steps)
        first = n + n * m
        if m:
            rows = _row_states(closed, c, u)  # [T, p, m, n]
            matrix[:, :, n:first] = rows.reshape(steps, p, m * n)
            if feedthrough:
                matrix[:, :, first : first + direct_size] = _direct(u, p, rows, gain).reshape(steps, p, m * p)
        if offset:
            ones = np.ones((steps, 1))
            rows = _row_states(closed, c, ones) if gain is not None else np.zeros((steps, p, 1, n))
            matrix[:, :, first + direct_size : -1] = _direct(ones, p, rows, gain)[:, :, 0]
        matrix[:, :, -1] = y if gain is None else y - linear_states(closed, y @ gain.T)[:-1] @ c.T
        r = triangle(matrix.reshape(steps * p, -1))
        kept.append((r[:n, :n], r[:n, n : n + shared_size], r[:n, -1]))
        if shared_size:
            shared = triangle(np.vstack([shared, r[n:, n:]]))
    theta = np.linalg.lstsq(shared[:, :-1], shared[:, -1], rcond=None)[0] if shared_size else np.zeros(0)
    starts = tuple(np.linalg.lstsq(own, right - cross @ theta, rcond=None)[0] for own, cross, right in kept)
    assert len(starts) == count
    b = theta[: n * m].reshape(m, n).T
    d = theta[n * m : n * m + direct_size].reshape(m, p).T if direct_size else np.zeros((p, m))
    return InputFit(b, d, theta[n * m + direct_size :] if offset else np.zeros(p), starts)


def fit_initial_state(a: Array, b: Array, c: Array, d: Array, y: Array, u: Array) -> Array:
    """The initial state whose free run comes nearest to y."""
    forced = linear_states(a, u @ b.T)[:-1] @ c.T + u @ d.T
    free = _free_response(a, c, len(y)).reshape(-1, len(a))
    return np.linalg.lstsq(free, (y - forced).ravel(), rcond=None)[0]
