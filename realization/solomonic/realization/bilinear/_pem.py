"""Prediction error of a bilinear model in innovations form, its exact Jacobian, and Levenberg-Marquardt.

    x_{t+1} = A x_t + sum_j u_{t,j} N_j x_t + B v_t + K e_t,      e_t = y_t - C x_t - D v_t .

Given (A, N, C, K) the errors are linear in B, D and the state at the start of each piece of data: those are solved for
(separable least squares), and the Jacobian of what is left is projected (Kaufman). States and their derivatives are
right-hand sides of one band matrix.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.linalg

from .._linalg import triangle
from .._validate import Array
from ._recursion import solve, transitions

__all__ = ["Data", "Fitted", "Parameters", "filtered", "minimize", "pieces", "residuals"]


class Data(NamedTuple):
    """Pieces of data one after another: y [T, p], u [T, m], v [T, q], and where each piece starts."""

    y: Array
    u: Array
    v: Array
    starts: Array


class Parameters(NamedTuple):
    """What the errors depend on nonlinearly."""

    A: Array
    N: Array
    C: Array
    K: Array


class Fitted(NamedTuple):
    """The errors at some parameters, with the linear ones solved for, and the Jacobian."""

    errors: Array
    jacobian: Array | None
    B: Array
    D: Array
    x0: Array


def pieces(runs: list[tuple[Array, Array, Array]], longest: int) -> Data:
    """Cut runs into pieces of at most about ``longest`` steps."""
    starts, at = [], 0
    for y, _, _ in runs:
        count = max(1, round(len(y) / longest))
        starts += [at + (len(y) * i) // count for i in range(count)]
        at += len(y)
    y, u, v = (np.concatenate(parts) for parts in zip(*runs, strict=True))
    return Data(y, u, v, np.array(starts))


def _unpack(theta: Array, like: Parameters) -> Parameters:
    parts = np.split(theta, np.cumsum([x.size for x in like])[:-1])
    return Parameters(*(part.reshape(x.shape) for part, x in zip(parts, like, strict=True)))


def residuals(theta: Parameters, data: Data, *, noise: bool, jacobian: bool) -> Fitted | None:
    """Errors [T p] and Jacobian [T p, parameters]; None where the states leave the range of numbers."""
    a, n_j, c, k = theta
    y, u, v, starts = data
    steps, p = y.shape
    n, m, q = len(a), u.shape[1], v.shape[1]
    moves = transitions(a - k @ c, n_j, u)[:-1]
    moves[starts[1:] - 1] = 0
    eye = np.eye(n)
    drive = np.zeros((steps, n, 1 + (n + p) * q + n))
    drive[:, :, 0] = y @ k.T
    drive[:, :, 1 : 1 + n * q] = (eye[None, :, :, None] * v[:, None, None, :]).reshape(steps, n, -1)
    if noise:
        drive[:, :, 1 + n * q : 1 + (n + p) * q] = -(k[None, :, :, None] * v[:, None, None, :]).reshape(steps, n, -1)
    drive[starts[1:] - 1] = 0
    drive[starts[1:] - 1, :, -n:] = eye
    first = np.zeros(drive.shape[1:])
    first[:, -n:] = eye
    with np.errstate(all="ignore"):
        x = solve(moves, drive[:-1], first)
        seen = c @ x
    if not np.isfinite(seen).all() or np.abs(seen).max() > 1e8:
        return None
    seen[:, :, 1 + n * q : 1 + (n + p) * q] += (np.eye(p)[None, :, :, None] * v[:, None, None, :]).reshape(steps, p, -1)
    base = y - seen[:, :, 0]
    linear, free = seen[:, :, 1 : 1 + (n + p) * q], seen[:, :, -n:]
    # the state at the start of each piece is eliminated piece by piece, then B and D from all of them
    edges = [*starts.tolist(), steps]
    frames = []
    for lo, hi in itertools.pairwise(edges):
        frames.append(_frame(free[lo:hi].reshape(-1, n)))
    target = _project(frames, edges, base[:, :, None])[:, :, 0].reshape(-1)
    columns = _project(frames, edges, linear).reshape(steps * p, -1)
    frame = _frame(columns)
    beta = frame.solve @ (frame.q.T @ target)
    errors = target - columns @ beta
    b, d = beta[: n * q].reshape(n, q), beta[n * q :].reshape(p, q)
    rest = base - linear @ beta
    x0 = np.array(
        [f.solve @ (f.q.T @ rest[lo:hi].reshape(-1)) for f, lo, hi in zip(frames, edges[:-1], edges[1:], strict=True)]
    )
    if not jacobian:
        return Fitted(errors, None, b, d, x0)
    weights = np.zeros((steps, drive.shape[2]))
    weights[:, 0], weights[:, 1 : 1 + (n + p) * q] = 1, beta
    for state, lo, hi in zip(x0, edges[:-1], edges[1:], strict=True):
        weights[lo:hi, -n:] = state
    states = np.einsum("tnk,tk->tn", x, weights)
    e = y - states @ c.T - v @ d.T
    mixed = (u[:, :, None] * states[:, None, :]).reshape(steps, m, n)
    # columns in the order of the parameters: A [n, n], N [m, n, n], C [p, n], K [n, p]
    move_a = (eye[None, :, :, None] * states[:, None, None, :]).reshape(steps, n, -1)
    move_n = (eye[None, :, None, :, None] * mixed[:, None, :, None, :]).reshape(steps, n, -1)
    move_c = -(k[None, :, :, None] * states[:, None, None, :]).reshape(steps, n, -1)
    parts = [move_a, move_n, move_c]
    if noise:
        parts.append((eye[None, :, :, None] * e[:, None, None, :]).reshape(steps, n, -1))
    push = np.concatenate(parts, 2)
    push[starts[1:] - 1] = 0
    with np.errstate(all="ignore"):
        change = solve(moves, push[:-1], np.zeros(push.shape[1:]))
        slope = -(c @ change)
    at = n * n * (1 + m)
    slope[:, :, at : at + p * n] -= (np.eye(p)[None, :, :, None] * states[:, None, None, :]).reshape(steps, p, -1)
    slope = _project(frames, edges, slope).reshape(steps * p, -1)
    slope -= frame.q @ (frame.q.T @ slope)
    if not np.isfinite(slope).all():
        return None
    return Fitted(errors, slope, b, d, x0)


class _Frame(NamedTuple):
    """An orthonormal basis of columns, and the pseudo-inverse's other factor."""

    q: Array
    solve: Array


