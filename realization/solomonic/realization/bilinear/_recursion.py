"""The recursion x+ = M_t x + d_t, fast: many stretches of time at once, or one banded triangular solve.

Along an input a bilinear system is linear and time-varying, x_{t+1} = M_t x_t + B u_t with M_t = A + sum_j u_{t,j} N_j.
A loop over time in Python spends its time on calls, not on arithmetic. Two ways around it:

- :func:`run` cuts each run into stretches and moves all of them, and all runs, one step by one matrix product,
  [A N_1 .. N_m] (z_t (x) x_t). Each stretch starts from 0; then what its true start adds is carried along, as a
  correction, until it is below rounding. A system that forgets needs little more than one pass. States stay in the
  cache until they are read; several workers share the runs.
- :func:`solve` writes all steps as one lower triangular band matrix and hands it to LAPACK. It needs no forgetting and
  takes
  several right-hand sides: states and their derivatives in one call.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import scipy.linalg

from .._linalg import EPS
from .._validate import Array

__all__ = ["run", "solve", "transitions"]

# OpenBLAS starts threads above this many multiplications, which costs more than it brings for short products
_ONE_THREAD = 262_144
_MOST_STRETCHES = 256
_SHORTEST = 128
_PASSES = 6
_BLOCK = 8  # steps that are moved before their states are written: they stay in the cache
_SIDE_BY_SIDE = 16  # from so many runs on, one column a run is faster than a band matrix a run
_WORTH_A_THREAD = 5_000_000  # multiplications
_ENTRIES = 250_000  # entries of M_t that are held at once
(_solve_band,) = scipy.linalg.get_lapack_funcs(("tbtrs",), dtype=np.float64)
_BAND = 200_000  # entries of a band matrix that stays in the cache


def transitions(A: Array, N: Array, u: Array) -> Array:
    """M_t = A + sum_j u_{t,j} N_j for u [T, m]: [T, n, n]."""
    return A + (u @ N.reshape(len(N), -1)).reshape(len(u), *A.shape)


def solve(moves: Array, drive: Array, x0: Array) -> Array:
    """All states of x_{t+1} = M_t x_t + d_t, from x_0 to x_T.

    ``moves`` [T, n, n], ``drive`` [T, n, k] and ``x0`` [n, k] give [T + 1, n, k]. The steps form a triangular band
    matrix with
    unit diagonal and bandwidth 2n - 1, solved chunk by chunk by LAPACK's tbtrs: 4 T n^2 k operations, in compiled code.
    """
    steps, n, k = drive.shape
    out = np.empty((steps + 1, n, k))
    out[0] = x0
    size = max(1, min(steps, _BAND // (2 * n * n)))
    # column (t, j) of the band: the unit diagonal at 0, and the entry (i, j) of -M_t at n + i - j
    band = np.zeros((size + 1, n, 2 * n))
    band[:, :, 0] = 1
    item = band.itemsize
    inner = np.ndarray(
        (size, n, n), buffer=band.data, offset=n * item, strides=(2 * n * n * item, (2 * n - 1) * item, item)
    )
    for start in range(0, steps, size):
        count = min(size, steps - start)
        np.negative(moves[start : start + count].transpose(0, 2, 1), out=inner[:count])
        right = np.concatenate([out[start][None], drive[start : start + count]]).reshape(-1, k)
        matrix = band[: count + 1].reshape(-1, 2 * n).T  # what stands below the last block is not read
        solution, info = _solve_band(matrix, right, uplo="L", diag="U")
        assert info == 0
        out[start + 1 : start + count + 1] = solution.reshape(count + 1, n, k)[1:]
    return out


def _sweep(stacked: Array, z: Array, start: Array, sink: Callable[[int, Array], None], stop: Any = None) -> Array:
    """Move columns through all steps; hand the states before each step to ``sink``, block by block; return the last.

    ``stacked`` is [A N_1 .. N_m B], or the same without B for the movement without input; ``z`` [T, m, ...] holds the
    inputs of the columns, in any layout. ``stop`` of the states ends the sweep (what is then left counts as zero).
    """
    steps, m, n, columns = len(z), z.shape[1], len(start), start.shape[1]
    rows = (m + 1) * n
    driven = stacked.shape[1] > rows
    buffer, ring = np.empty((stacked.shape[1], columns)), np.empty((_BLOCK + 1, n, columns))
    free, moved = buffer[:n], buffer[n:rows].reshape(m, n, columns)
    now = np.empty((_BLOCK, m, columns))
    ring[0] = start
    for first in range(0, steps, _BLOCK):
        count = min(_BLOCK, steps - first)
        now[:count].reshape(count, m, *z.shape[2:])[:] = z[first : first + count]
        for t in range(count):
            free[:] = ring[t]
            np.multiply(now[t][:, None], free, out=moved)
            if driven:
                buffer[rows:] = now[t]
            np.matmul(stacked, buffer, out=ring[t + 1])
        sink(first, ring[:count])
        ring[0] = ring[count]
        if stop is not None and stop(ring[0]):
            return np.zeros_like(start)
    return ring[0]


def _group(A: Array, N: Array, B: Array, C: Array | None, u: Array, x0: Array, stretches: int, out: Array) -> bool:
    """Write what is asked of some runs, cut into stretches, to ``out``; False if memory outlasts the passes."""
    (runs, total, size), n = out.shape, len(A)
    length = -(-total // stretches)
    whole = stretches * length == total == u.shape[1]
    if whole:
        padded, wide = u, out
    else:
        padded, wide = np.zeros((runs, stretches * length, u.shape[2])), np.empty((runs, stretches * length, size))
        padded[:, : u.shape[1]] = u[:, : stretches * length]
    z = padded.reshape(runs, stretches, length, -1).transpose(2, 3, 0, 1)
    to = wide.reshape(runs, stretches, length, size).transpose(2, 3, 0, 1)
    letters = np.ascontiguousarray(np.concatenate([A[None], N]).transpose(1, 0, 2).reshape(n, -1))
    start = np.zeros((n, runs, stretches))
    start[:, :, 0] = x0.T
    peak = np.zeros(runs * stretches)

    def write(first: int, x: Array) -> None:
        seen = x if C is None else np.matmul(C, x)
        to[first : first + len(x)] = seen.reshape(len(x), size, runs, stretches)
        np.maximum(peak, np.abs(x[-1]).max(0), out=peak)

    def add(first: int, x: Array) -> None:
        seen = x if C is None else np.matmul(C, x)
        to[first : first + len(x)] += seen.reshape(len(x), size, runs, stretches)

    last = _sweep(np.hstack([letters, B]), z, start.reshape(n, -1), write)
    if stretches > 1:
        scale = EPS / 4 * peak
        for _ in range(_PASSES):
            first = np.zeros_like(start)
            first[:, :, 1:] = last.reshape(start.shape)[:, :, :-1]
            last = _sweep(letters, z, first.reshape(n, -1), add, lambda x: (np.abs(x) <= scale).all())
            if (np.abs(last) <= scale).all():
                break
        else:
            return False
    if not whole:
        out[:] = wide[:, :total]
    return True


def _run_by_run(A: Array, N: Array, B: Array, C: Array | None, u: Array, x0: Array, out: Array) -> None:
    """The same by :func:`solve`, in chunks that bound the memory of M_t; needs no forgetting."""
    steps, n = u.shape[1], len(A)
    size = max(1, _ENTRIES // (n * n))
    for r in range(len(u)):
        x = x0[r]
        if C is None:
            out[r, 0] = x
        for start in range(0, steps, size):
            part = slice(start, min(start + size, steps))
            drive = (u[r, part] @ B.T)[:, :, None]
            found = solve(transitions(A, N, u[r, part]), drive, x[:, None])[:, :, 0]
            x = found[-1]
            if C is None:
                out[r, part.start + 1 : part.stop + 1] = found[1:]
            else:
                out[r, part] = found[:-1] @ C.T


def run(A: Array, N: Array, B: Array, C: Array | None, u: Array, x0: Array, workers: int) -> Array:
    """C x_t at the steps, [R, T, p], or with no C the states x_0 to x_T, [R, T + 1, n].

    For R runs from inputs u [R, T, m] and x0 [R, n]. Entries may be infinite or NaN.
    """
    runs, steps, m = u.shape
    n = len(A)
    if C is None:
        out = np.empty((runs, steps + 1, n))
    else:
        out = np.empty((runs, steps, len(C)))
    if runs == 0 or out.shape[1] == 0:
        return out
    if steps == 0 or n == 0:
        out[:] = x0[:, None] if C is None else 0.0
        return out
    columns = max(1, min(_MOST_STRETCHES, _ONE_THREAD // (n * n * (m + 1))))
    small = runs * steps * n * n * (m + 1) < _WORTH_A_THREAD
    together = min(columns, -(-runs // (1 if small else workers)))

    def one(first: int) -> None:
        part = slice(first, min(first + together, runs))
        count = part.stop - part.start
        stretches = max(1, min(columns // count, steps // _SHORTEST))
        stretches = -(-out.shape[1] // -(-out.shape[1] // stretches))  # none empty
        with np.errstate(all="ignore"):
            done = _group(A, N, B, C, u[part], x0[part], stretches, out[part])
            if done and np.isfinite(out[part]).all():
                return
            if count >= _SIDE_BY_SIDE:
                _group(A, N, B, C, u[part], x0[part], 1, out[part])
            else:
                _run_by_run(A, N, B, C, u[part], x0[part], out[part])

    firsts = range(0, runs, together)
    if len(firsts) == 1 or small or workers == 1:
        for first in firsts:
            one(first)
    else:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(one, firsts))
    return out
