"""Windows of past and future samples, compressed to one triangular factor whatever the length of the data."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg.lapack
from tqdm.auto import tqdm

from .._linalg import triangle
from .._validate import Array
from ._records import Records

__all__ = ["compress", "lagged"]

# Rows that enter one QR step.
CHUNK = 20_000
# Reciprocal condition from which on the factor is taken of the Gram matrix: it then is right to ten digits.
WELL_CONDITIONED = 1e-3


def lagged(series: Array, lags: int) -> Array:
    """Rows (s_{t-1}, s_{t-2}, .., s_{t-lags}) for t = lags .. T-1, as [T - lags, lags * channels]."""
    view = np.lib.stride_tricks.sliding_window_view(series[:-1], lags, axis=0)
    return view[:, :, ::-1].transpose(0, 2, 1).reshape(len(series) - lags, -1)


def _factor(matrix: Array) -> Array:
    """R: of the Gram matrix (Cholesky) where that loses nothing, else by QR, at four times the cost."""
    lapack: Any = scipy.linalg.lapack
    factor, failed = lapack.dpotrf(matrix.T @ matrix)
    if not failed and lapack.dtrcon(factor)[0] >= WELL_CONDITIONED:
        return factor
    return triangle(matrix)


def compress(
    records: Records, past: int, future: int, *, intercept: bool = False, progress: bool = False
) -> tuple[Array, int]:
    """Triangular factor of all windows, columns [U_future, U_past, Y_past, Y_future] by time, and their number.

    Every least squares problem in these samples is one in the columns of the factor; with an intercept, one that also
    has a constant among its regressors. Rows may have either sign.
    """
    width = past + future
    pieces: list[tuple[Array, Array]] = []
    for y, u in zip(records.y, records.u, strict=True):
        count = len(y) - width + 1
        for start in range(0, max(count, 0), CHUNK):
            stop = min(start + CHUNK, count) + width - 1
            pieces.append((y[start:stop], u[start:stop]))
    factor, total = None, 0
    for y, u in tqdm(pieces, desc="compressing windows", disable=not progress):
        rows = len(y) - width + 1
        # A row of this buffer is a column of the matrix: contiguous, as LAPACK reads it.
        buffer = np.ones((intercept + width * (y.shape[1] + u.shape[1]), rows))
        start = int(intercept)
        for series, low, high in ((u, past, width), (u, 0, past), (y, 0, past), (y, past, width)):
            size, channels = (high - low) * series.shape[1], series.shape[1]
            if size:
                view = np.lib.stride_tricks.sliding_window_view(series[low : high + rows - 1], rows, axis=0)
                buffer[start : start + size].reshape(high - low, channels, rows)[:] = view
            start += size
        matrix = buffer.T
        total += rows
        factor = _factor(matrix if factor is None else np.vstack([factor, matrix]))
    assert factor is not None
    return (factor[1:, 1:] if intercept else factor), total