def _frame(columns: Array) -> _Frame:
    u, s, vh = np.linalg.svd(columns, full_matrices=False)
    rank = int(np.sum(s > (s[0] if s.size else 0) * 1e-10)) if s.size else 0
    return _Frame(u[:, :rank], vh[:rank].T / s[:rank])


def _project(frames: list[_Frame], edges: list[int], values: Array) -> Array:
    """Remove from [T, p, k] what the states at the starts of the pieces explain."""
    out = np.empty(values.shape)
    for frame, lo, hi in zip(frames, edges[:-1], edges[1:], strict=True):
        part = values[lo:hi].reshape(-1, values.shape[2])
        out[lo:hi] = (part - frame.q @ (frame.q.T @ part)).reshape(values[lo:hi].shape)
    return out


def filtered(theta: Parameters, fit: Fitted, data: Data) -> tuple[Array, Array]:
    """States [T, n] of the predictor and errors [T, p] at fitted parameters."""
    a, n_j, c, k = theta
    moves = transitions(a - k @ c, n_j, data.u)[:-1]
    drive = (data.v @ (fit.B - k @ fit.D).T + data.y @ k.T)[:-1, :, None]
    moves[data.starts[1:] - 1] = 0
    drive[data.starts[1:] - 1, :, 0] = fit.x0[1:]
    x = solve(moves, drive, fit.x0[0][:, None])[:, :, 0]
    return x, data.y - x @ c.T - data.v @ fit.D.T


def minimize(
    theta: Parameters, data: Data, *, noise: bool, iterations: int, ridge: float, stop: Callable[[int, float], bool]
) -> tuple[Parameters, Fitted | None, str]:
    """Levenberg-Marquardt from ``theta``; changes of states are directions without slope, in which no step is made.

    ``ridge`` penalizes the squared parameters A, N, C, K relative to the errors (0: none). Returns the best parameters,
    their
    errors and the reason to stop: "converged", "iterations" or "stopped" (``stop`` said so).
    """
    kept = Parameters(*theta) if noise else theta._replace(K=np.zeros_like(theta.K))
    found = residuals(kept, data, noise=noise, jacobian=True)
    if found is None:
        return kept, None, "the states leave the range of numbers"
    size = sum(x.size for x in kept) - (0 if noise else kept.K.size)
    damping, quiet = 1e-2, 0

    def vector(value: Parameters) -> Array:
        return np.concatenate([x.ravel() for x in value])

    def cost_of(value: Parameters, fit: Fitted) -> float:
        return float(fit.errors @ fit.errors + ridge * vector(value)[:size] @ vector(value)[:size])

    cost = cost_of(kept, found)
    for iteration in range(iterations):
        if stop(iteration, cost):
            return kept, found, "stopped"
        assert found.jacobian is not None
        flat = vector(kept)
        jacobian, errors = found.jacobian, found.errors
        if ridge:
            jacobian = np.vstack([jacobian, np.sqrt(ridge) * np.eye(size)])
            errors = np.concatenate([errors, np.sqrt(ridge) * flat[:size]])
        r, qe = _short(jacobian, errors)
        if not np.isfinite(r).all():
            return kept, found, "the states leave the range of numbers"
        u, s, vh = scipy.linalg.svd(r, full_matrices=False, lapack_driver="gesvd")
        downhill = u.T @ qe
        for _ in range(12):
            step = -vh.T @ (s / (s**2 + damping * s[0] ** 2 * 1e-2 + 1e-300) * downhill)
            trial = flat.copy()
            trial[:size] += step
            candidate = _unpack(trial, kept)
            new = residuals(candidate, data, noise=noise, jacobian=False)
            if new is not None and cost_of(candidate, new) < cost:
                break
            damping *= 4
        else:
            return kept, found, "converged"
        better = cost_of(candidate, new)
        full = residuals(candidate, data, noise=noise, jacobian=True)
        if full is None:
            return kept, found, "the states leave the range of numbers"
        quiet = quiet + 1 if cost - better <= 1e-6 * cost else 0
        kept, found, cost = candidate, full, better
        damping = max(damping / 6, 1e-12)
        if quiet >= 4:
            return kept, found, "converged"
    return kept, found, "iterations"


def _short(jacobian: Array, errors: Array) -> tuple[Array, Array]:
    """R and Q^T e of the Jacobian's QR decomposition, from one QR of both."""
    whole = triangle(np.column_stack([jacobian, errors]))
    return whole[:-1, :-1], whole[:-1, -1]
