"""States of a linear recursion, vectorised over time in two levels of blocks."""

from __future__ import annotations

import numpy as np

from .._validate import Array

__all__ = ["linear_states"]

# Entries of a drive up to which recursive doubling is faster than blocks.
DOUBLING = 60_000


def _doubled(a: Array, drive: Array, start: Array) -> Array:
    """x_{t+1} = sum_k A^k d_{t-k}: after step j the sums reach 2^j terms."""
    out = np.concatenate([start[None], drive])
    rows = out.reshape(-1, len(a))  # one matrix product for all steps and paths
    shift, power = len(start), a.T
    while shift < len(rows):
        rows[shift:] += rows[:-shift] @ power
        shift, power = 2 * shift, power @ power
    return out


def linear_states(a: Array, drive: Array, start: Array | None = None) -> Array:
    r"""Run :math:`x_{t+1} = A x_t + d_t` for many drives at once.

    Parameters
    ----------
    a : ndarray [n, n]
        Transition.
    drive : ndarray [T, n] or [T, k, n]
        What enters each step, for one path or for k paths.
    start : ndarray [n] or [k, n], optional
        State at step 0; zero by default.

    Returns
    -------
    ndarray [T + 1, n] or [T + 1, k, n]
        States 0 .. T.

    Notes
    -----
    Short series: recursive doubling, :math:`\log_2 T` matrix products. Long ones: blocks of :math:`\sqrt{T}` steps run
    side by side from zero, then the states at their ends are linked: :math:`2 \sqrt{T}` products in place of T.
    Cost: :math:`O(T k n^2)`, times :math:`\log_2 T` where doubling is used.
    """
    single = drive.ndim == 2
    d = drive[:, None, :] if single else drive
    steps, paths, n = d.shape
    x0 = np.zeros((paths, n)) if start is None else np.broadcast_to(start, (paths, n))
    if n == 0:
        out = np.zeros((steps + 1, paths, 0))
        return out[:, 0] if single else out
    if d.size <= DOUBLING:
        out = _doubled(a, d, x0)
        return out[:, 0] if single else out
    length = max(1, int(np.sqrt(steps)))
    blocks = -(-steps // length)
    if blocks * length > steps:
        d = np.concatenate([d, np.zeros((blocks * length - steps, paths, n))])
    d = d.reshape(blocks, length, paths, n)
    out = np.empty((blocks * length + 1, paths, n))
    inner = out[:-1].reshape(blocks, length, paths, n)
    powers = np.empty((length + 1, n, n))
    powers[0], local = np.eye(n), np.zeros((blocks, paths, n))
    for i in range(length):
        inner[:, i] = local
        local = local @ a.T + d[:, i]
        powers[i + 1] = a @ powers[i]
    entry = np.empty((blocks + 1, paths, n))
    entry[0] = x0
    for j in range(blocks):
        entry[j + 1] = entry[j] @ powers[length].T + local[j]
    inner += (
        (entry[:-1].reshape(-1, n) @ powers[:length].reshape(-1, n).T)
        .reshape(blocks, paths, length, n)
        .transpose(0, 2, 1, 3)
    )
    out[-1] = entry[-1]
    out = out[: steps + 1]
    return out[:, 0] if single else out
