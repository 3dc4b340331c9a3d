"""The recursion x+ = M_t x + d_t, fast: many stretches of time at once, or one banded triangular solve.

Along an input a bilinear system is linear and time-varying, x_{t+1} = M_t x_t + B u_t with M_t = A + sum_j u_{t,j} N_j.
A loop over time in Python spends its time on calls, not on arithmetic. Two ways around it:

- :func:`states` cuts each run into stretches and moves all of them one step by one matrix product,
  [A N_1 .. N_m] (z_t (x) x_t). Each stretch starts from 0; then what its true start adds is carried along, as a
  correction, until it is below rounding. A system that forgets needs little more than one pass.
- :func:`solve` writes all steps as one lower triangular band matrix and hands it to LAPACK. It needs no forgetting and
  takes
  several right-hand sides: states and their derivatives in one call.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg

from .._linalg import EPS
from .._validate import Array

__all__ = ["propagate", "solve", "states", "transitions"]

# OpenBLAS starts threads above this many multiplications, which costs more than it brings for short products
_ONE_THREAD = 262_144
_MOST_STRETCHES = 256
_SHORTEST = 128
_PASSES = 6
_ENTRIES = 250_000  # state entries of the runs that are moved together
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


def _one_by_one(A: Array, N: Array, drive: Array, u: Array, x0: Array) -> Array:
    """States [R, T + 1, n] run by run, by :func:`solve`, in chunks that bound the memory of M_t."""
    runs, steps, _ = u.shape
    n = len(A)
    out = np.empty((runs, steps + 1, n))
    size = max(1, _ENTRIES // (n * n))
    for r in range(runs):
        out[r, 0] = x0[r]
        for start in range(0, steps, size):
            part = slice(start, min(start + size, steps))
            found = solve(transitions(A, N, u[r, part]), drive[r, part, :, None], out[r, start][:, None])
            out[r, part.start + 1 : part.stop + 1] = found[1:, :, 0]
    return out


def _move(stacked: Array, z: Array, start: Array, out: Array, stop: Any = None) -> int:
    """Fill out[1:] from out[0] = start by one product a step; return the steps taken (fewer where ``stop`` says so).

    ``stacked`` is [A N_1 .. N_m B], or the same without B for the movement without input.
    """
    m, n, columns = z.shape[1], len(start), start.shape[1]
    rows = (m + 1) * n
    buffer = np.empty((stacked.shape[1], columns))
    free, moved = buffer[:n], buffer[n:rows].reshape(m, n, columns)
    driven = stacked.shape[1] > rows
    out[0] = start
    for t in range(len(z)):
        free[:] = out[t]
        np.multiply(z[t][:, None], out[t], out=moved)
        if driven:
            buffer[rows:] = z[t]
        np.matmul(stacked, buffer, out=out[t + 1])
        if stop is not None and t % 8 == 7 and stop(out[t + 1]):
            return t + 1
    return len(z)


def _group(A: Array, N: Array, B: Array, u: Array, x0: Array, stretches: int, out: Array) -> bool:
    """Write states [R, T + 1, n] of some runs, cut into stretches, to ``out``; False if memory outlasts the passes."""
    runs, steps, m = u.shape
    n, length = len(A), -(-steps // stretches)
    padded = np.zeros((runs, stretches * length, m))
    padded[:, :steps] = u
    z = np.ascontiguousarray(padded.reshape(runs * stretches, length, m).transpose(1, 2, 0))
    letters = np.ascontiguousarray(np.concatenate([A[None], N]).transpose(1, 0, 2).reshape(n, -1))
    start = np.zeros((n, runs, stretches))
    start[:, :, 0] = x0.T
    x = np.empty((length + 1, n, runs * stretches))
    _move(np.hstack([letters, B]), z, start.reshape(n, -1), x)
    if stretches > 1:
        scale = EPS / 4 * np.abs(x).max((0, 1))
        change = np.empty_like(x)
        missing = x[-1].reshape(n, runs, stretches)
        for _ in range(_PASSES):
            first = np.zeros_like(start)
            first[:, :, 1:] = missing[:, :, :-1]
            taken = _move(letters, z, first.reshape(n, -1), change, lambda now: (np.abs(now) <= scale).all())
            x[: taken + 1] += change[: taken + 1]
            if taken < length or (np.abs(change[-1]) <= scale).all():
                break
            missing = change[-1].reshape(n, runs, stretches)
        else:
            return False
    last = steps - length * (stretches - 1)
    grid = x.reshape(length + 1, n, runs, stretches)
    for k in range(stretches):  # a stretch at a time: each is read and written once, in the cache
        count = last if k == stretches - 1 else length
        out[:, k * length : k * length + count] = grid[:count, :, :, k].transpose(2, 0, 1)
    out[:, steps] = grid[last, :, :, -1].T
    return True


def states(A: Array, N: Array, B: Array, u: Array, x0: Array) -> Array:
    """States [R, T + 1, n] of R runs from inputs u [R, T, m] and x0 [R, n]; entries may be infinite or NaN."""
    runs, steps, m = u.shape
    n = len(A)
    if steps == 0 or runs == 0 or n == 0:
        return np.repeat(x0[:, None], steps + 1, 1)
    together = int(np.clip(_ENTRIES // (steps * n), 1, runs))
    columns = min(_MOST_STRETCHES, _ONE_THREAD // (n * n * (m + 1)))
    out = np.empty((runs, steps + 1, n))
    with np.errstate(all="ignore"):
        for first in range(0, runs, together):
            part = slice(first, min(first + together, runs))
            count = part.stop - part.start
            stretches = max(1, min(columns // count, steps // _SHORTEST))
            stretches = -(-steps // -(-steps // stretches))  # none empty
            done = _group(A, N, B, u[part], x0[part], stretches, out[part])
            if not (done and np.isfinite(out[part]).all()):
                out[part] = _one_by_one(A, N, u[part] @ B.T, u[part], x0[part])
    return out


def propagate(A: Array, N: Array, u: Array, drive: Array, x0: Array) -> Array:
    """States [T + 1, n, k] for one input u [T, m] and k right-hand sides ``drive`` [T, n, k], ``x0`` [n, k]."""
    with np.errstate(all="ignore"):
        return solve(transitions(A, N, u), drive, x0)
