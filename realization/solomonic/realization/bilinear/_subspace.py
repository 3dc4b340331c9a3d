"""Subspace identification in dual (kernel) form: a bilinear predictor of all words, then its states.

In innovations form, with e_t = y_t - C x_t - D v_t, the predictor is bilinear too and forgets fast:

    x_{t+1} = (A - K C) x_t + sum_j u_{t,j} N_j x_t + (B - K D) v_t + K y_t .

So y_t is linear in products of past inputs along words, as many as there are words. They are never formed: all that is
needed are their inner products between two times s and t, which factor,

    G(t, s) = sum_k r^k  w_{t-k} . w_{s-k}  prod_{0 < i < k} (1 + g^2 u_{t-i} . u_{s-i}),      w = (v, y),

and grow by one product of matrices' entries a lag. A ridge, chosen together with the forgetting r and the weight g on
data that were held out, makes up for what is more than the data.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from .._validate import Array
from . import _pem
from .words import words

__all__ = ["Estimate", "subspace"]

_MOST = 900  # times used for the ridge: the kernel matrix has that many rows
_TRIED = 600  # times used to choose forgetting, weight and ridge


class Estimate(NamedTuple):
    """Matrices in innovations form, with the evidence."""

    A: Array
    N: Array
    B: Array
    C: Array
    D: Array
    K: Array
    singular_values: Array
    settings: dict[str, float]


def _kernel(u: Array, w: Array, t: Array, s: Array, depth: int, forget: float, weight: float) -> Array:
    """G(t, s), with lags up to ``depth``; times t and s have that many steps before them."""
    out = np.zeros((len(t), len(s)))
    product = np.ones_like(out)
    for k in range(1, depth + 1):
        out += forget**k * product * (w[t - k] @ w[s - k].T)
        product *= 1 + weight**2 * (u[t - k] @ u[s - k].T)
    return out


def subspace(runs: list[tuple[Array, Array, Array]], order: int, depth: int, rng: np.random.Generator) -> Estimate:
    """Estimate from runs (y [T, p], u [T, m], v [T, q]): v is u, with a constant beside it where there is one."""
    y, u, v = (np.concatenate(parts) for parts in zip(*runs, strict=True))
    m = u.shape[1]
    lengths = [len(run[0]) for run in runs]
    starts = np.cumsum([0, *lengths[:-1]])
    times = np.concatenate([np.arange(a + depth, a + n) for a, n in zip(starts, lengths, strict=True)])
    w = np.hstack([v, y])
    used = times if len(times) <= _MOST else np.sort(rng.choice(times, _MOST, replace=False))

    # ridge, forgetting and weight by data held out in blocks
    some = used if len(used) <= _TRIED else np.sort(rng.choice(used, _TRIED, replace=False))
    held = (np.arange(len(some)) * 16 // len(some)) % 4 == 3
    best: tuple[float, float, float, float] = (np.inf, 0.9, 1.0, 1e-3)
    for forget, weight in itertools.product((0.9, 0.75, 0.6), (1.0, 0.5, 0.2)):
        gram = _kernel(u, w, some, some, depth, forget, weight) + 10 * v[some] @ v[some].T
        values, vectors = np.linalg.eigh(gram[np.ix_(~held, ~held)])
        turned, seen = vectors.T @ y[some[~held]], gram[np.ix_(held, ~held)] @ vectors
        for ridge in values[-1] * 10.0 ** np.arange(-10, -0.9, 0.5):
            error = y[some[held]] - seen @ (turned / (np.maximum(values, 0) + ridge)[:, None])
            score = float(np.mean(error**2))
            if score < best[0]:
                best = (score, forget, weight, float(ridge))
    score, forget, weight, ridge = best
    gram = _kernel(u, w, used, used, depth, forget, weight) + 10 * v[used] @ v[used].T
    values, vectors = np.linalg.eigh(gram)
    turned = vectors.T @ y[used]
    # what each row word sees of the state at t: sum_s alpha_s z-product(s) G(t, s - |word|), fewer lags being left
    names = words(m + 1, min(max(3, order), 4 if m == 1 else 3) - 1)
    grams = [_kernel(u, w, times, used - k, depth - k, forget, weight) for k in range(len(names[-1]) + 1)]
    data = _pem.pieces(runs, len(y))
    found: tuple[float, Estimate] | None = None
    for more in (1.0, 1e-2, 1e2):
        alpha = vectors @ (turned / (np.maximum(values, 0) + ridge * more)[:, None])
        rows = []
        for word in names:
            factor = np.full(len(used), forget ** len(word))
            for i, letter in enumerate(word):  # the letter that acts last meets the input nearest to s
                factor = factor * (1.0 if letter == 0 else weight**2 * u[used - 1 - i, letter - 1])
            rows.append(grams[len(word)] @ (alpha * factor[:, None]))
        seen = np.hstack(rows)
        _, s, vh = np.linalg.svd(seen, full_matrices=False)
        x = seen @ vh[:order].T
        x /= np.maximum(np.sqrt(np.mean(x**2, 0)), 1e-300)
        e = None
        for _ in range(6):  # states of the predictor just made take the place of those it was made from
            a, n_j, _, c, _, k = _regress(x, e, y, u, v, times)
            theta = _pem.Parameters(a, n_j, c, k)
            fit = _pem.residuals(theta, data, noise=True, jacobian=False)
            for shrink in (1.0, 0.9, 0.7, 0.0):  # a predictor that grows: without feedback, then calmer
                if fit is not None:
                    break
                theta = _pem.Parameters(shrink * a, shrink * n_j, c, 0 * k)
                fit = _pem.residuals(theta, data, noise=True, jacobian=False)
            if fit is None:
                break
            error = float(np.mean(fit.errors**2))
            if found is not None and error >= found[0] * (1 - 1e-3):
                break
            facts = {"forget": forget, "weight": weight, "ridge": ridge * more, "held_out": score, "error": error}
            found = (error, Estimate(a, n_j, fit.B, c, fit.D, k, s, facts))
            x, e = (part[times] for part in _pem.filtered(theta, fit, data))
    if found is None:
        raise ValueError("every predictor that was tried grows without bound")
    return found[1]


def _regress(
    x: Array, e: Array | None, y: Array, u: Array, v: Array, times: Array
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """C and D from y on the state, then A, N, B and K from the next state on what moves it."""
    n, m, q = x.shape[1], u.shape[1], v.shape[1]
    output = np.linalg.lstsq(np.hstack([x, v[times]]), y[times], rcond=None)[0].T
    c, d = output[:, :n], output[:, n:]
    e = y[times] - x @ c.T - v[times] @ d.T if e is None else e
    now = np.flatnonzero(np.diff(times) == 1)
    at = times[now]
    mixed = (u[at][:, :, None] * x[now][:, None, :]).reshape(len(now), -1)
    # where the errors are tiny so is what they move: a slight penalty on K (data of size 1) keeps it bounded
    columns = np.hstack([x[now], mixed, v[at], e[now]])
    penalty = np.zeros((e.shape[1], columns.shape[1]))
    penalty[:, columns.shape[1] - e.shape[1] :] = 1e-3 * np.sqrt(len(now)) * np.eye(e.shape[1])
    target = np.vstack([x[now + 1], np.zeros((e.shape[1], n))])
    moved = np.linalg.lstsq(np.vstack([columns, penalty]), target, rcond=None)[0].T
    a, more, b, k = np.split(moved, np.cumsum([n, m * n, q]), axis=1)
    return a, more.reshape(n, m, n).transpose(1, 0, 2), b, c, d, k
