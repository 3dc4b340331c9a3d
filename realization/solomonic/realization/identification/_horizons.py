"""How far to look: horizons from the order of an autoregression."""

from __future__ import annotations

import numpy as np

from .._linalg import EPS, triangle
from .._validate import Array, as_index
from ._records import Records
from ._windows import lagged

__all__ = ["autoregression_order", "choose_horizons"]


def log_det(covariance: Array) -> Array:
    """log det of covariances [.., p, p] of channels of unit size, eigenvalues below rounding raised to it."""
    return np.sum(np.log(np.maximum(np.linalg.eigvalsh(covariance), EPS**2)), axis=-1)


def autoregression_order(records: Records, largest: int) -> int:
    """Order of the vector autoregression (with inputs) that minimises Akaike's criterion."""
    p, m = records.outputs, records.inputs
    factor, total = np.zeros((0, m + largest * (m + p) + p)), 0
    for y, u in zip(records.y, records.u, strict=True):
        if len(y) <= largest:
            continue
        rows = np.hstack([u[largest:], lagged(np.hstack([u, y]), largest), y[largest:]])
        factor, total = triangle(np.vstack([factor, rows])), total + len(rows)
    scores = []
    for order in range(1, largest + 1):
        rest = factor[m + order * (m + p) :, -p:]
        scores.append(total * log_det(rest.T @ rest / total) + 2 * p * (m + order * (m + p)))
    return 1 + int(np.argmin(scores))


def choose_horizons(records: Records, order: int | None, past: int | None, future: int | None) -> tuple[int, int]:
    """Past and future horizons; those that are not given come from an autoregression: past = 2 x its order.

    Raises ValueError where the records are too short.
    """
    p, m = records.outputs, records.inputs
    longest = max(len(each) for each in records.y)
    least = 2 if order is None else max(2, -(-order // p) + 1)
    if past is not None:
        past = as_index(past, "past", 1, 10**6)
    if future is not None:
        future = as_index(future, "future", 1, 10**6)
    if past is None or future is None:
        # Leave at least three windows a column of the factor.
        room = max(1, min(longest // 3, records.samples // (6 * (p + m) + 2)))
        largest = int(min(room, max(4, np.log(max(records.samples, 2)) ** 1.6)))
        try_past = 2 * autoregression_order(records, max(1, min(largest, longest - 1)))
        wanted = int(min(max(try_past, least, 4), max(room, least)))
        past = wanted if past is None else past
        future = min(wanted, past) if future is None else future
        future = max(future, least)
    width = past + future
    windows = sum(max(len(each) - width + 1, 0) for each in records.y)
    columns = width * (p + m)
    if windows < columns:
        raise ValueError(
            f"y: expected at least {columns} windows of {past} past and {future} future samples ({width} samples times "
            f"{p + m} channels), got {windows} from records of {[len(each) for each in records.y][:6]} samples; give "
            f"longer records or shorter horizons (past=, future=)"
        )
    if order is not None and order > (future - 1) * p:
        raise ValueError(
            f"order: expected at most {(future - 1) * p}, what a future of {future} samples of {p} outputs can show, "
            f"got {order}; raise future="
        )
    return past, future
