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
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.linalg

from .._validate import Array
from . import _pem
from .words import words

__all__ = ["Estimate", "subspace"]

_MOST = 600  # times used for the ridge: the kernel matrix has that many rows
_TRIED = 450  # times used to choose forgetting, weight and ridge
_FORGET = (0.8, 0.55, 0.35, 0.2)  # r: how the squared size of what words see falls by letter
_WEIGHT = (0.8, 0.4, 0.2, 0.1)  # g: how much smaller it is, by letter N_j in place of A
_KERNELS = 2  # the best ones on held-out data are tried, with ridges around theirs:
_RIDGES = (1.0, 0.1, 0.01, 10.0)
_STEPS = 3  # Gauss-Newton steps at the end
_BLOCK = 96  # rows of the kernel matrix that are made together


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
    one_and_u = np.hstack([np.ones((len(u), 1)), weight * u])
    for first in range(0, len(t), _BLOCK):  # few rows at a time: all lags of them in the cache
        rows = t[first : first + _BLOCK]
        part, product = out[first : first + _BLOCK], np.ones((len(rows), len(s)))
        now = np.empty_like(product)
        for k in range(1, depth + 1):
            np.matmul(forget**k * w[rows - k], w[s - k].T, out=now)
            part += np.multiply(now, product, out=now)
            product *= np.matmul(one_and_u[rows - k], one_and_u[s - k].T, out=now)
    return out


def subspace(runs: list[tuple[Array, Array, Array]], order: int, depth: int, rng: np.random.Generator) -> Estimate:
    """Estimate from runs (y [T, p], u [T, m], v [T, q]): v is u, with a constant beside it where there is one.

    Held-out data say which kernels are worth a try, each with its ridge; among those, and ridges around theirs, the
    one-step error of the model of the order asked for decides: what predicts best over all words need not give the best
    states.
    """
    y, u, v = (np.concatenate(parts) for parts in zip(*runs, strict=True))
    lengths = [len(run[0]) for run in runs]
    starts = np.cumsum([0, *lengths[:-1]])
    times = np.concatenate([np.arange(a + depth, a + n) for a, n in zip(starts, lengths, strict=True)])
    past = _Past(y, u, v, np.hstack([v, y]), times, depth)
    used = _some(times, _MOST, rng)
    data = _pem.pieces(runs, len(y))
    found: Estimate | None = None
    for score, forget, weight, ridge in _held_out(past, _some(used, _TRIED, rng))[:_KERNELS]:
        for ridge_tried, seen in _seen(past, used, forget, weight, ridge, order):
            _, s, vh = np.linalg.svd(seen, full_matrices=False)
            x = seen @ vh[:order].T
            x /= np.maximum(np.sqrt(np.mean(x**2, 0)), 1e-300)
            facts = {"forget": forget, "weight": weight, "ridge": ridge_tried, "held_out": score}
            for estimate in _refined(x, past, data, s, facts):
                if found is None or estimate.settings["error"] < found.settings["error"]:
                    found = estimate
    if found is None:
        raise ValueError("every predictor that was tried grows without bound")
    return _polished(found, data)


class _Past(NamedTuple):
    """Runs one after another: y, u, v, what the predictor is driven by (w), and the times with enough past."""

    y: Array
    u: Array
    v: Array
    w: Array
    times: Array
    depth: int


def _some(times: Array, most: int, rng: np.random.Generator) -> Array:
    return times if len(times) <= most else np.sort(rng.choice(times, most, replace=False))


def _gram(past: _Past, t: Array, s: Array, forget: float, weight: float) -> Array:
    """The kernel with what v does at once, which is hardly penalized."""
    return _kernel(past.u, past.w, t, s, past.depth, forget, weight) + 10 * past.v[t] @ past.v[s].T


def _held_out(past: _Past, some: Array) -> list[tuple[float, float, float, float]]:
    """Mean squared error on data held out in blocks, forgetting, weight, and the best ridge for those; best first."""
    held = (np.arange(len(some)) * 16 // len(some)) % 4 == 3
    found = []
    for forget, weight in itertools.product(_FORGET, _WEIGHT):
        gram = _gram(past, some, some, forget, weight)
        values, vectors = np.linalg.eigh(gram[np.ix_(~held, ~held)])
        turned, seen = vectors.T @ past.y[some[~held]], gram[np.ix_(held, ~held)] @ vectors
        scores = []
        for ridge in values[-1] * 10.0 ** np.arange(-10, -0.9, 0.5):
            error = past.y[some[held]] - seen @ (turned / (np.maximum(values, 0) + ridge)[:, None])
            scores.append((float(np.mean(error**2)), forget, weight, float(ridge)))
        found.append(min(scores))
    return sorted(found)


def _seen(
    past: _Past, used: Array, forget: float, weight: float, ridge: float, order: int
) -> Iterator[tuple[float, Array]]:
    """For ridges around the one given: what each row word sees of the state, [times, words p].

    That is sum_s alpha_s z-product(s) G(t, s - |word|), with fewer lags left.
    """
    m = past.u.shape[1]
    gram = _gram(past, used, used, forget, weight)
    names = words(m + 1, min(max(3, order), 4 if m == 1 else 3) - 1)
    grams = [
        _kernel(past.u, past.w, past.times, used - k, past.depth - k, forget, weight) for k in range(len(names[-1]) + 1)
    ]
    for more in _RIDGES:
        alpha = scipy.linalg.solve(gram + ridge * more * np.eye(len(gram)), past.y[used], assume_a="pos")
        rows = []
        for word in names:
            factor = np.full(len(used), forget ** len(word))
            for i, letter in enumerate(word):  # the letter that acts last meets the input nearest to s
                factor = factor * (1.0 if letter == 0 else weight**2 * past.u[used - 1 - i, letter - 1])
            rows.append(grams[len(word)] @ (alpha * factor[:, None]))
        yield ridge * more, np.hstack(rows)


def _refined(x: Array, past: _Past, data: _pem.Data, s: Array, facts: dict[str, float]) -> Iterator[Estimate]:
    """Models from states at the times; each model's own states then take the place of those it was made from."""
    e, last = None, np.inf
    for _ in range(6):
        a, n_j, _, c, _, k = _regress(x, e, past.y, past.u, past.v, past.times)
        theta = _pem.Parameters(a, n_j, c, k)
        fit = _pem.residuals(theta, data, noise=True, jacobian=False)
        for shrink in (1.0, 0.9, 0.7, 0.0):  # a predictor that grows: without feedback, then calmer
            if fit is not None:
                break
            theta = _pem.Parameters(shrink * a, shrink * n_j, c, 0 * k)
            fit = _pem.residuals(theta, data, noise=True, jacobian=False)
        if fit is None:
            return
        error = float(np.mean(fit.errors**2))
        if error >= last * (1 - 1e-3):
            return
        last = error
        yield Estimate(theta.A, theta.N, fit.B, c, fit.D, theta.K, s, {**facts, "error": error})
        x, e = (part[past.times] for part in _pem.filtered(theta, fit, data))


def _polished(found: Estimate, data: _pem.Data) -> Estimate:
    """A few Gauss-Newton steps on the one-step error: what a ridge and states with errors leave as a bias."""
    start = _pem.Parameters(found.A, found.N, found.C, found.K)
    theta, fit, _ = _pem.minimize(start, data, noise=True, iterations=_STEPS, ridge=0.0, stop=lambda *_: False)
    if fit is None:
        return found
    facts = {**found.settings, "before_steps": found.settings["error"], "error": float(np.mean(fit.errors**2))}
    return Estimate(theta.A, theta.N, fit.B, theta.C, fit.D, theta.K, found.singular_values, facts)


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
